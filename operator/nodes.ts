import type { AdminClient, AdminTarget } from '../client/admin-client.ts';
import { messageOf } from '../common/errors.ts';
import type { NodeState, NodeStatus } from '../model/kvcluster-status.ts';
import { compareNatural } from '../model/natural-order.ts';
import type { GetStatusResponse } from '../proto/gen/admin.ts';
import { StoreState } from '../proto/gen/peer.ts';
import { workerNames, workerPorts } from '../model/workers.ts';
import {
  type ClusterIdentity,
  NODE_CONTAINER,
  objectNames,
  ports,
  WORKERS_ARGUMENT,
} from './resources/names.ts';
import type { Json } from './runtime/api.ts';
import type { V1PersistentVolumeClaim, V1Pod } from './runtime/kubernetes.ts';

/** One node of a cluster: what Kubernetes knows of its pod and volume, and what it says itself. */
export interface NodeView {
  /** Name of the member. */
  readonly nodeId: string;
  readonly podName: string;
  /** Which one of its pod it is. */
  readonly worker: number;
  /** How many nodes its pod runs. */
  readonly workers: number;
  readonly pod: Json<V1Pod> | undefined;
  readonly claim: Json<V1PersistentVolumeClaim> | undefined;
  /** Absent when there is nobody to ask. */
  readonly target: AdminTarget | undefined;
  readonly answer: GetStatusResponse | undefined;
  /** Why there is no answer, for a person. */
  readonly silence: string;
}

export interface NodeFacts {
  readonly cluster: ClusterIdentity;
  readonly clusterDomain: string;
  /** Names of pods that there should be. */
  readonly expected: readonly string[];
  /** Nodes of a pod that is still to come. */
  readonly workers: number;
  /** All pods of the cluster. */
  readonly pods: readonly Json<V1Pod>[];
  readonly claimOf: (podName: string) => Json<V1PersistentVolumeClaim> | undefined;
  /** Absent as long as there is no secret to prove oneself with. */
  readonly admin: AdminClient | undefined;
}

/** Asks every node of the expected pods, and of every pod beyond, all at once; in the order of their ordinals. */
export async function viewNodes(facts: NodeFacts, signal: AbortSignal): Promise<readonly NodeView[]> {
  const byName = new Map(facts.pods.map((pod) => [pod.metadata.name, pod]));
  const names = [...new Set([...facts.expected, ...byName.keys()])].sort(compareNatural);
  const places = names.flatMap((podName) => {
    const pod = byName.get(podName);
    const workers = pod === undefined ? facts.workers : workersOfPod(pod);
    return workerNames(podName, workers).map((nodeId, worker) => ({ nodeId, podName, worker, workers, pod }));
  });
  return Promise.all(places.map((place) => viewNode(place, facts, signal)));
}

type NodePlace = Pick<NodeView, 'nodeId' | 'podName' | 'worker' | 'workers' | 'pod'>;

async function viewNode(place: NodePlace, facts: NodeFacts, signal: AbortSignal): Promise<NodeView> {
  const { pod, podName } = place;
  const view = { ...place, claim: facts.claimOf(podName), target: undefined, answer: undefined };
  const podIP = pod?.status?.podIP;
  if (pod === undefined) return { ...view, silence: 'there is no pod' };
  if (!isRunning(pod) || podIP === undefined) return { ...view, silence: whyNotRunning(pod) };
  if (facts.admin === undefined) return { ...view, silence: 'there is no secret yet' };
  const target = targetOf(place, podIP, facts);
  try {
    return { ...view, target, answer: await facts.admin.status(target, signal), silence: '' };
  } catch (error) {
    signal.throwIfAborted();
    return { ...view, target, silence: messageOf(error) };
  }
}

/** The pod's address is dialled, so that a stale DNS record leads nowhere; the name says who is meant. */
function targetOf(place: NodePlace, podIP: string, { cluster, clusterDomain }: NodeFacts): AdminTarget {
  const { headlessService } = objectNames(cluster.name);
  const { nodeId, podName, worker, workers } = place;
  const { peer } = workerPorts(ports, worker, workers);
  return {
    nodeId,
    address: podIP.includes(':') ? `[${podIP}]:${peer}` : `${podIP}:${peer}`,
    authority: `${podName}.${headlessService}.${cluster.namespace}.svc.${clusterDomain}`,
  };
}

/** How many nodes a pod runs: what it was started with, whatever its successor will have. */
function workersOfPod(pod: Json<V1Pod>): number {
  const args = pod.spec?.containers.find(({ name }) => name === NODE_CONTAINER)?.args ?? [];
  const given = args.find((argument) => argument.startsWith(WORKERS_ARGUMENT));
  return given === undefined ? 1 : Number(given.slice(WORKERS_ARGUMENT.length));
}

