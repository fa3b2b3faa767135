import { KvError } from '../common/errors.ts';
import { type ClusterMap, type Member, memberOf } from './cluster-map.ts';
import { changed } from './moves/change-map.ts';
import { hasTaken, type Reports, sourcesAmong, sourcesNeeded } from './moves/reports.ts';
import { place } from './placement.ts';
import { replicaSets } from './replica-sets.ts';

/**
 * Changes of the map that a person (or the operator for one) decides, outside the steps of `nextStep`. Each gives the map
 * of the next epoch, to be published like any other, and needs no barrier: what is acknowledged under the map before it by
 * members that are not down is found under it.
 */

/** A partition whose remaining owners may lack acknowledged writes. */
export interface PartitionAtRisk {
  readonly partition: number;
  /** Owners that are left and can be read; nobody: the partition is lost unless an owner comes back. */
  readonly remaining: readonly string[];
  /** How many would be needed to have every write acknowledged at QUORUM. */
  readonly needed: number;
}

/**
 * Marks a member down: no barrier waits for it any more, and it is refused until it holds the newest map. It keeps its
 * partitions as long as it is wanted.
 *
 * @throws KvError NOT_FOUND for a name that the map does not list; FAILED_PRECONDITION when the member is down already,
 * when it is the last one that is not, or when the map is not initialised (the first map needs everybody).
 */
export function markDown(map: ClusterMap, nodeId: string): ClusterMap {
  const member = required(map, nodeId);
  if (!map.initialised)
    throw refused('the first cluster map waits for every member, also for one that is down');
  if (member.state === 'down') throw refused(`${nodeId} is marked down already`);
  if (map.members.every((other) => other === member || other.state === 'down')) {
    throw refused(`${nodeId} is the last member that is not marked down`);
  }
  return changed(map, {
    members: map.members.map((other) => (other === member ? { ...other, state: 'down' } : other)),
  });
}

/**
 * Takes back a move in phase 1: everything stays where it was. `nextStep` begins it again unless something else is
 * desired by then.
 *
 * @throws KvError FAILED_PRECONDITION when nothing moves, or reads come from the new owners already (phase 2).
 */
export function cancelMove(map: ClusterMap): ClusterMap {
  if (map.moving === undefined) throw refused('no partitions are moving');
  if (map.moving.phase !== 1) {
    throw refused('the move is past the point of return: its new owners are read from; move back instead');
  }
  return changed(map, { moving: 'none' });
}

/**
 * Retires the incarnation of a member whose volume is replaced: the old volume is set aside wherever it comes back, and the
 * member goes on with a blank one. What may be lost by that is what `partitionsAtRisk(map, [nodeId], reports)` tells.
 *
 * @param incarnation of the volume that goes; not 0
 * @throws KvError NOT_FOUND for a name that the map does not list; INVALID_ARGUMENT for an incarnation that is none;
 * FAILED_PRECONDITION when it is retired already.
 */
export function replaceVolume(map: ClusterMap, nodeId: string, incarnation: number): ClusterMap {
  required(map, nodeId);
  if (!Number.isSafeInteger(incarnation) || incarnation < 1) {
    throw new KvError('INVALID_ARGUMENT', `${incarnation} is not an incarnation`);
  }
  if (map.retired.some((entry) => entry.nodeId === nodeId && entry.incarnation === incarnation)) {
    throw refused(`incarnation ${incarnation} of ${nodeId} is retired already`);
  }
  return changed(map, { retired: [...map.retired, { nodeId, incarnation }] });
}

/**
 * The partitions that could lose writes acknowledged at QUORUM if these members never came back: fewer of the other
 * members that they are read from are up and serve everything than are needed to have every such write.
 */
export function partitionsAtRisk(
  map: ClusterMap,
  lost: readonly string[],
  reports: Reports,
): readonly PartitionAtRisk[] {
  return [...map.assignment.keys()].flatMap((partition) => {
    const { read } = replicaSets(map, partition);
    const staying = read.filter((nodeId) => !lost.includes(nodeId));
    const remaining = sourcesAmong(map, staying, reports);
    const needed = sourcesNeeded(read.length);
    return staying.length === read.length || remaining.length >= needed
      ? []
      : [{ partition, remaining, needed }];
  });
}

/**
 * Takes all partitions from members that are down, at once and without asking them: the owners that are left are the truth
 * from then on. Only for when `nextStep` waits for owners that will not come back, and cannot serve anybody any more (their
 * pods and volumes are gone); after it `nextStep` fills the missing copies. Partitions that had no other owner go to
 * others, blank: they stay unavailable until those are forced to serve them (PROTOCOL 33). A move in phase 1 is cancelled
 * by it, one in phase 2 ended.
 *
 * @returns the map, and which partitions may lose acknowledged writes by it: to be shown and agreed to beforehand
 * @throws KvError NOT_FOUND for a name that the map does not list; FAILED_PRECONDITION when a member is not marked down,
 * when nobody else could hold partitions, or when a move is in phase 2 and somebody has not taken that map yet.
 */
export function forceRemoveReplicas(
  map: ClusterMap,
  nodeIds: readonly string[],
  reports: Reports,
): { readonly map: ClusterMap; readonly mayLose: readonly PartitionAtRisk[] } {
  const gone = new Set(nodeIds.map((nodeId) => map.members.indexOf(required(map, nodeId))));
  const living = nodeIds.find((nodeId) => required(map, nodeId).state !== 'down');
  if (living !== undefined) throw refused(`${living} is not marked down`);
  const left = ownersAfterMove(map, reports).map((owners) => owners.filter((index) => !gone.has(index)));
  const members = map.members.map((member, index) => ({
    ...member,
    state: gone.has(index) ? ('down' as const) : member.state,
  }));
  if (!members.some(({ state }) => state === 'active'))
    throw refused('no other member could hold partitions');
  const previous = left.map((owners) => owners.flatMap((index) => map.members[index]?.nodeId ?? []));
  const target = place({ ...map, members, previous });
  const assignment = left.map((owners, partition) =>
    owners.length > 0 ? owners : (target[partition] ?? owners),
  );
  return {
    map: changed(map, { assignment, moving: 'none' }),
    mayLose: partitionsAtRisk(map, nodeIds, reports),
  };
}

/** Where a move that is ended now leaves its partitions: with those that they are read from. */
function ownersAfterMove(map: ClusterMap, reports: Reports): readonly (readonly number[])[] {
  const owners = [...map.assignment];
  if (map.moving?.phase !== 2) return owners;
  const behind = map.members.find(
    ({ nodeId, state }) => state !== 'down' && !hasTaken(map, reports.get(nodeId)),
  );
  if (behind !== undefined) throw refused(`${behind.nodeId} has not taken the present map of the move yet`);
  for (const { partition, newReplicas } of map.moving.partitions) owners[partition] = newReplicas;
  return owners;
}

function required(map: ClusterMap, nodeId: string): Member {
  const member = memberOf(map, nodeId);
  if (member === undefined) throw new KvError('NOT_FOUND', `the cluster map lists no member ${nodeId}`);
  return member;
}

function refused(why: string): KvError {
  return new KvError('FAILED_PRECONDITION', why);
}
