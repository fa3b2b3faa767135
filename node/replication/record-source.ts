import { KvError } from '../../common/errors.ts';
import type { RecordPosition as WirePosition, RecordsChunk } from '../../proto/gen/peer.ts';
import { decodeRecord } from '../storage/record.ts';
import { partitionOf } from '../../model/key-hash.ts';
import type { KeyedRecord, RecordPosition } from '../storage/store.ts';

export interface RecordSourceOptions {
  readonly peer: string;
  /** Of the peer; a stream of another one is refused. */
  readonly incarnation: number;
  readonly partitions: number;
  /** Opens the peer's record stream after a place. */
  readonly open: (after: WirePosition | undefined, signal: AbortSignal) => AsyncIterable<RecordsChunk>;
  /** Waits before a broken stream is resumed. @throws when the peer is no longer a source. */
  readonly beforeResume: (error: unknown) => Promise<void>;
  readonly signal: AbortSignal;
}

/** The ordered records of one peer, one at a time; a stream that breaks is resumed where it was. */
export class RecordSource {
  readonly peer: string;
  readonly incarnation: number;
  private readonly options: RecordSourceOptions;
  private chunks: AsyncIterator<RecordsChunk> | undefined;
  private records: readonly KeyedRecord[] = [];
  private next = 0;
  private after: WirePosition | undefined;
  private firstHead: number | undefined;
  private complete = false;

  constructor(options: RecordSourceOptions) {
    this.options = options;
    this.peer = options.peer;
    this.incarnation = options.incarnation;
  }

  /** How far the peer's log was in its records when the first stream began: everything up to there has been seen. */
  get head(): number {
    return this.firstHead ?? 0;
  }

  /** The next record without taking it; undefined at the end. */
  async peek(): Promise<KeyedRecord | undefined> {
    while (this.next >= this.records.length && !this.complete) {
      try {
        await this.fetch();
      } catch (error) {
        if (this.options.signal.aborted) throw error;
        this.chunks = undefined;
        await this.options.beforeResume(error);
      }
    }
    return this.records[this.next];
  }

  /** Takes the record that `peek` showed. */
  take(): void {
    this.next += 1;
  }

  async close(): Promise<void> {
    await this.chunks?.return?.();
  }

  private async fetch(): Promise<void> {
    this.chunks ??= this.options.open(this.after, this.options.signal)[Symbol.asyncIterator]();
    const next: IteratorResult<RecordsChunk, unknown> = await this.chunks.next();
    if (next.done === true) {
      throw new KvError('UNAVAILABLE', `the record stream of ${this.peer} ended before its end`);
    }
    const chunk = next.value;
    if (chunk.incarnation !== this.incarnation) {
      throw new KvError('ABORTED', `${this.peer} is another incarnation by now`);
    }
    this.firstHead ??= chunk.head;
    this.records = chunk.records.map(({ key, record }) => ({ key, record: decodeRecord(key, record) }));
    this.next = 0;
    this.after = chunk.last ?? this.after;
    this.complete = chunk.complete;
  }

  /** Order in which all sources stream. */
  positionOf({ key }: KeyedRecord): RecordPosition {
    return { partition: partitionOf(key, this.options.partitions), key };
  }
}

/** (partition, key) order. */
export function comparePositions(a: RecordPosition, b: RecordPosition): number {
  return a.partition - b.partition || Buffer.compare(a.key, b.key);
}
