import type { ClusterMap, Move } from './cluster-map.ts';

/**
 * What contradicts itself within a map, for a person; undefined when nothing does. A writer asks before it publishes a
 * map, a node before it adopts one: neither may act on a map in which a partition has no owner or two histories.
 *
 * Whether the hash fits the content (`hashMatches`) and whether the map is newer (`compareMaps`) are other questions.
 */
export function problemWithMap(map: ClusterMap): string | undefined {
  return sizesProblem(map) ?? membersProblem(map) ?? assignmentProblem(map) ?? moveProblem(map);
}

function sizesProblem(map: ClusterMap): string | undefined {
  for (const field of ['epoch', 'partitions', 'replicationFactor'] as const) {
    if (!Number.isSafeInteger(map[field]) || map[field] < 1) return `${field} is ${map[field]}`;
  }
  if (map.assignment.length !== map.partitions) {
    return `it assigns ${map.assignment.length} partitions of ${map.partitions}`;
  }
  return undefined;
}

function membersProblem({ members, retired }: ClusterMap): string | undefined {
  if (members.length === 0) return 'it has no members';
  const names = new Set<string>();
  for (const { nodeId } of members) {
    if (nodeId === '') return 'a member has no name';
    if (names.has(nodeId)) return `two members are called ${nodeId}`;
    names.add(nodeId);
  }
  const seen = new Set<string>();
  for (const { nodeId, incarnation } of retired) {
    const entry = `${nodeId} ${incarnation}`;
    if (seen.has(entry)) return `it retires incarnation ${incarnation} of ${nodeId} twice`;
    seen.add(entry);
  }
  return undefined;
}

function assignmentProblem(map: ClusterMap): string | undefined {
  for (const [partition, replicas] of map.assignment.entries()) {
    const problem = replicasProblem(map, replicas);
    if (problem !== undefined) return `partition ${partition} ${problem}`;
  }
  return undefined;
}

function moveProblem(map: ClusterMap): string | undefined {
  const { moving } = map;
  if (moving === undefined) return undefined;
  if (!map.initialised) return 'it moves partitions before it is initialised';
  if (moving.phase !== 1 && moving.phase !== 2) return `its move is in phase ${moving.phase}`;
  if (moving.partitions.length === 0) return 'its move is of no partition';
  const seen = new Set<number>();
  for (const move of moving.partitions) {
    if (seen.has(move.partition)) return `it moves partition ${move.partition} twice`;
    seen.add(move.partition);
    const problem = partitionMoveProblem(map, move);
    if (problem !== undefined) return `the move of partition ${move.partition} ${problem}`;
  }
  return undefined;
}

function partitionMoveProblem(map: ClusterMap, move: Move['partitions'][number]): string | undefined {
  const assigned = map.assignment[move.partition];
  if (assigned === undefined) return `is of none of its ${map.partitions} partitions`;
  const problem = replicasProblem(map, move.newReplicas);
  if (problem !== undefined) return `goes to a set that ${problem}`;
  // Both phases keep the old assignment, so that a cancelled move leaves what was before.
  if (
    move.oldReplicas.length !== assigned.length ||
    move.oldReplicas.some((index, at) => index !== assigned[at])
  ) {
    return 'does not begin where the partition is assigned';
  }
  if (isSameSet(move.oldReplicas, move.newReplicas)) return 'ends with the owners it begins with';
  return undefined;
}

function replicasProblem({ members }: ClusterMap, replicas: readonly number[]): string | undefined {
  if (replicas.length === 0) return 'has no owner';
  const outside = replicas.find((index) => members[index] === undefined);
  if (outside !== undefined) return `names member ${outside} of ${members.length}`;
  if (new Set(replicas).size < replicas.length) return 'names a member twice';
  return undefined;
}

/** Whether two lists without repetitions have the same elements. */
export function isSameSet<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((element) => b.includes(element));
}
