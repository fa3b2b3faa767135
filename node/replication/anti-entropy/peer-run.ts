import { sharedPartitions } from '../../../model/replica-sets.ts';
import { abortablePeer } from './abortable-peer.ts';
import type { Claims } from './claims.ts';
import type { ComparablePeer } from './comparable-peer.ts';
import { Comparison, type PartitionOutcome } from './comparison.ts';
import type { Pace } from './pace.ts';
import type { Begun, Settlement } from './settlement.ts';
import type { Surroundings } from './surroundings.ts';

export interface PeerRunOptions {
  readonly peer: ComparablePeer;
  readonly settlement: Settlement;
  readonly claims: Claims;
  /** Partitions of which next to nothing was here when they began to fill. */
  readonly blank: Set<number>;
  /** How fast records may move now. */
  readonly pace: () => Pace;
  /** Something was completed. */
  readonly onProgress: () => void;
  readonly signal: AbortSignal;
}

/** How a run ended. */
export interface PeerRunResult {
  /** Every partition shared with the peer was completed. */
  readonly full: boolean;
  /** Partitions with differences that could not be resolved. */
  readonly differing: number;
}

/**
 * Compares all partitions that this node shares with a peer, once: those that fill first. When every one of them was
 * completed in the run, a gap before the peer's log is closed (PROTOCOL 15): what the log no longer has is here.
 */
export class PeerRun {
  private readonly surroundings: Surroundings;
  private readonly options: PeerRunOptions;
  private readonly comparison: Comparison;
  private readonly outcomes = new Map<number, PartitionOutcome['kind']>();

  constructor(surroundings: Surroundings, options: PeerRunOptions) {
    const { signal, blank, pace } = options;
    const peer = abortablePeer(options.peer, signal);
    this.surroundings = surroundings;
    this.options = { ...options, peer };
    this.comparison = new Comparison(surroundings, {
      peer,
      signal,
      blank,
      spend: (bytes) => pace().spend(bytes, signal),
    });
  }

  /** @throws when the peer is gone, or the run was aborted. */
  async execute(): Promise<PeerRunResult> {
    const { peer } = this.options;
    await this.compare(this.shared());
    // By the map of now: what it has added meanwhile was not compared, and the next run does it.
    const kinds = this.shared().map((partition) => this.outcomes.get(partition));
    const full = kinds.every((kind) => kind === 'complete');
    if (full && peer.fellOff) await peer.promote(this.comparison.head);
    return { full, differing: kinds.filter((kind) => kind === 'differs').length };
  }

  private async compare(partitions: readonly number[]): Promise<void> {
    const { settlement, claims, signal } = this.options;
    const { groupPartitions } = this.surroundings.settings;
    const begun = settlement.begin();
    const { outcomes, differing } = await this.comparison.roots(partitions);
    this.note(outcomes, begun);
    const isFilling = (partition: number): number => (begun.filling.has(partition) ? 0 : 1);
    let left = differing.toSorted((a, b) => isFilling(a) - isFilling(b) || a - b);
    while (left.length > 0) {
      const group = claims.take(left, groupPartitions);
      if (group.length === 0) {
        await claims.released(signal);
        continue;
      }
      try {
        this.note(await this.comparison.resolve(group), begun);
      } finally {
        claims.release(group);
      }
      const done = new Set(group);
      left = left.filter((partition) => !done.has(partition));
    }
  }

  private note(outcomes: ReadonlyMap<number, PartitionOutcome>, begun: Begun): void {
    const { settlement, peer, onProgress } = this.options;
    for (const [partition, outcome] of outcomes) {
      this.outcomes.set(partition, outcome.kind);
      if (outcome.kind === 'complete') settlement.complete(peer.nodeId, partition, begun, outcome);
      else if (outcome.kind === 'differs') settlement.differs(peer.nodeId, partition);
    }
    if (outcomes.size > 0) onProgress();
  }

  private shared(): readonly number[] {
    const { map, nodeId } = this.surroundings.cluster;
    return map === undefined ? [] : sharedPartitions(map, nodeId, this.options.peer.nodeId);
  }
}
