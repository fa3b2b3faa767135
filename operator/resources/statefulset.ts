import type { KVClusterScheduling, KVClusterSpec, KVClusterStorage } from '../../model/kvcluster.ts';
import { workerPorts } from '../../model/workers.ts';
import type { Json, Wire } from '../runtime/api.ts';
import type {
  V1Container,
  V1PersistentVolumeClaim,
  V1PersistentVolumeClaimSpec,
  V1PodSpec,
  V1StatefulSet,
  V1TopologySpreadConstraint,
} from '../runtime/kubernetes.ts';
import { firstDifference } from '../runtime/live-compare.ts';
import {
  type ClusterIdentity,
  DATA_VOLUME,
  labelsOf,
  NODE_CONTAINER,
  objectNames,
  ownedMetadata,
  ports,
  selectorOf,
  WORKERS_ARGUMENT,
} from './names.ts';
import { restrictedContainer, restrictedPod } from './pod-security.ts';

export const DATA_PATH = '/var/lib/kvcluster';
export const SECRET_PATH = '/etc/kvcluster/internal';
export const SECRET_KEY = 'key';
const SECRET_VOLUME = 'internal';

/** How long a stopping node may finish what it is doing, seconds. */
const TERMINATION_GRACE_SECONDS = 60;
/** A node that replays a long log must not be killed for it: 10 minutes. */
const STARTUP = { periodSeconds: 2, failureThreshold: 300 };

export interface StatefulSetOptions {
  readonly cluster: ClusterIdentity;
  readonly spec: KVClusterSpec;
  readonly replicas: number;
  /** Nodes of each pod. */
  readonly workers: number;
  readonly image: string;
  /** The set as it is, if there is one: what cannot be changed is taken from it. */
  readonly live?: Json<V1StatefulSet> | undefined;
}

/**
 * The nodes. Nothing of the operator's own (its version, its image) stands in the template: an upgraded operator must
 * not restart data pods.
 */
export function buildStatefulSet(options: StatefulSetOptions): Json<V1StatefulSet> {
  const { cluster, spec, replicas, live } = options;
  const names = objectNames(cluster.name);
  const fixed = live?.spec;
  return {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata: ownedMetadata(cluster, names.statefulSet, 'node'),
    spec: {
      serviceName: fixed?.serviceName ?? names.headlessService,
      selector: asFixed({ matchLabels: selectorOf(cluster, 'node') }, fixed?.selector),
      podManagementPolicy: fixed?.podManagementPolicy ?? 'Parallel',
      volumeClaimTemplates: asFixed(
        [claimTemplate(spec.storage)],
        fixed?.volumeClaimTemplates?.map(asTemplate),
      ),
      replicas,
      // The operator restarts pods: with Parallel the controller would take down all unavailable ones at once.
      updateStrategy: { type: 'OnDelete' },
      // A bare `kubectl scale statefulset` or a deleted set must not delete data.
      persistentVolumeClaimRetentionPolicy: { whenDeleted: 'Retain', whenScaled: 'Retain' },
      template: {
        metadata: { labels: labelsOf(cluster, 'node') },
        spec: podSpec(options),
      },
    },
  };
}

function podSpec(options: StatefulSetOptions): Wire<V1PodSpec> {
  const { cluster, spec } = options;
  return {
    securityContext: restrictedPod,
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: TERMINATION_GRACE_SECONDS,
    containers: [nodeContainer(options)],
    volumes: [
      { name: SECRET_VOLUME, secret: { secretName: objectNames(cluster.name).secret, defaultMode: 0o440 } },
    ],
    ...scheduling(cluster, spec.scheduling),
  };
}