export function isTerminating(pod: Json<V1Pod>): boolean {
  return pod.metadata.deletionTimestamp !== undefined;
}

/** Whether the kubelet says Ready, and the pod is not on its way out. */
export function isPodReady(pod: Json<V1Pod> | undefined): boolean {
  if (pod === undefined || isTerminating(pod)) return false;
  return pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true;
}

function isRunning(pod: Json<V1Pod>): boolean {
  const container = nodeContainerStatus(pod);
  return pod.status?.phase === 'Running' && container?.state?.running !== undefined;
}

function nodeContainerStatus(pod: Json<V1Pod>) {
  return pod.status?.containerStatuses?.find(({ name }) => name === NODE_CONTAINER);
}

function whyNotRunning(pod: Json<V1Pod>): string {
  const trouble = podTrouble(pod);
  if (trouble !== undefined) return trouble;
  const unscheduled = pod.status?.conditions?.find(
    ({ type, status }) => type === 'PodScheduled' && status === 'False',
  );
  return unscheduled?.message ?? 'the pod is not running yet';
}

/** States of a container that do not pass without somebody doing something. */
const lastingTroubles = new Set([
  'CrashLoopBackOff',
  'CreateContainerConfigError',
  'CreateContainerError',
  'RunContainerError',
]);
/** Two of these take turns while an image is tried again and again. */
const imageTroubles = new Set([
  'ErrImageNeverPull',
  'ErrImagePull',
  'ImageInspectError',
  'ImagePullBackOff',
  'InvalidImageName',
]);

/**
 * What keeps a pod's node from running, when it is not just starting. The kubelet's own words are left out where they
 * change with every attempt: they would make a new status of each.
 */
export function podTrouble(pod: Json<V1Pod>): string | undefined {
  const container = nodeContainerStatus(pod);
  const { reason = '', message = '' } = container?.state?.waiting ?? {};
  if (imageTroubles.has(reason)) return `the image ${imageOf(pod) ?? ''} cannot be had`;
  if (!lastingTroubles.has(reason)) return undefined;
  const last = container?.lastState?.terminated;
  if (last !== undefined) return `${reason}: the node ended with code ${last.exitCode}, see its log`;
  return message === '' ? reason : `${reason}: ${message}`;
}

/** The image that the pod's node runs. */
export function imageOf(pod: Json<V1Pod> | undefined): string | undefined {
  return pod?.spec?.containers.find(({ name }) => name === NODE_CONTAINER)?.image;
}

/** The failure domain: the API server copies it from the machine to the pod's labels. */
export function zoneOf(pod: Json<V1Pod> | undefined): string {
  return pod?.metadata.labels?.['topology.kubernetes.io/zone'] ?? '';
}

/** How a node stands. */
export function stateOf({ pod, answer }: NodeView): NodeState {
  if (pod === undefined) return 'Missing';
  if (isTerminating(pod) || answer?.draining === true) return 'Draining';
  if (!isRunning(pod)) return 'Pending';
  if (answer === undefined) return 'Unreachable';
  if (answer.state === StoreState.READABLE) return 'Active';
  const filling = answer.state === StoreState.REBUILDING;
  return filling ? 'Rebuilding' : 'Blank';
}

/** Whether the node serves and holds everything it should, by Kubernetes and by itself. */
export function isHealthy(view: NodeView): boolean {
  return isServing(view) && stateOf(view) === 'Active' && view.answer?.inSync === true;
}

/** A pod is Ready when all of its nodes are: one of several is asked itself, or each would count as down with another. */
function isServing({ pod, workers, answer }: NodeView): boolean {
  return workers === 1 ? isPodReady(pod) : pod !== undefined && !isTerminating(pod) && answer?.ready === true;
}

/** Whether Kubernetes says that the node does not serve: that is certain, where its silence may pass. */
export function isSurelyDown({ pod, workers }: NodeView): boolean {
  if (workers === 1) return !isPodReady(pod);
  return pod === undefined || isTerminating(pod) || !isRunning(pod);
}

/** What status shows of a node: only what changes on events. */
export function nodeStatusOf(view: NodeView): NodeStatus {
  const image = imageOf(view.pod);
  const zone = zoneOf(view.pod);
  return {
    name: view.nodeId,
    nodeId: view.nodeId,
    // Only where it says something: a CRD of an earlier release has no such field.
    ...(view.podName === view.nodeId ? {} : { pod: view.podName }),
    state: stateOf(view),
    inSync: view.answer?.inSync === true,
    ...(view.answer === undefined ? {} : { partitions: view.answer.readablePartitions }),
    ...(image === undefined ? {} : { image }),
    ...(zone === '' ? {} : { zone }),
  };
}
