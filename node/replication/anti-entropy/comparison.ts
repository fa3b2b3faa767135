import { abortReason, sleep } from '../../../common/clock.ts';
import { KvError } from '../../../common/errors.ts';
import type { DigestReply, PartitionDigest } from '../../../proto/gen/peer.ts';
import { LEAVES } from '../../storage/digest.ts';
import { BulkPull } from './bulk-pull.ts';
import type { ComparablePeer } from './comparable-peer.ts';
import { LeafMerge, type MergeCounts } from './leaf-merge.ts';
import { decodeLeaves, LeafSet } from './leaf-set.ts';
import { followHorizon, sharesPartition, type Surroundings } from './surroundings.ts';

/** What a comparison found of a partition. */
export type PartitionOutcome =
  /**
   * Everything that the peer held when the comparison began is here, as that version or a newer one, and what was newer
   * here is there. `equal`: no difference is left, as far as the last look can tell while writes go on.
   */
  | { readonly kind: 'complete'; readonly equal: boolean; readonly horizonMs: number }
  /** Not complete: records are damaged on one side. */
  | { readonly kind: 'differs'; readonly unresolved: number }
  /** One of the two does not keep the partition. */
  | { readonly kind: 'refused' }
  /** The peer has yet to fill the partition itself. */
  | { readonly kind: 'unready' };

/** What the roots tell. */
export interface RootsFound {
  readonly outcomes: ReadonlyMap<number, PartitionOutcome>;
  /** Yet to be resolved. */
  readonly differing: readonly number[];
}

export interface ComparisonOptions {
  readonly peer: ComparablePeer;
  readonly signal: AbortSignal;
  /** Bytes of records were moved. */
  readonly spend: (bytes: number) => Promise<void>;
  /** Partitions of which next to nothing was here when they began to fill; they are taken out when they are loaded. */
  readonly blank: Set<number>;
}

/** A partition whose leaves are not all equal. */
interface OpenPartition {
  readonly leaves: LeafSet;
  readonly horizonMs: number;
  readonly ownLeaves: readonly number[];
  readonly peerLeaves: readonly number[];
}

/** Partitions asked for in one request. */
const MOST_ROOTS = 1024;

/**
 * One comparison with one peer (PROTOCOL 16, 17): roots first, then the leaves of partitions whose roots differ, then the
 * keys of leaves that differ; whatever differs is brought to the newer version on both sides. A replica that has nearly
 * nothing of a partition takes the peer's whole record stream of it first.
 *
 * Live writes go on meanwhile: a leaf that was equal at any look holds everything that the peer had in it when the
 * comparison began, and applying what is not newer does nothing.
 */
export class Comparison {
  private readonly surroundings: Surroundings;
  private readonly options: ComparisonOptions;
  private readonly incarnation: number;
  private readonly loaded = new Set<number>();
  private readonly peerHorizons = new Map<number, number>();
  private firstHead: number | undefined;

  constructor(surroundings: Surroundings, options: ComparisonOptions) {
    this.surroundings = surroundings;
    this.options = options;
    this.incarnation = options.peer.incarnation;
  }

  /** How far the peer's own log was in what is compared, as of the first answer. */
  get head(): number {
    return this.firstHead ?? 0;
  }

  /** Compares the roots of partitions, in memory on both sides. Of no partitions it still tells the peer's head. */
  async roots(partitions: readonly number[]): Promise<RootsFound> {
    const { store, metrics } = this.surroundings;
    const outcomes = new Map<number, PartitionOutcome>();
    const differing: number[] = [];
    for (let at = 0; at === 0 || at < partitions.length; at += MOST_ROOTS) {
      const some = partitions.slice(at, at + MOST_ROOTS);
      const digests = await this.ask(some, false);
      for (const partition of some) {
        const theirs = digests.get(partition);
        const outcome = this.standingOf(partition, theirs, store.digest(partition).root === theirs?.root);
        if (outcome === undefined) differing.push(partition);
        else outcomes.set(partition, outcome);
      }
      metrics.count('compared_partitions', some.length);
    }
    return { outcomes, differing };
  }

