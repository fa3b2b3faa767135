import { replicaSets, sharedPartitions } from '../../../model/replica-sets.ts';
import type { ComparablePeer } from './comparable-peer.ts';
import type { Settlement } from './settlement.ts';
import type { Surroundings } from './surroundings.ts';

/** Why a comparison is due, the most urgent first: a fill, a missed log, a move or a label, or just the time. */
export type Urgency = 0 | 1 | 2 | 3;

/** Why a comparison with a peer is due; undefined when it is not. */
export function urgencyOf(
  { cluster, standing }: Pick<Surroundings, 'cluster' | 'standing'>,
  settlement: Settlement,
  peer: ComparablePeer,
  time: { readonly backgroundDue: boolean; readonly patient: boolean },
): Urgency | undefined {
  const { map, nodeId } = cluster;
  if (map === undefined) return undefined;
  const shared = sharedPartitions(map, nodeId, peer.nodeId);
  // A gap before the log of somebody with whom nothing is shared hides nothing.
  if (shared.length === 0) return peer.fellOff ? 1 : undefined;
  const serves = (partition: number): boolean => peer.readableAt(partition);
  const isSource = (partition: number): boolean =>
    !standing.isReadable(partition) &&
    serves(partition) &&
    replicaSets(map, partition).read.includes(peer.nodeId) &&
    !settlement.isFilledFrom(peer.nodeId, partition);
  if (shared.some(isSource)) return 0;
  if (peer.fellOff && shared.every(serves)) return 1;
  if (shared.some((partition) => serves(partition) && settlement.moveWaitsFor(peer.nodeId, partition)))
    return 2;
  // What a log that catches up brings by itself need not be listed and fetched.
  if (time.patient) return undefined;
  if (shared.some((partition) => serves(partition) && settlement.labelWaitsFor(peer.nodeId, partition)))
    return 2;
  return time.backgroundDue ? 3 : undefined;
}
