import type { Scheduler } from '../../common/clock.ts';
import type { Ack, Entries, Superseded } from '../../proto/gen/peer.ts';
import { partitionOf } from '../../model/key-hash.ts';
import type { Version } from '../../model/version.ts';
import { decodeRecord } from '../storage/record.ts';
import type { LogCursor, Mutation, Store, StoredRecord } from '../storage/store.ts';
import type { HybridClock } from './hybrid-clock.ts';
import type { ReplicationMetrics } from './metrics.ts';
import type { RequestIndex } from './requests/request-index.ts';
import type { SafetyRules } from './safety-rules.ts';
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
  /** Whether this node keeps a partition, by the map held now. */
  readonly holds: (partition: number) => boolean;
  /** Whether it holds everything of a partition: where it does not, a write found nothing newer and yet may be beaten. */
  readonly isReadable: (partition: number) => boolean;
  /** What a record that must not come back is superseded by; undefined when it may be applied. */
  readonly collected: (key: Buffer, record: StoredRecord) => Version | undefined;
  /** A record was applied. */
  readonly onApplied: (key: Buffer, record: StoredRecord) => void;
  /** What is remembered of the writes that are held here, with nothing newer there when they came (PROTOCOL 8). */
  readonly writes: Pick<RequestIndex, 'note' | 'noteVersion' | 'hasStood'>;
  readonly rules: SafetyRules;
  readonly scheduler: Scheduler;
  readonly metrics: ReplicationMetrics;
  readonly send: (ack: Ack) => void;
}

/** An entry that is to be applied. */
interface WantedEntry {
  readonly sequence: number;
  /** Whether its standing here says something of the others: nothing that was here before is missing. */
  readonly isTelling: boolean;
}

interface Wanted {
  /** Of the mutations, in their order. */
  readonly entries: WantedEntry[];
  readonly mutations: Mutation[];
  readonly superseded: Superseded[];
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

  /** Entries before those that came on this stream are missing: only a comparison of all records brings them. */
  get hasGap(): boolean {
    return this.beyond !== undefined;
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
    if (gap && this.beyond !== undefined && entries.after > this.beyond.through) {
      throw new Error(`entries after ${entries.after} leave a gap behind ${this.beyond.through}`);
    }
    const wanted = this.decode(entries);
    options.tail.synced(entries.durableHead);
    options.metrics.count('entries_received', wanted.mutations.length);
    if (gap) {
      this.beyond ??= { after: entries.after, through: entries.through };
      this.beyond.through = Math.max(this.beyond.through, entries.through);
    } else {
      this.contiguous = Math.max(this.contiguous, entries.through);
    }
    this.apply(entries.through, wanted, gap);
  }

  /** What of the entries is to be applied, and what has been beaten before it came. */
  private decode({ entries }: Entries): Wanted {
    const { clock, metrics, store, tail, holds, isReadable, collected, writes } = this.options;
    const wanted: Wanted = { entries: [], mutations: [], superseded: [] };
    for (const { sequence, key, record, requestId } of entries) {
      const decoded = decodeRecord(key, record);
      if (!clock.observe(decoded.version)) metrics.count('skewed_versions');
      const { version } = decoded;
      tail.note({ sequence, key, version, requestId });
      // Sent by an older map: the answer carries the newer epoch, by which it counts for nothing.
      const partition = partitionOf(key, store.partitions);
      if (!holds(partition)) continue;
      const by = collected(key, decoded);
      if (by !== undefined) {
        if (!writes.hasStood(requestId, key, version)) wanted.superseded.push({ sequence, version: by });
        continue;
      }
      wanted.entries.push({ sequence, isTelling: isReadable(partition) });
      const id = requestId === undefined ? {} : { requestId };
      wanted.mutations.push({ key, record: decoded, own: false, ...id });
    }
    return wanted;
  }

  private apply(through: number, wanted: Wanted, gap: boolean): void {
    const { store, onApplied, writes } = this.options;
    const result = store.apply(wanted.mutations, gap ? undefined : this.cursorAt(this.contiguous));
    const superseded: Superseded[] = [];
    for (const [index, { key, record, requestId }] of wanted.mutations.entries()) {
      const outcome = result.outcomes[index];
      const entry = wanted.entries[index];
      if (outcome === undefined || entry === undefined) continue;
      if (outcome.kind === 'applied') onApplied(key, record);
      const { sequence, isTelling } = entry;
      const { version } = record;
      if (outcome.kind !== 'superseded') {
        if (isTelling && requestId !== undefined) writes.note(requestId, key, version);
        else if (isTelling) writes.noteVersion(version);
      } else if (!writes.hasStood(requestId, key, version)) {
        superseded.push({ sequence, version: outcome.by });
      }
    }
    const group: Group = {
      through,
      superseded: [...wanted.superseded, ...superseded],
      contiguous: !gap,
      durable: false,
    };
    void this.settle(group, this.options.rules.acknowledgeAfterSync ? result.durable : Promise.resolve());
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
