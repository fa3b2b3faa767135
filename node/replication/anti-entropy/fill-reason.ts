import { heldPartitions, type Surroundings } from './surroundings.ts';
import type { Settlement } from './settlement.ts';

/** Partitions kept here that are not readable yet. */
export function fillingPartitions({
  cluster,
  standing,
}: Pick<Surroundings, 'cluster' | 'standing'>): readonly number[] {
  return heldPartitions(cluster).filter((partition) => !standing.isReadable(partition));
}

/** What partitions wait for that are not readable, for a person; undefined when all are. */
export function fillReason(
  surroundings: Pick<Surroundings, 'cluster' | 'standing'>,
  settlement: Settlement,
): string | undefined {
  const { map } = surroundings.cluster;
  const filling = fillingPartitions(surroundings);
  if (map === undefined || filling.length === 0) return undefined;
  const needs = filling.map((partition) => settlement.needsOf(map, partition));
  const of = `${filling.length} ${filling.length === 1 ? 'partition' : 'partitions'}`;
  const lost = needs.filter(({ sources, needed }) => sources.length < needed);
  if (lost.length > 0) {
    return `no other member exists to fill ${lost.length} of ${of} from: their data is lost`;
  }
  const short = needs.filter(({ reachable, compared, needed }) => union(reachable, compared).length < needed);
  const [first] = short;
  if (first === undefined) return `compares ${of} with the replicas that have them`;
  const absent = new Set(
    short.flatMap(({ sources, reachable, compared }) => {
      const had = union(reachable, compared);
      return sources.filter((nodeId) => !had.includes(nodeId));
    }),
  );
  return (
    `needs ${first.needed} intact ${first.needed === 1 ? 'peer' : 'peers'} to fill ${of} from, ` +
    `has ${union(first.reachable, first.compared).length}, and waits for ${[...absent].join(', ')} with intact stores`
  );
}

function union(a: readonly string[], b: readonly string[]): readonly string[] {
  return [...new Set([...a, ...b])];
}
