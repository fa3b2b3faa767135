import type { ClusterMap } from '../../model/cluster-map.ts';
import { firstMap, withInitialised } from '../../model/next-map.ts';
import type { NodeView } from '../../operator/nodes.ts';
import type { Json } from '../../operator/runtime/api.ts';
import type { V1Pod, V1StatefulSet } from '../../operator/runtime/kubernetes.ts';
import type { GetStatusResponse } from '../../proto/gen/admin.ts';
import { StoreState } from '../../proto/gen/peer.ts';
import { workerNames } from '../../model/workers.ts';
import { memberNamed } from './member.ts';

/** The cluster that tests of the operator speak of. */
export const demo = { namespace: 'ns', name: 'demo', uid: 'uid-demo' } as const;
export const setUid = 'uid-set';
export const members = ['demo-0', 'demo-1', 'demo-2'] as const;

/** An initialised map of three members that hold everything. */
export function demoMap(partitions = 8): ClusterMap {
  return withInitialised(
    firstMap({
      clusterId: 'c'.repeat(32),
      namespace: demo.namespace,
      name: demo.name,
      partitions,
      replicationFactor: 3,
      members: members.map(memberNamed),
    }),
  );
}

export interface PodOptions {
  readonly ready?: boolean;
  readonly terminating?: boolean;
  readonly revision?: string;
  /** Reason for which the container waits. */
  readonly waiting?: string;
}

/** A pod of the demo cluster's set. */
export function podOf(name: string, options: PodOptions = {}): Json<V1Pod> {
  const { ready = true, terminating = false, revision = 'new', waiting } = options;
  return {
    metadata: {
      name,
      namespace: demo.namespace,
      uid: `uid-${name}`,
      resourceVersion: '1',
      labels: { 'controller-revision-hash': revision },
      ownerReferences: [
        { apiVersion: 'apps/v1', kind: 'StatefulSet', name: demo.name, uid: setUid, controller: true },
      ],
      ...(terminating ? { deletionTimestamp: '2030-01-01T00:00:00Z' } : {}),
    },
    spec: { containers: [{ name: 'node', image: 'kv:1' }] },
    status: {
      phase: waiting === undefined ? 'Running' : 'Pending',
      podIP: '10.0.0.1',
      conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
      containerStatuses: [
        {
          name: 'node',
          image: 'kv:1',
          imageID: '',
          ready,
          restartCount: 0,
          state: waiting === undefined ? { running: {} } : { waiting: { reason: waiting } },
        },
      ],
    },
  };
}

/** What a member in order answers; it reaches all others. */
export function answerOf(nodeId: string, changes: Partial<GetStatusResponse> = {}): GetStatusResponse {
  const map = demoMap();
  return {
    nodeId,
    namespace: demo.namespace,
    name: demo.name,
    volume: { clusterId: map.clusterId, nodeId, incarnation: 1, bootCounter: 1 },
    epoch: map.epoch,
    mapHash: map.hash,
    state: StoreState.READABLE,
    ready: true,
    notReadyReason: '',
    inSync: true,
    peers: peersOf(nodeId, []),
    partitions: map.partitions,
    readablePartitions: map.partitions,
    records: 0,
    stateBytes: 0,
    logBytes: 0,
    diskFreeBytes: 1,
    diskTotalBytes: 1,
    version: '0',
    wallMs: 0,
    uptimeMs: 0,
    draining: false,
    settledEpoch: 0,
    residualPartitions: 0,
    horizonMs: 0,
    collectionFrozenReason: '',
    equalPartitions: 0,
    usedBytes: 0,
    quotaBytes: 0,
    writeRefusal: '',
    fillingPartitions: 0,
    ...changes,
  };
}

/** How a member sees the others, some of which it does not reach. */
export function peersOf(nodeId: string, cut: readonly string[]): GetStatusResponse['peers'] {
  return members
    .filter((other) => other !== nodeId)
    .map((other) => ({
      nodeId: other,
      connected: !cut.includes(other),
      state: StoreState.READABLE,
      behind: 0,
      ahead: 0,
      clockOffsetMs: 0,
      connectedTo: members.filter((third) => third !== other),
      incarnation: 1,
    }));
}

/** Names of the members of the demo cluster with two workers in each pod, by pod. */
export const workersByPod = new Map(members.map((pod) => [pod, workerNames(pod, 2)]));

/** The demo cluster's map with two workers in each pod. */
export function demoMapOfWorkers(): ClusterMap {
  const all = [...workersByPod].flatMap(([pod, names]) =>
    names.map((nodeId) => ({ ...memberNamed(nodeId), pod })),
  );
  const { clusterId, namespace, name, partitions, replicationFactor } = demoMap();
  return withInitialised(
    firstMap({ clusterId, namespace, name, partitions, replicationFactor, members: all }),
  );
}

/** The nodes of one pod with two of them, in order, with changes of the pod and of each of its nodes. */
export function viewsOfPod(
  podName: string,
  {
    pod = {},
    answers = [],
  }: { pod?: PodOptions | null; answers?: readonly (Partial<GetStatusResponse> | null)[] } = {},
): readonly NodeView[] {
  const shared = pod === null ? undefined : podOf(podName, pod);
  return workerNames(podName, 2).map((nodeId, worker) => {
    const answer = answers[worker] === undefined ? {} : answers[worker];
    const names = [...workersByPod.values()].flat();
    const peers = names
      .filter((other) => other !== nodeId)
      .map((other) => ({ ...aPeer, nodeId: other, connectedTo: names.filter((third) => third !== other) }));
    const view = viewOf(nodeId, { answer: answer === null ? null : { peers, ...answer } });
    return { ...view, podName, worker, workers: 2, pod: shared };
  });
}

const aPeer = {
  connected: true,
  state: StoreState.READABLE,
  behind: 0,
  ahead: 0,
  clockOffsetMs: 0,
  incarnation: 1,
} as const;

/** A node in order, with changes. */
export function viewOf(
  nodeId: string,
  { pod = {}, answer = {} }: { pod?: PodOptions | null; answer?: Partial<GetStatusResponse> | null } = {},
): NodeView {
  return {
    nodeId,
    podName: nodeId,
    worker: 0,
    workers: 1,
    pod: pod === null ? undefined : podOf(nodeId, pod),
    claim: undefined,
    target: pod === null ? undefined : { nodeId, address: '10.0.0.1:50052' },
    answer: answer === null ? undefined : answerOf(nodeId, answer),
    silence: answer === null ? 'no answer' : '',
  };
}

/** The demo cluster's set, whose pods should have the revision `new`. */
export function setOf(
  changes: Partial<NonNullable<Json<V1StatefulSet>['status']>> = {},
): Json<V1StatefulSet> {
  return {
    metadata: { name: demo.name, namespace: demo.namespace, uid: setUid, generation: 2 },
    status: { replicas: 3, observedGeneration: 2, updateRevision: 'new', ...changes },
  };
}
