import type { Member } from '../../model/cluster-map.ts';
import { workerName, workerPorts } from '../../model/workers.ts';
import { zoneOf } from '../nodes.ts';
import { ports } from '../resources/names.ts';
import type { Json } from '../runtime/api.ts';
import type { V1Pod } from '../runtime/kubernetes.ts';

/** Which node of which pod. */
export interface NodePlace {
  readonly podName: string;
  readonly worker: number;
  /** How many nodes the pod runs. */
  readonly workers: number;
  readonly pod: Json<V1Pod> | undefined;
}

/** The member that a node is. */
export function memberOfNode({ podName, worker, workers, pod }: NodePlace): Member {
  const { client, peer, http } = workerPorts(ports, worker, workers);
  return {
    nodeId: workerName(podName, worker),
    host: podName,
    clientPort: client,
    peerPort: peer,
    httpPort: http,
    zone: zoneOf(pod),
    state: 'active',
    pod: podName,
  };
}