  /** Resolves the differences of some partitions, whose leaves must fit into one answer. */
  async resolve(partitions: readonly number[]): Promise<ReadonlyMap<number, PartitionOutcome>> {
    const outcomes = new Map<number, PartitionOutcome>();
    let open = await this.look(partitions, outcomes);
    const blank = [...open].flatMap(([partition, found]) =>
      this.wantsAll(partition, found) ? partition : [],
    );
    if (blank.length > 0) {
      await this.pullAll(blank);
      open = await this.look([...open.keys()], outcomes);
    }
    open = await this.narrowed(open, outcomes);
    const merged = new Map<number, MergeCounts>();
    for (const [partition, { leaves }] of open) {
      const counts = await this.merge(partition, leaves);
      if (counts === undefined) outcomes.set(partition, { kind: 'refused' });
      else merged.set(partition, counts);
    }
    if (merged.size > 0) await this.conclude(merged, open, outcomes);
    return outcomes;
  }

  /** What can be said of a partition without its leaves; undefined when they are needed. */
  private standingOf(
    partition: number,
    theirs: PartitionDigest | undefined,
    equal: boolean,
  ): PartitionOutcome | undefined {
    if (theirs === undefined || theirs.wrongReplica || !this.isShared(partition)) return { kind: 'refused' };
    const { horizonMs, readable } = theirs;
    this.peerHorizons.set(partition, horizonMs);
    // Two replicas that have both lost data are no measure for each other; nor is a filling one worth listing.
    if (!readable && !(equal && this.surroundings.standing.isReadable(partition))) return { kind: 'unready' };
    return equal ? { kind: 'complete', equal: true, horizonMs } : undefined;
  }

  /** Compares leaves, after both sides have followed the larger horizon: purging must not look like a difference. */
  private async look(
    partitions: readonly number[],
    outcomes: Map<number, PartitionOutcome>,
  ): Promise<Map<number, OpenPartition>> {
    const open = new Map<number, OpenPartition>();
    if (partitions.length === 0) return open;
    const digests = await this.ask(partitions, true);
    for (const { partition, horizonMs } of digests.values()) this.peerHorizons.set(partition, horizonMs);
    await this.followHorizons(partitions);
    this.check();
    for (const partition of partitions) {
      const theirs = digests.get(partition);
      const ownLeaves = this.surroundings.store.digest(partition).leaves;
      const peerLeaves = theirs === undefined || theirs.wrongReplica ? [] : decodeLeaves(theirs.leaves);
      const leaves = LeafSet.differing(ownLeaves, peerLeaves);
      const outcome = this.standingOf(partition, theirs, leaves.size === 0);
      if (outcome !== undefined) outcomes.set(partition, outcome);
      else open.set(partition, { leaves, horizonMs: theirs?.horizonMs ?? 0, ownLeaves, peerLeaves });
    }
    return open;
  }

  /**
   * Looks again, so that only leaves are listed that differ each time: what is being written differs for a moment
   * everywhere. Filling replicas do not wait.
   */
  private async narrowed(
    open: Map<number, OpenPartition>,
    outcomes: Map<number, PartitionOutcome>,
  ): Promise<Map<number, OpenPartition>> {
    const { settings, scheduler, standing } = this.surroundings;
    for (let looks = 1; looks < settings.looks; looks += 1) {
      const again = [...open.keys()].filter((partition) => standing.isReadable(partition));
      if (again.length === 0) break;
      await sleep(scheduler, settings.lookMs, this.options.signal);
      const now = await this.look(again, outcomes);
      for (const partition of again) {
        const before = open.get(partition);
        const after = now.get(partition);
        open.delete(partition);
        if (before === undefined || after === undefined) continue;
        const leaves = before.leaves.and(after.leaves);
        if (leaves.size > 0) open.set(partition, { ...after, leaves });
        else outcomes.set(partition, { kind: 'complete', equal: true, horizonMs: after.horizonMs });
      }
    }
    return open;
  }

  /** Undefined when the partition is no longer kept by both. */
  private async merge(partition: number, leaves: LeafSet): Promise<MergeCounts | undefined> {
    const { peer, spend } = this.options;
    const check = (): void => {
      this.check();
      if (!this.isShared(partition)) throw new NotShared(`partition ${partition} is not shared any more`);
    };
    try {
      return await new LeafMerge(this.surroundings, { peer, partition, leaves, check, spend }).run();
    } catch (error) {
      if (error instanceof NotShared) return undefined;
      throw error;
    }
  }

