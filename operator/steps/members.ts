import type { Member } from '../../model/cluster-map.ts';
import { zoneOf } from '../nodes.ts';
import { ports } from '../resources/names.ts';
import type { Json } from '../runtime/api.ts';
import type { V1Pod } from '../runtime/kubernetes.ts';

/** The member that a pod is. */
export function memberOfNode(nodeId: string, pod: Json<V1Pod> | undefined): Member {
  return {
    nodeId,
    host: nodeId,
    clientPort: ports.client,
    peerPort: ports.peer,
    httpPort: ports.http,
    zone: zoneOf(pod),
    state: 'active',
    pod: nodeId,
  };
}
