import { KVCLUSTER_API_VERSION, KVCLUSTER_KIND } from '../../model/kvcluster.ts';
import { annotations, APP_NAME, type ClusterIdentity } from '../resources/names.ts';
import type { KubernetesObject } from './api.ts';

/** Whose an object is that has a name we would give to one of ours. */
export type Ownership =
  | 'absent'
  /** This KVCluster's, or left without an owner by an earlier one of the same name: we may write it. */
  | 'ours'
  /** It still belongs to an earlier KVCluster of this name, or is about to go: wait. */
  | 'earlier'
  /** Somebody else's: touch nothing. */
  | 'foreign';

/** Decides from owner references, labels and the cluster annotation. */
export function ownershipOf(object: KubernetesObject | undefined, cluster: ClusterIdentity): Ownership {
  if (object === undefined) return 'absent';
  const { metadata } = object;
  const owner = (metadata.ownerReferences ?? []).find((reference) => reference.controller === true);
  if (owner === undefined) {
    if (!isMarkedAs(object, cluster)) return 'foreign';
  } else if (owner.uid !== cluster.uid) {
    const same =
      owner.apiVersion === KVCLUSTER_API_VERSION &&
      owner.kind === KVCLUSTER_KIND &&
      owner.name === cluster.name;
    return same ? 'earlier' : 'foreign';
  }
  return metadata.deletionTimestamp === undefined ? 'ours' : 'earlier';
}

function isMarkedAs({ metadata }: KubernetesObject, cluster: ClusterIdentity): boolean {
  return (
    metadata.labels?.['app.kubernetes.io/name'] === APP_NAME &&
    metadata.labels['app.kubernetes.io/instance'] === cluster.name &&
    metadata.annotations?.[annotations.cluster] === `${cluster.namespace}/${cluster.name}`
  );
}
