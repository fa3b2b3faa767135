import type { Scheduler } from '../../common/clock.ts';
import type { Ack, Entries, Superseded } from '../../proto/gen/peer.ts';
import { decodeRecord } from '../storage/record.ts';
import type { LogCursor, Mutation, Store } from '../storage/store.ts';
import type { HybridClock } from './hybrid-clock.ts';
import type { ReplicationMetrics } from './metrics.ts';
import type { UnsyncedTail } from './unsynced-tail.ts';

export interface LogReceiverOptions {
  readonly peer: string;
  /** Of the peer. */
  readonly incarnation: number;
  /** How far the peer's log is durably applied here. */
  readonly cursor: number;
  readonly store: Store;
  readonly clock: HybridClock;
  readonly tail: UnsyncedTail;
  /** Whether a merge of the peer's records is under way or due. */
  readonly merging: () => boolean;
  readonly scheduler: Scheduler;
  readonly metrics: ReplicationMetrics;
  readonly send: (ack: Ack) => void;
}

interface Group {
  readonly through: number;
  readonly superseded: readonly Superseded[];
  /** Whether the cursor covers it, or it lies beyond a gap. */
  readonly contiguous: boolean;
  durable: boolean;
}

/**
 * Applies a peer's entries in order and acknowledges them when they are synced, cumulatively. The cursor moves
 * contiguously only (PROTOCOL 13); entries beyond a gap are applied and acknowledged for themselves, until a merge of
 * the peer's records has closed the gap.
 */
export class LogReceiver {
  private readonly options: LogReceiverOptions;
  private contiguous: number;
  private durableCursor: number;
  /** What came beyond the gap, on this stream. */
  private beyond: { readonly after: number; through: number } | undefined;
  private readonly groups: Group[] = [];
  private unacked: { through: number; superseded: Superseded[]; provisional: boolean } | undefined;
  private stopped = false;

  constructor(options: LogReceiverOptions) {
    this.options = options;
    this.contiguous = options.cursor;
    this.durableCursor = options.cursor;
  }

  /** Everything in the peer's log through this sequence is durable here. */
  get cursor(): number {
    return this.durableCursor;
  }

  /**
   * @throws Error when the entries do not continue what was received, KvError DATA_LOSS when a record is damaged: the
   *   stream must then begin anew.
   */
  onEntries(entries: Entries): void {
    const { options } = this;
    const gap = entries.after > this.contiguous;
    if (gap && !entries.provisional) {
      throw new Error(`entries after ${entries.after} leave a gap: the cursor is at ${this.contiguous}`);
    }
    if (gap && !options.merging()) {
      throw new Error(`the merge ended before the stream that resumes after ${entries.after} began`);
    }
    if (gap && this.beyond !== undefined && entries.after > this.beyond.through) {
      throw new Error(`entries after ${entries.after} leave a gap behind ${this.beyond.through}`);
    }
    const mutations = entries.entries.map(({ key, record, requestId }): Mutation => {
      const decoded = decodeRecord(key, record);
      if (!options.clock.observe(decoded.version)) options.metrics.count('skewed_versions');
      return { key, record: decoded, own: false, ...(requestId === undefined ? {} : { requestId }) };
    });
    for (const { sequence, key } of entries.entries) options.tail.note({ sequence, key });
    options.tail.synced(entries.durableHead);
    options.metrics.count('entries_received', mutations.length);
    if (gap) {
      this.beyond ??= { after: entries.after, through: entries.through };
      this.beyond.through = Math.max(this.beyond.through, entries.through);
    } else {
      this.contiguous = Math.max(this.contiguous, entries.through);
    }
    this.apply(entries, mutations, gap);
  }

  private apply(entries: Entries, mutations: readonly Mutation[], gap: boolean): void {
    const result = this.options.store.apply(mutations, gap ? undefined : this.cursorAt(this.contiguous));
    const superseded = result.outcomes.flatMap((outcome, index) =>
      outcome.kind === 'superseded'
        ? [{ sequence: entries.entries[index]?.sequence ?? 0, version: outcome.by }]
        : [],
    );
    const group = { through: entries.through, superseded, contiguous: !gap, durable: false };
    void this.settle(group, result.durable);
  }

  /**
   * The peer's records were merged completely, as of `head` of its log. Resolves, when the cursor is durable, with
   * whether the stream goes on from there; false: it must begin anew.
   */
  async promote(head: number): Promise<boolean> {
    const joined = this.beyond === undefined || this.beyond.after <= head;
    this.contiguous = Math.max(this.contiguous, head, joined ? (this.beyond?.through ?? 0) : 0);
    if (joined) this.beyond = undefined;
    const group = { through: this.contiguous, superseded: [], contiguous: true, durable: false };
    const { durable } = this.options.store.apply([], this.cursorAt(this.contiguous));
    await Promise.all([durable, this.settle(group, durable)]);
    return joined;
  }

  stop(): void {
    this.stopped = true;
  }

  private cursorAt(sequence: number): LogCursor {
    return { origin: this.options.peer, incarnation: this.options.incarnation, sequence };
  }

  private async settle(group: Group, durable: Promise<void>): Promise<void> {
    this.groups.push(group);
    try {
      await durable;
    } catch {
      return; // The store has failed: nothing is acknowledged, and the node ends.
    }
    group.durable = true;
    if (group.contiguous) this.durableCursor = Math.max(this.durableCursor, group.through);
    this.acknowledge();
  }

  private acknowledge(): void {
    const before = this.unacked !== undefined;
    while (this.groups[0]?.durable === true) {
      const group = this.groups.shift();
      if (group === undefined) break;
      this.unacked ??= { through: 0, superseded: [], provisional: true };
      this.unacked.through = Math.max(this.unacked.through, group.through);
      this.unacked.superseded.push(...group.superseded);
      if (group.contiguous) this.unacked.provisional = false;
    }
    if (!before && this.unacked !== undefined) this.options.scheduler.soon(() => this.flush());
  }

  private flush(): void {
    const unacked = this.unacked;
    if (unacked === undefined || this.stopped) return;
    this.unacked = undefined;
    this.options.send({
      incarnation: this.options.incarnation,
      applied: unacked.through,
      superseded: unacked.superseded,
      provisional: unacked.provisional,
    });
  }
}
