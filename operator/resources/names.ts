import { KVCLUSTER_API_VERSION, KVCLUSTER_KIND } from '../../model/kvcluster.ts';
import type { OwnerReference } from '../runtime/api.ts';

/** Who an object is made for. */
export interface ClusterIdentity {
  readonly namespace: string;
  readonly name: string;
  /** Of the KVCluster object: another object of the same name has another one. */
  readonly uid: string;
}

export const FIELD_MANAGER = 'kvcluster-operator';

/** Ports of a node, the same in every pod. */
export const ports = { client: 50051, peer: 50052, http: 9090 } as const;

/** The node's flag that says how many of them a pod runs; absent: one. */
export const WORKERS_ARGUMENT = '--workers=';

/** The container that runs the node. */
export const NODE_CONTAINER = 'node';
export const DATA_VOLUME = 'data';
/** User and group of every container. */
export const RUN_AS_ID = 65532;

export const annotations = {
  /** namespace/name of the KVCluster, so that an object without an owner can be recognised as its own. */
  cluster: 'kvcluster.io/cluster',
  /** Hash of what was last applied. */
  appliedHash: 'kvcluster.io/applied-hash',
  /** On a volume claim: the cluster whose data the volume may hold. */
  clusterId: 'kvcluster.io/cluster-id',
  /** On a volume claim: that cluster has been in use. */
  initialised: 'kvcluster.io/initialised',
} as const;

/** Every object that the operator makes carries this; its caches select by it. */
export const APP_NAME = 'kvcluster';
export const CACHE_SELECTOR = `app.kubernetes.io/name=${APP_NAME}`;

export type Component = 'node' | 'backup';

/** Labels of an object, stable over releases: those of pods are part of what a node's revision is made from. */
export function labelsOf(cluster: { readonly name: string }, component: Component): Record<string, string> {
  return { ...selectorOf(cluster, component), 'app.kubernetes.io/managed-by': FIELD_MANAGER };
}

/** The labels by which Services, budgets and the set select pods. */
export function selectorOf(cluster: { readonly name: string }, component: Component): Record<string, string> {
  return {
    'app.kubernetes.io/name': APP_NAME,
    'app.kubernetes.io/instance': cluster.name,
    'app.kubernetes.io/component': component,
  };
}

export function objectNames(name: string) {
  return {
    statefulSet: name,
    clientService: name,
    headlessService: `${name}-headless`,
    topology: `${name}-topology`,
    secret: `${name}-internal`,
    podDisruptionBudget: name,
    backup: `${name}-backup`,
    pod: (ordinal: number) => `${name}-${ordinal}`,
    volumeClaimOf: (pod: string) => `${DATA_VOLUME}-${pod}`,
  } as const;
}

/** The one owner of everything that goes when the KVCluster goes. */
export function ownerReferenceTo(cluster: ClusterIdentity): OwnerReference {
  return {
    apiVersion: KVCLUSTER_API_VERSION,
    kind: KVCLUSTER_KIND,
    name: cluster.name,
    uid: cluster.uid,
    controller: true,
    blockOwnerDeletion: true,
  };
}

/** The metadata of an owned object. */
export function ownedMetadata(cluster: ClusterIdentity, name: string, component: Component) {
  return {
    name,
    namespace: cluster.namespace,
    labels: labelsOf(cluster, component),
    annotations: { [annotations.cluster]: `${cluster.namespace}/${cluster.name}` },
    ownerReferences: [ownerReferenceTo(cluster)],
  };
}
