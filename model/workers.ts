import type { ClusterMap, Member } from './cluster-map.ts';

/**
 * The workers of a pod: node processes, each a member of the map with a store of its own. Names and ports are a contract
 * between the operator and the nodes, and say who a volume belongs to: they never change for a worker.
 */

/** Most workers of a pod. */
export const MAX_WORKERS = 16;

/** Ports of a pod, or of one of its workers. */
export type NodePorts = Readonly<Record<'client' | 'peer' | 'http', number>>;

/** From one worker's ports to the next one's. */
const STRIDE = 100;
/** From the ports that belong to a pod of several workers to worker 0's own. */
const OWN_OFFSET = 50;

/** The member's name: the pod's for worker 0, `<pod>-w<n>` for worker n. */
export function workerName(pod: string, worker: number): string {
  return worker === 0 ? pod : `${pod}-w${worker}`;
}

/** Names of all workers of a pod. */
export function workerNames(pod: string, workers: number): readonly string[] {
  return Array.from({ length: workers }, (_, worker) => workerName(pod, worker));
}

/** Which worker of its pod a member is. */
export function workerOf({ nodeId, pod }: Pick<Member, 'nodeId' | 'pod'>): number {
  const prefix = `${pod}-w`;
  const number = nodeId.startsWith(prefix) ? Number(nodeId.slice(prefix.length)) : 0;
  return Number.isSafeInteger(number) ? number : 0;
}

/**
 * A worker's own ports: 100 n above the pod's for worker n. Of a pod with several workers the client and the HTTP port
 * belong to all of them together, and worker 0 has its own 50 above those; the peer port is always worker 0's.
 */
export function workerPorts(pod: NodePorts, worker: number, workers: number): NodePorts {
  const offset = STRIDE * worker;
  const own = worker === 0 && workers > 1 ? OWN_OFFSET : offset;
  return { client: pod.client + own, peer: pod.peer + offset, http: pod.http + own };
}

/** How many workers the pods of a map have: as many as the one with the most. */
export function workersInMap(map: ClusterMap): number {
  return Math.max(1, ...map.members.map((member) => workerOf(member) + 1));
}
