import type { Member } from '../../model/cluster-map.ts';

/** An active member on the usual ports, in a pod of its own that has its name. */
export function memberNamed(nodeId: string): Member {
  return {
    nodeId,
    host: nodeId,
    clientPort: 50051,
    peerPort: 50052,
    httpPort: 9090,
    zone: '',
    state: 'active',
    pod: nodeId,
  };
}
