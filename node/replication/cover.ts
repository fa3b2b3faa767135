import type { Topology } from './topology.ts';

/** Which member is asked about which partitions. */
export type Cover = ReadonlyMap<string, readonly number[]>;

export interface CoverOptions {
  readonly topology: Pick<Topology, 'nodeId' | 'setsOf' | 'serves' | 'isServing'>;
  readonly partitions: Iterable<number>;
  /** How many replicas of a partition are to be asked, by how many it has. */
  readonly required: (replicas: number) => number;
  /** Members that are not to be asked. */
  readonly failed: ReadonlySet<string>;
}

/** A partition with too few readable replicas in reach. */
export interface ShortPartition {
  readonly partition: number;
  readonly required: number;
  readonly replicas: number;
  readonly serving: number;
}

export interface FoundCover {
  readonly cover: Cover;
  /** They are not in the cover. */
  readonly short: readonly ShortPartition[];
}

/** Chooses whom to ask: this node for what it serves, then members that are asked anyway, so that few are. */
export function findCover({ topology, partitions, required, failed }: CoverOptions): FoundCover {
  const cover = new Map<string, number[]>();
  const short: ShortPartition[] = [];
  for (const partition of partitions) {
    const { read } = topology.setsOf(partition);
    const wanted = required(read.length);
    const serving = read.filter(
      (nodeId) =>
        !failed.has(nodeId) &&
        (nodeId === topology.nodeId ? topology.serves(partition) : topology.isServing(nodeId, partition)),
    );
    if (serving.length < wanted) {
      short.push({ partition, required: wanted, replicas: read.length, serving: serving.length });
      continue;
    }
    const rank = (nodeId: string): number => (nodeId === topology.nodeId ? 0 : cover.has(nodeId) ? 1 : 2);
    for (const nodeId of serving.toSorted((a, b) => rank(a) - rank(b)).slice(0, wanted)) {
      const asked = cover.get(nodeId);
      if (asked === undefined) cover.set(nodeId, [partition]);
      else asked.push(partition);
    }
  }
  return { cover, short };
}
