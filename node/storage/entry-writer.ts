import { crc32 } from 'node:zlib';
import { VERSION_BYTES, writeVersion, type Version } from '../../model/version.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import { ENTRY_HEAD_BYTES, FLAG, FRAME_BYTES, KIND } from './entry.ts';
import type { LogCursor, StoredRecord } from './store.ts';

/** Records from this size on are written from where they are; smaller ones are cheaper to copy than to list. */
const COPY_BELOW_BYTES = 8 * 1024;
const CHUNK_BYTES = 64 * 1024;
const MOST_FREE_CHUNKS = 16;
const NO_CHUNK: Buffer = Buffer.alloc(0);
const RECORD_FIELDS_BYTES = 2 + 2 + 4;
const REQUEST_ID_FIELDS_BYTES = 8 + 6 + 4 + 1;

/** A record about to be logged. */
export interface RecordToLog {
  readonly sequence: number;
  readonly own: boolean;
  readonly partition: number;
  readonly key: Buffer;
  readonly record: StoredRecord;
  readonly previous: Version | undefined;
  readonly requestId: RequestId | undefined;
}

/** Buffers that groups are encoded into, used again once a group is written: allocating them costs more than filling them. */
export class ChunkPool {
  private readonly free: Buffer[] = [];

  take(): Buffer {
    return this.free.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES);
  }

  /** Nobody reads what is in it any more. */
  giveBack(chunk: Buffer): void {
    if (this.free.length < MOST_FREE_CHUNKS) this.free.push(chunk);
  }
}

/** Encodes entries (entry.ts) one after the other into buffers for one write. */
export class EntryWriter {
  /** Bytes written so far. */
  bytes = 0;
  private readonly seed: number;
  private readonly pool: ChunkPool;
  /** Of the pool. */
  private readonly taken: Buffer[] = [];
  private readonly finished: Buffer[] = [];
  private chunk: Buffer = NO_CHUNK;
  /** Of the chunk: what is before `from` is in `finished`, what is before `at` is written. */
  private from = 0;
  private at = 0;

  constructor(seed: number, pool = new ChunkPool()) {
    this.seed = seed;
    this.pool = pool;
  }

  record(entry: RecordToLog): void {
    const { key, record, previous, requestId } = entry;
    const copied = record.bytes.length < COPY_BELOW_BYTES;
    const fields =
      RECORD_FIELDS_BYTES +
      (previous === undefined ? 0 : VERSION_BYTES) +
      (requestId === undefined ? 0 : REQUEST_ID_FIELDS_BYTES + requestId.clientId.length) +
      key.length;
    const flags =
      (entry.own ? FLAG.own : 0) |
      (previous === undefined ? 0 : FLAG.previous) |
      (requestId === undefined ? 0 : FLAG.requestId);
    const head = { kind: KIND.record, flags, sequence: entry.sequence };
    const start = this.begin(
      head,
      fields + (copied ? record.bytes.length : 0),
      copied ? 0 : record.bytes.length,
    );
    this.uint16(entry.partition);
    this.uint16(key.length);
    this.uint32(record.bytes.length);
    if (previous !== undefined) {
      writeVersion(previous, this.chunk, this.at);
      this.at += VERSION_BYTES;
    }
    if (requestId !== undefined) this.requestId(requestId);
    this.put(key);
    if (copied) {
      this.put(record.bytes);
      this.seal(start);
    } else {
      this.seal(start, record.bytes);
    }
  }

  cursor(sequence: number, cursor: LogCursor): void {
    const origin = Buffer.from(cursor.origin, 'utf8');
    const start = this.begin({ kind: KIND.cursor, flags: 0, sequence }, 6 + 6 + 2 + origin.length);
    this.uint48(cursor.incarnation);
    this.uint48(cursor.sequence);
    this.uint16(origin.length);
    this.put(origin);
    this.seal(start);
  }

  meta(sequence: number, name: string, value: Buffer): void {
    const nameBytes = Buffer.from(name, 'utf8');
    const start = this.begin(
      { kind: KIND.meta, flags: 0, sequence },
      2 + 4 + nameBytes.length + value.length,
    );
    this.uint16(nameBytes.length);
    this.uint32(value.length);
    this.put(nameBytes);
    this.put(value);
    this.seal(start);
  }

  cleanEnd(sequence: number): void {
    this.seal(this.begin({ kind: KIND.cleanEnd, flags: 0, sequence }, 0));
  }

  /** Everything written, in order. Nothing may be written afterwards. */
  finish(): readonly Buffer[] {
    this.flushChunk();
    return this.finished;
  }

  /** What was written is on disk: its buffers serve others. */
  release(): void {
    this.finished.length = 0;
    this.chunk = NO_CHUNK;
    for (const chunk of this.taken.splice(0)) this.pool.giveBack(chunk);
  }

  /** Writes frame and head for an entry with `local` further bytes in the chunk and `remote` bytes from elsewhere. */
  private begin(head: { kind: number; flags: number; sequence: number }, local: number, remote = 0): number {
    const total = FRAME_BYTES + ENTRY_HEAD_BYTES + local;
    if (this.chunk.length - this.at < total) {
      this.flushChunk();
      this.chunk = total > CHUNK_BYTES ? Buffer.allocUnsafeSlow(total) : this.takeChunk();
      this.from = 0;
      this.at = 0;
    }
    const start = this.at;
    this.at += 4;
    this.uint32(ENTRY_HEAD_BYTES + local + remote);
    this.chunk[this.at] = head.kind;
    this.chunk[this.at + 1] = head.flags;
    this.at += 2;
    this.uint48(head.sequence);
    this.bytes += total + remote;
    return start;
  }

  private takeChunk(): Buffer {
    const chunk = this.pool.take();
    this.taken.push(chunk);
    return chunk;
  }

  private seal(start: number, remote?: Buffer): void {
    let checksum = crc32(this.chunk.subarray(start + 4, this.at), this.seed);
    if (remote !== undefined) checksum = crc32(remote, checksum);
    this.chunk.writeUInt32BE(checksum, start);
    if (remote !== undefined) {
      this.flushChunk();
      this.finished.push(remote);
    }
  }

  private flushChunk(): void {
    if (this.at > this.from) this.finished.push(this.chunk.subarray(this.from, this.at));
    this.from = this.at;
  }

  private requestId(id: RequestId): void {
    this.uint32(Math.floor(id.number / 2 ** 32));
    this.uint32(id.number % 2 ** 32);
    this.uint48(id.clientStartMs);
    this.uint32(id.attempt);
    this.chunk[this.at] = id.clientId.length;
    this.at += 1;
    this.put(id.clientId);
  }

  private put(bytes: Buffer): void {
    this.chunk.set(bytes, this.at);
    this.at += bytes.length;
  }

  private uint16(value: number): void {
    this.at = this.chunk.writeUInt16BE(value, this.at);
  }

  private uint32(value: number): void {
    this.at = this.chunk.writeUInt32BE(value, this.at);
  }

  private uint48(value: number): void {
    this.at = this.chunk.writeUIntBE(value, this.at, 6);
  }
}