function nodeContainer({ cluster, spec, image, workers }: StatefulSetOptions): Wire<V1Container> {
  return {
    name: NODE_CONTAINER,
    image,
    args: [
      'node',
      '--node-id=$(POD_NAME)',
      `--namespace=${cluster.namespace}`,
      `--cluster-name=${cluster.name}`,
      `--partitions=${spec.partitions}`,
      '--discovery=dns',
      `--data-dir=${DATA_PATH}`,
      `--secret-file=${SECRET_PATH}/${SECRET_KEY}`,
      // Absent for one, as before there could be more: pods of earlier releases are not restarted for it.
      ...(workers === 1 ? [] : [`${WORKERS_ARGUMENT}${workers}`]),
    ],
    env: [
      { name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
      // For `kubectl exec POD -- kvctl status`; the node itself takes flags only.
      { name: 'KVCTL_SERVICE', value: `${objectNames(cluster.name).headlessService}.${cluster.namespace}` },
      { name: 'KVCTL_SECRET_FILE', value: `${SECRET_PATH}/${SECRET_KEY}` },
    ],
    ports: [...Object.entries(ports), ...portsOfWorkers(workers)].map(([name, containerPort]) => ({
      name,
      containerPort,
      protocol: 'TCP',
    })),
    resources: wireResources(spec.resources),
    securityContext: restrictedContainer,
    startupProbe: { httpGet: { path: '/healthz', port: 'http' }, timeoutSeconds: 3, ...STARTUP },
    livenessProbe: {
      httpGet: { path: '/healthz', port: 'http' },
      timeoutSeconds: 3,
      periodSeconds: 10,
      failureThreshold: 3,
    },
    readinessProbe: {
      httpGet: { path: '/readyz', port: 'http' },
      timeoutSeconds: 3,
      periodSeconds: 2,
      failureThreshold: 2,
    },
    volumeMounts: [
      { name: DATA_VOLUME, mountPath: DATA_PATH },
      { name: SECRET_VOLUME, mountPath: SECRET_PATH, readOnly: true },
    ],
  };
}

/** The ports of single workers, for who reads the pod: nothing depends on their being declared. */
function portsOfWorkers(workers: number): readonly (readonly [string, number])[] {
  if (workers === 1) return [];
  return Array.from({ length: workers }, (_, worker) => worker).flatMap((worker) =>
    Object.entries(workerPorts(ports, worker, workers))
      .filter(([, port]) => port !== ports.peer)
      .map(([name, port]) => [`${name}-w${worker}`, port] as const),
  );
}

/** Amounts as text: what is written as a number is the same amount. */
export function wireResources(resources: KVClusterSpec['resources']): {
  requests?: Record<string, string>;
  limits?: Record<string, string>;
} {
  const text = (amounts: Readonly<Record<string, string | number>>): Record<string, string> =>
    Object.fromEntries(Object.entries(amounts).map(([name, amount]) => [name, String(amount)]));
  return {
    ...(resources.requests === undefined ? {} : { requests: text(resources.requests) }),
    ...(resources.limits === undefined ? {} : { limits: text(resources.limits) }),
  };
}

function scheduling(cluster: ClusterIdentity, wanted: KVClusterScheduling = {}): Partial<Wire<V1PodSpec>> {
  const spread: Wire<V1TopologySpreadConstraint>[] = (wanted.topologySpread ?? softSpread).map(
    (constraint) => ({
      ...constraint,
      labelSelector: { matchLabels: selectorOf(cluster, 'node') },
    }),
  );
  return {
    ...(spread.length === 0 ? {} : { topologySpreadConstraints: spread }),
    ...(wanted.affinity === undefined ? {} : { affinity: wanted.affinity }),
    ...(wanted.nodeSelector === undefined ? {} : { nodeSelector: wanted.nodeSelector }),
    ...(wanted.tolerations === undefined ? {} : { tolerations: wanted.tolerations.map(withoutUndefined) }),
  };
}

/** Over machines and zones where possible; a cluster on one machine still runs. */
const softSpread = ['kubernetes.io/hostname', 'topology.kubernetes.io/zone'].map((topologyKey) => ({
  topologyKey,
  maxSkew: 1,
  whenUnsatisfiable: 'ScheduleAnyway' as const,
}));

type Defined<T> = { [Key in keyof T]: Exclude<T[Key], undefined> };

function withoutUndefined<T extends object>(object: T): Defined<T> {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as Defined<T>;
}

type ClaimTemplate = Wire<V1PersistentVolumeClaim>;

function claimTemplate(storage: KVClusterStorage): ClaimTemplate {
  return { metadata: { name: DATA_VOLUME }, spec: claimSpec(storage) };
}

/** A volume of one machine at a time. */
export function claimSpec(storage: KVClusterStorage): Wire<V1PersistentVolumeClaimSpec> {
  return {
    accessModes: ['ReadWriteOnce'],
    resources: { requests: { storage: storage.size } },
    ...(storage.storageClassName === undefined ? {} : { storageClassName: storage.storageClassName }),
  };
}

/** A field that cannot be changed: as it is, where that is something else than what a new set would get. */
function asFixed<T>(wanted: T, live: T | undefined): T {
  return live === undefined || firstDifference(wanted, live) === undefined ? wanted : live;
}

/** A claim template of the live set, without what the API server keeps in it. */
function asTemplate(live: ClaimTemplate): ClaimTemplate {
  const template = { ...live };
  delete template.status;
  return template;
}
