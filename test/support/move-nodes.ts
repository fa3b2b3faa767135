import { type ClusterMap, quorumOf } from '../../model/cluster-map.ts';
import type { MemberReport } from '../../model/moves.ts';
import { holdsPartition, movingOwners, partitionsHeldBy, replicaSets } from '../../model/replica-sets.ts';

/** A partition as a node stores it: the numbers of the writes it has. */
interface Stored {
  isReadable: boolean;
  writes: ReadonlySet<number>;
}

/**
 * A node as far as changing the map concerns it: takes maps, fills and compares what it newly owns, keeps what it gave away
 * for a while. What it does at once or never, a real node does in steps; what it does never before, neither does that.
 */
export class MoveNode {
  readonly nodeId: string;
  isUp = true;
  incarnation: number;
  map: ClusterMap | undefined;
  readonly stored = new Map<number, Stored>();
  readonly peerIncarnations = new Map<string, number>();
  /** Partition and source of each comparison that began when everybody had announced the map held now. */
  private compared = new Set<string>();

  constructor(nodeId: string, incarnation: number) {
    this.nodeId = nodeId;
    this.incarnation = incarnation;
  }

  /** Takes a newer map; false when its incarnation is retired by it and the node begins again, blank. */
  adopt(map: ClusterMap): void {
    if (map.epoch <= (this.map?.epoch ?? 0)) return;
    const before = this.map;
    this.map = map;
    this.compared = new Set();
    for (const partition of partitionsHeldBy(map, this.nodeId)) {
      if (before !== undefined && holdsPartition(before, this.nodeId, partition)) continue;
      // Only the first map makes a blank node readable.
      this.stored.set(partition, { isReadable: !map.initialised, writes: new Set() });
    }
  }

  /** The volume is lost: a new incarnation that has the map from its peers. */
  loseVolume(incarnation: number): void {
    this.incarnation = incarnation;
    this.stored.clear();
    this.compared = new Set();
    for (const partition of this.held) this.stored.set(partition, { isReadable: false, writes: new Set() });
  }

  get held(): readonly number[] {
    return this.map === undefined ? [] : partitionsHeldBy(this.map, this.nodeId);
  }

  get residue(): readonly number[] {
    const held = new Set(this.held);
    return [...this.stored.keys()].filter((partition) => !held.has(partition));
  }

  isReadable(partition: number): boolean {
    return this.stored.get(partition)?.isReadable === true;
  }

  writesOf(partition: number): ReadonlySet<number> {
    return this.stored.get(partition)?.writes ?? new Set();
  }

  write(partition: number, write: number): void {
    const stored = this.stored.get(partition);
    if (stored !== undefined) stored.writes = new Set([...stored.writes, write]);
  }

  /** Compares a partition with a source, both ways; what was compared with enough sources becomes readable. */
  compareWith(source: MoveNode, partition: number): void {
    const mine = this.stored.get(partition);
    const theirs = source.stored.get(partition);
    if (this.map === undefined || mine === undefined || theirs === undefined) return;
    mine.writes = theirs.writes = new Set([...mine.writes, ...theirs.writes]);
    this.compared.add(`${partition} ${source.nodeId}`);
    const { read } = replicaSets(this.map, partition);
    if (this.comparedWith(partition, read) >= read.length - quorumOf(read.length) + 1) {
      mine.isReadable = true;
    }
  }

  report(): MemberReport {
    return {
      epoch: this.map?.epoch ?? 0,
      mapHash: this.map?.hash ?? '',
      incarnation: this.incarnation,
      settledEpoch: this.hasSettled() ? (this.map?.epoch ?? 0) : 0,
      residualPartitions: this.residue.length,
      fillingPartitions: this.held.filter((partition) => !this.isReadable(partition)).length,
      peerIncarnations: new Map(this.peerIncarnations),
    };
  }

  private hasSettled(): boolean {
    const { map } = this;
    if (map?.moving?.phase !== 1) return false;
    const mine = map.moving.partitions.filter(
      ({ partition }) => movingOwners(map, partition)?.newOwners.includes(this.nodeId) === true,
    );
    return (
      mine.length > 0 &&
      mine.every(({ partition }) => {
        const old = movingOwners(map, partition)?.oldOwners ?? [];
        return (
          this.isReadable(partition) &&
          this.comparedWith(partition, old) >= old.length - quorumOf(old.length) + 1
        );
      })
    );
  }

  /** Itself counts where it is one of them and serves the partition. */
  private comparedWith(partition: number, sources: readonly string[]): number {
    return sources.filter((nodeId) =>
      nodeId === this.nodeId ? this.isReadable(partition) : this.compared.has(`${partition} ${nodeId}`),
    ).length;
  }
}
