import type { ClusterMap } from './cluster-map.ts';

/** Who matters to one partition under one map; node ids, the preferred coordinator first. */
export interface ReplicaSets {
  /**
   * A write succeeds when enough members of EACH of these hold it: the replicas, or the old and the new owners while the
   * partition moves (PROTOCOL 31).
   */
  readonly write: readonly (readonly string[])[];
  /** Those that serve reads and coordinate: the replicas, the old owners in phase 1, the new ones in phase 2. */
  readonly read: readonly string[];
  /** Everybody who keeps the partition: the union of the write sets. */
  readonly holders: readonly string[];
}

/** The two sides of a partition that moves; node ids. Owners that stay are in both. */
export interface MovingOwners {
  readonly phase: number;
  readonly oldOwners: readonly string[];
  readonly newOwners: readonly string[];
}

/** What is asked of a map for every operation, worked out once per map object. */
interface MapIndex {
  readonly sets: (ReplicaSets | undefined)[];
  readonly moving: ReadonlyMap<number, MovingOwners>;
  heldBy: ReadonlyMap<string, readonly number[]> | undefined;
}

const indexes = new WeakMap<ClusterMap, MapIndex>();
const NONE: readonly number[] = [];

/**
 * The write sets, read set and holders of a partition. Cheap enough for every operation: the same object for the same
 * map object and partition.
 *
 * @throws RangeError when the map has no such partition.
 */
export function replicaSets(map: ClusterMap, partition: number): ReplicaSets {
  const index = indexOf(map);
  const known = index.sets[partition];
  if (known !== undefined) return known;
  const sets = setsOf(map, partition, index.moving.get(partition));
  index.sets[partition] = sets;
  return sets;
}

/** Whether a member keeps a partition, as a replica or as an owner on either side of a move. */
export function holdsPartition(map: ClusterMap, nodeId: string, partition: number): boolean {
  return replicaSets(map, partition).holders.includes(nodeId);
}

/** Every partition that a member keeps, in ascending order; none for a name that the map does not list. */
export function partitionsHeldBy(map: ClusterMap, nodeId: string): readonly number[] {
  const index = indexOf(map);
  index.heldBy ??= invert(map);
  return index.heldBy.get(nodeId) ?? NONE;
}

/** The partitions that both members keep, in ascending order. */
export function sharedPartitions(map: ClusterMap, a: string, b: string): readonly number[] {
  return partitionsHeldBy(map, a).filter((partition) => holdsPartition(map, b, partition));
}

/** Both sides of a partition that is part of the map's move; undefined when it does not move. */
export function movingOwners(map: ClusterMap, partition: number): MovingOwners | undefined {
  return indexOf(map).moving.get(partition);
}

/** Who owned a moving partition before the move, in both phases; the replicas when it does not move. */
export function oldOwners(map: ClusterMap, partition: number): readonly string[] {
  return movingOwners(map, partition)?.oldOwners ?? replicaSets(map, partition).read;
}

/** Who owns a moving partition after the move, staying owners included; the replicas when it does not move. */
export function newOwners(map: ClusterMap, partition: number): readonly string[] {
  return movingOwners(map, partition)?.newOwners ?? replicaSets(map, partition).read;
}

/** Whether the move makes this member an owner that it was not before: such a replica starts blank (PROTOCOL 32). */
export function isIncoming(map: ClusterMap, nodeId: string, partition: number): boolean {
  const owners = movingOwners(map, partition);
  return owners !== undefined && owners.newOwners.includes(nodeId) && !owners.oldOwners.includes(nodeId);
}

function indexOf(map: ClusterMap): MapIndex {
  const known = indexes.get(map);
  if (known !== undefined) return known;
  const index: MapIndex = {
    sets: new Array<ReplicaSets | undefined>(map.assignment.length).fill(undefined),
    moving: movesOf(map),
    heldBy: undefined,
  };
  indexes.set(map, index);
  return index;
}

function movesOf(map: ClusterMap): ReadonlyMap<number, MovingOwners> {
  const { moving } = map;
  if (moving === undefined) return new Map();
  return new Map(
    moving.partitions.map(({ partition, oldReplicas, newReplicas }) => [
      partition,
      {
        phase: moving.phase,
        oldOwners: namesOf(map, oldReplicas),
        newOwners: namesOf(map, newReplicas),
      },
    ]),
  );
}

function setsOf(map: ClusterMap, partition: number, moving: MovingOwners | undefined): ReplicaSets {
  const assigned = map.assignment[partition];
  if (assigned === undefined) {
    throw new RangeError(`no partition ${partition} in a map of ${map.assignment.length} partitions`);
  }
  if (moving === undefined) {
    const replicas = namesOf(map, assigned);
    return { write: [replicas], read: replicas, holders: replicas };
  }
  return {
    write: [moving.oldOwners, moving.newOwners],
    read: moving.phase === 1 ? moving.oldOwners : moving.newOwners,
    holders: [...new Set([...moving.oldOwners, ...moving.newOwners])],
  };
}

function namesOf(map: ClusterMap, indexesOfMembers: readonly number[]): readonly string[] {
  return indexesOfMembers.map((index) => {
    const member = map.members[index];
    if (member === undefined) {
      throw new RangeError(`member ${index} in a map of ${map.members.length} members`);
    }
    return member.nodeId;
  });
}

function invert(map: ClusterMap): ReadonlyMap<string, readonly number[]> {
  const held = new Map<string, number[]>();
  for (const partition of map.assignment.keys()) {
    for (const nodeId of replicaSets(map, partition).holders) {
      const list = held.get(nodeId);
      if (list === undefined) held.set(nodeId, [partition]);
      else list.push(partition);
    }
  }
  return held;
}
