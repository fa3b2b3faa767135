import { type ClusterMap, type Member, type Move, quorumOf } from '../cluster-map.ts';
import { isSameSet } from '../map-check.ts';
import { hasTaken, isUp, type Reports, sourcesAmong, sourcesNeeded } from './reports.ts';

/** A partition that is to have other owners. */
export type PartitionMove = Move['partitions'][number];

/** Why partitions cannot start to move. */
export interface Obstacle {
  readonly why: string;
  readonly waitingFor: readonly string[];
  readonly partitions: number;
}

/** Every partition whose owners differ from the target's, ascending. */
export function differences(
  map: ClusterMap,
  target: readonly (readonly number[])[],
): readonly PartitionMove[] {
  return target.flatMap((newReplicas, partition) => {
    const oldReplicas = map.assignment[partition] ?? [];
    return isSameSet(oldReplicas, newReplicas) ? [] : [{ partition, oldReplicas, newReplicas }];
  });
}

/** The first moves that can be completed by the members that are up, and what keeps the others from starting. */
export function startable(
  map: ClusterMap,
  moves: readonly PartitionMove[],
  reports: Reports,
  most: number,
): { readonly batch: readonly PartitionMove[]; readonly obstacles: readonly Obstacle[] } {
  const batch: PartitionMove[] = [];
  const obstacles = new Map<string, Obstacle>();
  for (const move of moves) {
    const obstacle = obstacleTo(map, move, reports);
    if (obstacle === undefined) {
      batch.push(move);
      if (batch.length === most) break;
      continue;
    }
    const partitions = (obstacles.get(obstacle.why)?.partitions ?? 0) + 1;
    obstacles.set(obstacle.why, { ...obstacle, partitions });
  }
  return { batch, obstacles: [...obstacles.values()] };
}

/** A move that cannot end must not begin: its partitions would need more acknowledgements, for nothing. */
function obstacleTo(
  map: ClusterMap,
  { oldReplicas, newReplicas }: PartitionMove,
  reports: Reports,
): Omit<Obstacle, 'partitions'> | undefined {
  const absent = membersAt(map, newReplicas).filter((member) => !isUp(member, reports));
  if (absent.length > 0) {
    return { why: `${names(absent)} would be an owner and is down`, waitingFor: absent.map(nameOf) };
  }
  const shortage = shortageOf(map, oldReplicas, reports);
  if (shortage !== undefined) return shortage;
  // An incoming owner begins blank: what it still keeps from an earlier time would be taken for the new copy.
  const incoming = newReplicas.filter((index) => !oldReplicas.includes(index));
  const stale = membersAt(map, incoming).filter(
    ({ nodeId }) => (reports.get(nodeId)?.residualPartitions ?? 0) > 0,
  );
  if (stale.length === 0) return undefined;
  return {
    why: `${names(stale)} would get partitions and still stores some that it gave away`,
    waitingFor: stale.map(nameOf),
  };
}

/** Why a partition with these owners cannot be filled elsewhere without losing writes; undefined when it can be. */
export function shortageOf(
  map: ClusterMap,
  owners: readonly number[],
  reports: Reports,
): Omit<Obstacle, 'partitions'> | undefined {
  const nodeIds = membersAt(map, owners).map(nameOf);
  const sources = sourcesAmong(map, nodeIds, reports);
  const needed = sourcesNeeded(owners.length);
  if (sources.length >= needed) return undefined;
  const missing = nodeIds.filter((nodeId) => !sources.includes(nodeId));
  return {
    why:
      `only ${sources.length} of the ${needed} owners that are needed to have every acknowledged write can be ` +
      `read (${missing.join(', ')} cannot)`,
    waitingFor: missing,
  };
}

/**
 * Members marked down that could still answer a quorum of reads for a partition among themselves, as its owners of before
 * the move: once writes go to the new owners alone, those reads would miss them. Empty when there are too few.
 */
export function staleQuorum(
  map: ClusterMap,
  { oldReplicas }: PartitionMove,
  reports: Reports,
): readonly Member[] {
  const stale = membersAt(map, oldReplicas).filter(
    ({ nodeId, state }) => state === 'down' && !hasTaken(map, reports.get(nodeId)),
  );
  return stale.length >= quorumOf(oldReplicas.length) ? stale : [];
}

/** Node ids for a sentence. */
export function names(members: readonly Member[]): string {
  return members.map(nameOf).join(', ');
}

function membersAt(map: ClusterMap, indexes: readonly number[]): readonly Member[] {
  return indexes.flatMap((index) => map.members[index] ?? []);
}

function nameOf({ nodeId }: Member): string {
  return nodeId;
}