  /** A last look at what was listed, to tell what is equal by now from what is still being written. */
  private async conclude(
    merged: ReadonlyMap<number, MergeCounts>,
    listed: ReadonlyMap<number, OpenPartition>,
    outcomes: Map<number, PartitionOutcome>,
  ): Promise<void> {
    const found = new Map<number, PartitionOutcome>();
    const still = await this.look([...merged.keys()], found);
    for (const [partition, counts] of merged) {
      const before = listed.get(partition);
      const after = still.get(partition);
      const horizonMs = Math.max(before?.horizonMs ?? 0, this.peerHorizons.get(partition) ?? 0);
      const left = before === undefined || after === undefined ? 0 : before.leaves.and(after.leaves).size;
      const without = found.get(partition);
      if (without?.kind === 'refused' || without?.kind === 'unready') outcomes.set(partition, without);
      else if (counts.unresolved > 0)
        outcomes.set(partition, { kind: 'differs', unresolved: counts.unresolved });
      else outcomes.set(partition, { kind: 'complete', equal: left === 0, horizonMs });
      if (before !== undefined && after !== undefined) this.suspect(partition, counts, before, after);
    }
  }

  /** Nothing differed, nothing has changed, and yet the sums differ: one of the digests is not that of its records. */
  private suspect(partition: number, counts: MergeCounts, before: OpenPartition, after: OpenPartition): void {
    const { pulled, pushed, removed, refused, unresolved } = counts;
    if (pulled + pushed + removed + refused + unresolved > 0) return;
    const unchanged = (was: readonly number[], is: readonly number[]): boolean =>
      was.every((sum, leaf) => !before.leaves.has(leaf) || sum === is[leaf]);
    if (!unchanged(before.ownLeaves, after.ownLeaves) || !unchanged(before.peerLeaves, after.peerLeaves))
      return;
    const { metrics, logger } = this.surroundings;
    metrics.count('wrong_digests');
    logger.warn(
      { peer: this.options.peer.nodeId, partition },
      'the digests of a partition differ and its records do not',
    );
  }

  /** Listing keys pays as long as most of them are here already. */
  private wantsAll(
    partition: number,
    { ownLeaves, peerLeaves, leaves }: Pick<OpenPartition, 'ownLeaves' | 'peerLeaves' | 'leaves'>,
  ): boolean {
    if (this.loaded.has(partition)) return false;
    const filled = peerLeaves.filter((sum) => sum !== 0).length;
    const both = peerLeaves.filter((sum, leaf) => sum !== 0 && ownLeaves[leaf] !== 0).length;
    // Live writes reach every leaf of a blank partition long before its turn comes.
    const blank = this.options.blank.has(partition) && 2 * leaves.size > filled;
    return filled > 0 && (blank || 2 * both <= filled);
  }

  private async pullAll(partitions: readonly number[]): Promise<void> {
    const { peer, signal, spend } = this.options;
    const check = (): void => {
      this.check();
      // The stream has no answer for a partition that has been given away; the next look tells which one.
      if (!partitions.some((partition) => this.isShared(partition))) {
        throw new KvError('ABORTED', `${peer.nodeId} and this node share none of the partitions any more`);
      }
    };
    await new BulkPull(this.surroundings, { peer, partitions, signal, check, spend }).run();
    for (const partition of partitions) {
      this.loaded.add(partition);
      this.options.blank.delete(partition);
    }
  }

  private async ask(
    partitions: readonly number[],
    withLeaves: boolean,
  ): Promise<ReadonlyMap<number, PartitionDigest>> {
    const { horizons } = this.surroundings;
    const horizonsMs = withLeaves ? partitions.map((partition) => horizons.of(partition)) : [];
    const reply: Omit<DigestReply, 'id'> = await this.options.peer.digests({
      partitions: [...partitions],
      withLeaves,
      horizonsMs,
    });
    this.check();
    this.firstHead ??= reply.durableHead;
    return new Map(reply.digests.map((digest) => [digest.partition, digest]));
  }

  private async followHorizons(partitions: readonly number[]): Promise<void> {
    await Promise.all(
      partitions.map((partition) =>
        followHorizon(this.surroundings, partition, this.peerHorizons.get(partition) ?? 0),
      ),
    );
  }

  private isShared(partition: number): boolean {
    return sharesPartition(this.surroundings.cluster, this.options.peer.nodeId, partition);
  }

  /** @throws when the comparison must end; asked after everything that was waited for. */
  private check(): void {
    const { signal, peer } = this.options;
    if (signal.aborted) throw abortReason(signal);
    if (peer.incarnation !== this.incarnation) {
      throw new KvError('ABORTED', `${peer.nodeId} is another incarnation by now`);
    }
  }
}

class NotShared extends Error {}

/** Whether a digest is that of next to no records. */
export function isNearlyBlank(leaves: readonly number[]): boolean {
  return leaves.filter((sum) => sum !== 0).length <= LEAVES / 4;
}
