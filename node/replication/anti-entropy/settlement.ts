import { type ClusterMap, quorumOf } from '../../../model/cluster-map.ts';
import { movingOwners, replicaSets } from '../../../model/replica-sets.ts';
import { PartitionSet } from '../../cluster/partition-set.ts';
import type { SafetyRules } from '../safety-rules.ts';
import type { ComparablePeer } from './comparable-peer.ts';
import { type ClusterView, heldPartitions, type StandingView } from './surroundings.ts';

/** Under which circumstances comparisons began. */
export interface Begun {
  readonly epoch: number;
  readonly label: string;
  /** Partitions that were not readable here. */
  readonly filling: ReadonlySet<number>;
  readonly generation: number;
}

export interface SettlementOptions {
  readonly partitions: number;
  readonly cluster: ClusterView;
  readonly standing: Pick<StandingView, 'isReadable'>;
  readonly rules: Pick<SafetyRules, 'awaitBarrier' | 'compareWithEnough'>;
  /** Connected peers. */
  readonly peers: () => readonly Pick<ComparablePeer, 'nodeId' | 'readableAt'>[];
}

/** What is known from completed comparisons of one partition with one peer. */
interface Known {
  /** Newest epoch that every member had announced when one began; -1: none was completed. */
  epoch: number;
  /** Newest known label that one began under. */
  label: string;
  /** Whether the last look found no difference. */
  equal: boolean;
}

/** What a filling partition still waits for. */
export interface FillNeeds {
  /** How many sources it needs. */
  readonly needed: number;
  /** Members it may be filled from. */
  readonly sources: readonly string[];
  /** Sources that a comparison was completed with. */
  readonly compared: readonly string[];
  /** Sources that are connected and serve the partition. */
  readonly reachable: readonly string[];
}

/**
 * Remembers, in memory, which comparisons were completed and under which circumstances they began, and tells what they
 * permit: reading a filled partition (PROTOCOL 32), the next phase of a move (31), a larger horizon (23).
 */
export class Settlement {
  private readonly options: SettlementOptions;
  /** By partition, then by peer. */
  private readonly known = new Map<number, Map<string, Known>>();
  /** Horizons of the sources that filling partitions were completed with. */
  private readonly fills = new Map<number, Map<string, number>>();
  private generation = 0;

  constructor(options: SettlementOptions) {
    this.options = options;
  }

  /** The circumstances now. Take them before anything is asked of the peer. */
  begin(): Begun {
    const { cluster, standing } = this.options;
    return {
      epoch: cluster.barrierEpoch(),
      label: cluster.label(),
      filling: new Set(heldPartitions(cluster).filter((partition) => !standing.isReadable(partition))),
      generation: this.generation,
    };
  }

  /** A comparison that began so was completed. */
  complete(
    peer: string,
    partition: number,
    begun: Begun,
    found: { equal: boolean; horizonMs: number },
  ): void {
    // What was completed before partitions lost their standing says nothing of what they hold now.
    if (begun.generation !== this.generation) return;
    const known = this.knownOf(partition, peer);
    known.epoch = Math.max(known.epoch, begun.epoch);
    if (begun.label !== '') known.label = begun.label;
    known.equal = found.equal;
    if (!begun.filling.has(partition)) return;
    let sources = this.fills.get(partition);
    if (sources === undefined) this.fills.set(partition, (sources = new Map<string, number>()));
    sources.set(peer, Math.max(sources.get(peer) ?? 0, found.horizonMs));
  }

  /** A comparison found differences that it could not resolve. */
  differs(peer: string, partition: number): void {
    this.knownOf(partition, peer).equal = false;
  }

  /** Partitions have lost their standing, or start blank: no earlier comparison counts for them. */
  forget(partitions: Iterable<number>): void {
    this.generation += 1;
    for (const partition of partitions) {
      this.known.delete(partition);
      this.fills.delete(partition);
    }
  }

  /** Drops what is remembered of partitions that are not kept here any more, and of fills that are done. */
  prune(): void {
    const { cluster, standing } = this.options;
    const held = new Set(heldPartitions(cluster));
    for (const partition of this.known.keys()) if (!held.has(partition)) this.known.delete(partition);
    for (const partition of this.fills.keys()) {
      if (!held.has(partition) || standing.isReadable(partition)) this.fills.delete(partition);
    }
  }

  /** Whether a comparison with this source, begun since the partition lost its data, was completed. */
  isFilledFrom(peer: string, partition: number): boolean {
    return this.fills.get(partition)?.has(peer) === true;
  }

  /** Partitions that are filled and not yet marked, with the horizon that their sources had reached. */
  filled(): readonly { readonly partition: number; readonly horizonMs: number }[] {
    const { cluster } = this.options;
    const { map } = cluster;
    if (map === undefined) return [];
    return heldPartitions(cluster).flatMap((partition) => {
      const fills = this.fills.get(partition);
      if (fills === undefined || !this.isFilled(map, partition)) return [];
      return { partition, horizonMs: Math.max(...fills.values()) };
    });
  }

