import { KvError } from '../../common/errors.ts';
import { type ClusterMap, type MapContent, type Member, sealMap } from '../cluster-map.ts';
import { problemWithMap } from '../map-check.ts';

/** What differs in the next map. */
export interface MapChange extends Partial<Omit<MapContent, 'epoch' | 'clusterId' | 'moving'>> {
  /** Absent: the move goes on. */
  readonly moving?: ClusterMap['moving'] | 'none';
}

/**
 * The map of the next epoch with these changes. Where `members` change, everything that refers to a member by its index
 * is brought along; nothing may be left that refers to one that is gone.
 *
 * @throws KvError INTERNAL when the result contradicts itself.
 */
export function changed(map: ClusterMap, change: MapChange): ClusterMap {
  const { moving, ...others } = change;
  const { moving: before, ...content } = map;
  const move = moving ?? before;
  const next = { ...content, ...others, epoch: map.epoch + 1 };
  const reindex = reindexing(map.members, next.members);
  const sealed = sealMap({
    ...next,
    assignment: change.assignment ?? map.assignment.map(reindex),
    ...(move === 'none' || move === undefined
      ? {}
      : {
          moving: {
            phase: move.phase,
            partitions: move.partitions.map(({ partition, oldReplicas, newReplicas }) => ({
              partition,
              oldReplicas: reindex(oldReplicas),
              newReplicas: reindex(newReplicas),
            })),
          },
        }),
  });
  const problem = problemWithMap(sealed);
  if (problem !== undefined)
    throw new KvError('INTERNAL', `the next cluster map contradicts itself: ${problem}`);
  return sealed;
}

function reindexing(
  before: readonly Member[],
  after: readonly Member[],
): (indexes: readonly number[]) => readonly number[] {
  if (before === after) return (indexes) => indexes;
  const places = new Map(after.map(({ nodeId }, index) => [nodeId, index]));
  const moved = before.map(({ nodeId }) => places.get(nodeId));
  return (indexes) =>
    indexes.map((index) => {
      const place = moved[index];
      if (place !== undefined) return place;
      throw new KvError(
        'INTERNAL',
        `${before[index]?.nodeId ?? index} leaves the map and still has partitions`,
      );
    });
}
