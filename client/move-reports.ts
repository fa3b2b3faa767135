import type { MemberReport } from '../model/moves.ts';
import type { GetStatusResponse } from '../proto/gen/admin.ts';

/** What changing the map depends on, out of what a node answers. */
export function moveReportOf(status: GetStatusResponse): MemberReport {
  const { epoch, mapHash, volume, settledEpoch, residualPartitions, fillingPartitions, peers } = status;
  return {
    epoch,
    mapHash,
    incarnation: volume?.incarnation ?? 0,
    settledEpoch,
    residualPartitions,
    fillingPartitions,
    peerIncarnations: new Map(peers.map((peer) => [peer.nodeId, peer.incarnation])),
  };
}