  /** What a partition needs before it may be read, and what it has. */
  needsOf(map: ClusterMap, partition: number): FillNeeds {
    const { cluster, rules, peers } = this.options;
    const { read } = replicaSets(map, partition);
    const sources = read.filter((nodeId) => nodeId !== cluster.nodeId);
    const reachable = peers().flatMap((peer) =>
      sources.includes(peer.nodeId) && peer.readableAt(partition) ? peer.nodeId : [],
    );
    return {
      needed: rules.compareWithEnough ? read.length - quorumOf(read.length) + 1 : 1,
      sources,
      compared: sources.filter((nodeId) => this.isFilledFrom(nodeId, partition)),
      reachable,
    };
  }

  /**
   * The epoch of the move that this node, as a new owner, has settled: every moving partition that it is to own is
   * readable here and was compared with enough old owners, after every member had announced the move. 0: none.
   */
  settledEpoch(): number {
    const { map, nodeId } = this.options.cluster;
    if (map?.moving?.phase !== 1) return 0;
    const mine = map.moving.partitions.flatMap(({ partition }) =>
      movingOwners(map, partition)?.newOwners.includes(nodeId) === true ? partition : [],
    );
    return mine.length > 0 && mine.every((partition) => this.hasSettled(map, partition)) ? map.epoch : 0;
  }

  /** Whether the move of a partition to this node waits for a comparison with a peer, and may begin it. */
  moveWaitsFor(peer: string, partition: number): boolean {
    const { map, nodeId, barrierEpoch } = this.view();
    if (map?.moving?.phase !== 1 || barrierEpoch < map.epoch) return false;
    const owners = movingOwners(map, partition);
    if (owners === undefined || !owners.newOwners.includes(nodeId) || !owners.oldOwners.includes(peer))
      return false;
    return !this.isSettledWith(peer, partition, map.epoch) && !this.hasSettled(map, partition);
  }

  /** Whether the present label waits for a comparison of a readable partition with a peer. */
  labelWaitsFor(peer: string, partition: number): boolean {
    const { map, label } = this.view();
    if (map === undefined || label === '' || movingOwners(map, partition) !== undefined) return false;
    if (!this.options.standing.isReadable(partition)) return false;
    return this.known.get(partition)?.get(peer)?.label !== label;
  }

  /** Readable partitions that do not move and were compared with all other replicas, begun under the present label. */
  settled(): PartitionSet {
    const { partitions, cluster, standing } = this.options;
    const { map, label, nodeId } = this.view();
    const set = new PartitionSet(partitions);
    if (map === undefined || label === '') return set;
    for (const partition of heldPartitions(cluster)) {
      if (!standing.isReadable(partition) || movingOwners(map, partition) !== undefined) continue;
      const known = this.known.get(partition);
      const others = replicaSets(map, partition).holders.filter((holder) => holder !== nodeId);
      if (others.every((other) => known?.get(other)?.label === label)) set.add(partition);
    }
    return set;
  }

  /** How the partitions kept here compare with all other replicas, as of the last look at each. */
  equality(): { readonly equal: number; readonly differing: number } {
    const { cluster } = this.options;
    const { map, nodeId } = cluster;
    if (map === undefined) return { equal: 0, differing: 0 };
    let equal = 0;
    let differing = 0;
    for (const partition of heldPartitions(cluster)) {
      const known = this.known.get(partition);
      const others = replicaSets(map, partition).holders.filter((holder) => holder !== nodeId);
      const states = others.map((other) => known?.get(other)?.equal);
      if (states.every((state) => state === true)) equal += 1;
      else if (states.includes(false)) differing += 1;
    }
    return { equal, differing };
  }

  private isFilled(map: ClusterMap, partition: number): boolean {
    if (this.options.standing.isReadable(partition)) return false;
    const { needed, compared, reachable } = this.needsOf(map, partition);
    if (compared.length < needed) return false;
    return !this.options.rules.compareWithEnough || reachable.every((nodeId) => compared.includes(nodeId));
  }

  private hasSettled(map: ClusterMap, partition: number): boolean {
    const { cluster, standing } = this.options;
    if (!standing.isReadable(partition)) return false;
    const olds = movingOwners(map, partition)?.oldOwners ?? [];
    const compared = olds.filter(
      (old) => old === cluster.nodeId || this.isSettledWith(old, partition, map.epoch),
    );
    return compared.length >= olds.length - quorumOf(olds.length) + 1;
  }

  private isSettledWith(peer: string, partition: number, epoch: number): boolean {
    return (
      (this.known.get(partition)?.get(peer)?.epoch ?? -1) >= (this.options.rules.awaitBarrier ? epoch : 0)
    );
  }

  private knownOf(partition: number, peer: string): Known {
    let peers = this.known.get(partition);
    if (peers === undefined) this.known.set(partition, (peers = new Map<string, Known>()));
    let known = peers.get(peer);
    if (known === undefined) peers.set(peer, (known = { epoch: -1, label: '', equal: false }));
    return known;
  }

  private view(): { map: ClusterMap | undefined; nodeId: string; label: string; barrierEpoch: number } {
    const { cluster } = this.options;
    return {
      map: cluster.map,
      nodeId: cluster.nodeId,
      label: cluster.label(),
      barrierEpoch: cluster.barrierEpoch(),
    };
  }
}
