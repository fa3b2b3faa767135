import type { Scheduler } from '../../common/clock.ts';
import { partitionOf } from '../../model/key-hash.ts';
import type { Version } from '../../model/version.ts';
import type { Ack, Entries } from '../../proto/gen/peer.ts';
import type { LogSlice, Store } from '../storage/store.ts';
import type { LogFloor } from './log-floor.ts';
import type { ReplicationMetrics } from './metrics.ts';
import type { OwnLog } from './own-log.ts';
import type { PendingWrites } from './pending-writes.ts';
import type { ReplicationSettings } from './settings.ts';

export interface LogSenderOptions {
  readonly peer: string;
  readonly store: Store;
  readonly ownLog: OwnLog;
  readonly floor: LogFloor;
  /** Own incarnation. */
  readonly incarnation: number;
  readonly pending: PendingWrites;
  readonly scheduler: Scheduler;
  readonly settings: Pick<ReplicationSettings, 'entriesFrameBytes' | 'maxUnackedBytes'>;
  readonly metrics: ReplicationMetrics;
  /** Whether the peer keeps a partition, by the map held now. */
  readonly holds: (partition: number) => boolean;
  /** Whether an entry is of a key that has been collected since: nobody needs it any more. */
  readonly isOutlived: (key: Buffer) => boolean;
  /** Where the peer's copy of the log ends; a peer that merges everything gets what comes from now on instead. */
  readonly start: { readonly after: number; readonly provisional: boolean };
  /** False when the stream is full. */
  readonly send: (entries: Entries) => boolean;
  /** The peer durably holds everything through this sequence. */
  readonly onAcknowledged: (sequence: number) => void;
  /** The log no longer has the peer's place: the stream must begin anew. */
  readonly onLost: (reason: Error) => void;
}

/** Streams the own entries of the log to one peer, from its cursor on, bounded in what is not yet acknowledged. */
export class LogSender {
  private readonly options: LogSenderOptions;
  private readonly unsubscribe: () => void;
  private sent: number;
  private acknowledgedThrough: number;
  private provisional: boolean;
  private readonly unacked: { readonly through: number; readonly bytes: number }[] = [];
  private unackedBytes = 0;
  private busy = false;
  private scheduled = false;
  private streamFull = false;
  private stopped = false;

  constructor(options: LogSenderOptions) {
    this.options = options;
    this.sent = options.start.after;
    this.provisional = options.start.provisional;
    this.acknowledgedThrough = this.provisional ? 0 : options.start.after;
    if (!this.provisional) {
      options.pending.passed(options.peer, options.start.after);
      options.onAcknowledged(options.start.after);
    }
    // Where the gap ends must be known to the peer before it decides that a merge has closed it.
    else this.sendSlice({ after: this.sent, through: this.sent, entries: [] });
    this.unsubscribe = options.store.onAppend(() => this.schedule());
    this.schedule();
  }

  /** The peer holds everything through this sequence; 0 while it merges. */
  get acknowledged(): number {
    return this.acknowledgedThrough;
  }

  onDrain(): void {
    this.streamFull = false;
    this.schedule();
  }

  onAck(ack: Ack): void {
    const { options } = this;
    if (ack.incarnation !== options.incarnation) return;
    if (ack.applied > options.store.head) {
      throw new Error(
        `entries through ${ack.applied} were acknowledged, and the log ends at ${options.store.head}`,
      );
    }
    while (this.unacked[0] !== undefined && this.unacked[0].through <= ack.applied) {
      this.unackedBytes -= this.unacked.shift()?.bytes ?? 0;
    }
    const superseded = new Map<number, Version>();
    for (const { sequence, version } of ack.superseded) {
      if (version !== undefined) superseded.set(sequence, version);
    }
    const through = Math.min(ack.applied, this.sent);
    if (!ack.provisional) {
      // What lies before this stream's beginning was merged from record streams, not acknowledged entry by entry.
      if (this.provisional) options.pending.passed(options.peer, options.start.after);
      this.provisional = false;
      this.acknowledgedThrough = Math.max(this.acknowledgedThrough, ack.applied);
      options.onAcknowledged(this.acknowledgedThrough);
    }
    options.pending.acknowledged(options.peer, options.start.after, through, superseded);
    this.schedule();
  }

  stop(): void {
    this.stopped = true;
    this.unsubscribe();
  }

  /** At the end of this turn, so that what is appended together travels together. */
  private schedule(): void {
    if (this.scheduled || this.stopped) return;
    this.scheduled = true;
    this.options.scheduler.soon(() => {
      this.scheduled = false;
      this.pump().catch((error: unknown) => {
        if (!this.stopped) this.options.onLost(error instanceof Error ? error : new Error(String(error)));
      });
    });
  }

  private get ready(): boolean {
    return !this.stopped && !this.streamFull && this.unackedBytes < this.options.settings.maxUnackedBytes;
  }

  private async pump(): Promise<void> {
    const { store, floor, settings } = this.options;
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.ready && this.sent < store.head) {
        if (this.sent < floor.sequence) {
          throw new Error(`own entries after ${this.sent}, the peer's place, were dropped from the log`);
        }
        const slice = await store.readLog(Math.max(this.sent, store.logStart), settings.entriesFrameBytes);
        if (this.stopped || slice.through <= this.sent) return;
        this.sendSlice(slice);
      }
    } finally {
      this.busy = false;
    }
  }

  private sendSlice(slice: LogSlice): void {
    const { store, ownLog, metrics, send, holds, isOutlived, pending, peer } = this.options;
    let bytes = 0;
    const entries = slice.entries.flatMap(({ sequence, key, record, requestId }) => {
      // The peer passes over what it does not keep (PROTOCOL 14).
      if (!holds(partitionOf(key, store.partitions))) {
        pending.skipped(peer, sequence);
        return [];
      }
      if (isOutlived(key)) return [];
      pending.sent(peer, sequence);
      bytes += key.length + record.bytes.length;
      return [{ sequence, key, record: record.bytes, requestId }];
    });
    this.unacked.push({ through: slice.through, bytes });
    this.unackedBytes += bytes;
    const after = this.sent;
    this.sent = slice.through;
    metrics.count('entries_sent', entries.length);
    this.streamFull = !send({
      after,
      through: slice.through,
      entries,
      provisional: this.provisional,
      durableHead: ownLog.durableHead,
    });
  }
}
