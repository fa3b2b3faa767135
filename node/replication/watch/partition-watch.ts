import type { Clock, Scheduler } from '../../../common/clock.ts';
import { prefixEnd } from '../../../common/bytes.ts';
import { KvError } from '../../../common/errors.ts';
import type { KeyedRecord, Store } from '../../storage/store.ts';
import type { LogContinuity } from './log-continuity.ts';
import type { LogReads } from './log-reads.ts';
import type { Marks } from './marks.ts';
import { RisingMarks } from './rising-marks.ts';
import type { Turns } from './turns.ts';

/** Where the telling of some partitions begins. */
export type WatchStart =
  /** With what is synced from now on. */
  | { readonly kind: 'now' }
  /** After a place in the log of this incarnation. */
  | { readonly kind: 'log'; readonly incarnation: number; readonly sequence: number }
  /** With every stored record that is not below its partition's mark. */
  | { readonly kind: 'state' };

export interface PartitionWatchRequest {
  readonly prefix: Buffer;
  readonly start: WatchStart;
  /** The partitions, with how far they have been told. */
  readonly marks: Marks;
}

/** One step of telling. */
export interface WatchPiece {
  readonly incarnation: number;
  /** The log has been told through here; undefined while stored records are being told. */
  readonly sequence: number | undefined;
  readonly records: readonly KeyedRecord[];
  /** Those that have risen. */
  readonly marks: Marks;
}

export interface PartitionWatchOptions {
  readonly nodeId: string;
  readonly store: Pick<Store, 'scan' | 'head' | 'syncedThrough' | 'onSync'>;
  readonly reads: Pick<LogReads, 'read'>;
  readonly continuity: Pick<LogContinuity, 'since' | 'generation'>;
  readonly incarnation: () => number;
  /**
   * Every version of the partition with a lower wall clock is held by all its replicas, whoever wrote it, and none will be
   * minted below any more, milliseconds; 0: not known.
   */
  readonly lowWaterMs: (partition: number) => number;
  /** Tombstones and expired records of the partition with a lower version may have been collected here, milliseconds. */
  readonly horizonMs: (partition: number) => number;
  readonly turns: Turns;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  /** Something comes at least this often, milliseconds. */
  readonly beatMs: number;
  /** Bytes of records in a piece; one larger record makes a piece of its own. */
  readonly pieceBytes: number;
}

/** Records looked at in one turn while stored ones are told. */
const RECORDS_PER_TURN = 256;
const NO_RECORDS: readonly KeyedRecord[] = [];
const NO_MARKS: Marks = new Map();

/**
 * Tells the changes of some partitions that this node serves, by its own log, read no faster than they are taken
 * (PROTOCOL 18). Whoever falls behind falls behind in the log; nothing is kept for it.
 *
 * Ends only by error: UNAVAILABLE when a partition is not served here any more; OUT_OF_RANGE when the log cannot tell
 * what came after the place asked for, or, from the state, when collection has passed a mark.
 */
export class PartitionWatch {
  private readonly options: PartitionWatchOptions;
  private readonly request: PartitionWatchRequest;
  private readonly signal: AbortSignal;
  private readonly incarnation: number;
  /** Since when the log is complete, for each partition, as it was at the beginning. */
  private readonly since: ReadonlyMap<number, number | undefined>;
  private generation: number;
  private lastPieceMs: number;

  constructor(options: PartitionWatchOptions, request: PartitionWatchRequest, signal: AbortSignal) {
    this.options = options;
    this.request = request;
    this.signal = signal;
    this.incarnation = options.incarnation();
    this.since = new Map(
      [...request.marks.keys()].map((partition) => [partition, options.continuity.since(partition)]),
    );
    this.generation = options.continuity.generation;
    this.lastPieceMs = options.clock.monotonicMs();
  }

  async *pieces(): AsyncGenerator<WatchPiece, never, undefined> {
    const { store } = this.options;
    const { start } = this.request;
    this.signal.throwIfAborted();
    if (![...this.since.values()].every((since) => since !== undefined)) throw this.notServed();
    // What is synced after this comes by the log; what was synced before is in what a scan sees.
    const position = start.kind === 'log' ? this.placeInLog(start) : store.syncedThrough;
    if (start.kind === 'state') yield* this.stored();
    return yield* this.logged(position);
  }

  /** @throws KvError OUT_OF_RANGE when this log does not tell everything after the place. */
  private placeInLog({ incarnation, sequence }: { incarnation: number; sequence: number }): number {
    const complete = [...this.since.values()].every((since) => since !== undefined && since <= sequence);
    if (incarnation === this.incarnation && sequence <= this.options.store.syncedThrough && complete) {
      return sequence;
    }
    throw new KvError('OUT_OF_RANGE', `the log of ${this.options.nodeId} does not go on after that place`);
  }

  private async *logged(begin: number): AsyncGenerator<WatchPiece, never, undefined> {
    const { store, reads, lowWaterMs, beatMs } = this.options;
    const marks = new RisingMarks(this.request.marks, lowWaterMs);
    let position = begin;
    let sampledMs = -Infinity;
    let records = NO_RECORDS;
    for (let first = true; ; first = false) {
      this.check();
      const nowMs = this.options.clock.monotonicMs();
      if (nowMs - sampledMs >= beatMs) {
        sampledMs = nowMs;
        // Of an own entry that is not synced here yet the other replicas may know.
        marks.sample(Math.max(store.syncedThrough, store.head));
      }
      const risen = marks.reached(position);
      if (first || records.length > 0 || risen !== undefined || this.isBeatDue()) {
        yield this.piece({ sequence: position, records, marks: risen ?? NO_MARKS });
      }
      records = NO_RECORDS;
      if (position < store.syncedThrough) {
        const { through, entries } = await reads.read(position);
        position = through;
        records = entries.filter(
          ({ key, partition }) => this.since.has(partition) && startsWith(key, this.request.prefix),
        );
      } else {
        await this.moreOrBeat(position);
      }
    }
  }

  /** Every stored record that is not below the mark of its partition. */
  private async *stored(): AsyncGenerator<WatchPiece, void, undefined> {
    const { pieceBytes, horizonMs } = this.options;
    if ([...this.request.marks].some(([partition, markMs]) => horizonMs(partition) > markMs))
      throw collected();
    let records: KeyedRecord[] = [];
    let bytes = 0;
    for (const [partition, markMs] of this.request.marks) {
      for await (const page of this.scanned(partition, markMs)) {
        for (const found of page) {
          if (found.record.version.wallMs < markMs) continue;
          const size = found.key.length + found.record.bytes.length;
          if (records.length > 0 && bytes + size > pieceBytes) {
            yield this.piece({ sequence: undefined, records, marks: NO_MARKS });
            records = [];
            bytes = 0;
          }
          records.push(found);
          bytes += size;
        }
        if (this.isBeatDue()) {
          yield this.piece({ sequence: undefined, records, marks: NO_MARKS });
          records = [];
          bytes = 0;
        }
      }
    }
    if (records.length > 0) yield this.piece({ sequence: undefined, records, marks: NO_MARKS });
  }

  private async *scanned(
    partition: number,
    markMs: number,
  ): AsyncGenerator<readonly KeyedRecord[], void, undefined> {
    const { store, turns, pieceBytes } = this.options;
    const { prefix } = this.request;
    const bounds = prefix.length === 0 ? {} : { from: prefix, before: prefixEnd(prefix) };
    let after: Buffer | undefined;
    for (;;) {
      await turns.next();
      this.check();
      const page = await store.scan(partition, {
        ...bounds,
        after,
        limit: RECORDS_PER_TURN,
        maxBytes: pieceBytes,
      });
      // Afterwards: a horizon is in force before anything is collected by it.
      if (this.options.horizonMs(partition) > markMs) throw collected();
      yield page;
      after = page.at(-1)?.key;
      const bytes = page.reduce((sum, { key, record }) => sum + key.length + record.bytes.length, 0);
      if (page.length < RECORDS_PER_TURN && bytes < pieceBytes) return;
    }
  }

  private piece(piece: Omit<WatchPiece, 'incarnation'>): WatchPiece {
    this.lastPieceMs = this.options.clock.monotonicMs();
    return { incarnation: this.incarnation, ...piece };
  }

  private isBeatDue(): boolean {
    return this.options.clock.monotonicMs() - this.lastPieceMs >= this.options.beatMs;
  }

  /** @throws KvError UNAVAILABLE when the log of this node may have a gap in one of the partitions. */
  private check(): void {
    this.signal.throwIfAborted();
    const { continuity, incarnation } = this.options;
    if (incarnation() !== this.incarnation) throw this.notServed();
    if (continuity.generation === this.generation) return;
    const same = [...this.since].every(([partition, since]) => continuity.since(partition) === since);
    if (!same) throw this.notServed();
    this.generation = continuity.generation;
  }

  private notServed(): KvError {
    return new KvError('UNAVAILABLE', `${this.options.nodeId} does not serve all of these partitions`);
  }

  /** Resolves when more of the log is synced, a beat is due, or nobody waits any more. */
  private moreOrBeat(position: number): Promise<void> {
    const { store, scheduler, clock, beatMs } = this.options;
    return new Promise((resolve) => {
      const done = (): void => {
        timer.cancel();
        unsubscribe();
        this.signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = scheduler.after(this.lastPieceMs + beatMs - clock.monotonicMs(), done);
      const unsubscribe = store.onSync(done);
      this.signal.addEventListener('abort', done, { once: true });
      if (this.signal.aborted || store.syncedThrough > position) done();
    });
  }
}

function startsWith(key: Buffer, prefix: Buffer): boolean {
  return key.length >= prefix.length && key.compare(prefix, 0, prefix.length, 0, prefix.length) === 0;
}

function collected(): KvError {
  return new KvError(
    'OUT_OF_RANGE',
    'deletes since the place of the token may have been collected: scan again, and watch without a token',
  );
}
