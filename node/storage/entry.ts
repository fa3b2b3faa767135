import { crc32 } from 'node:zlib';
import { messageOf } from '../../common/errors.ts';
import { readVersion, VERSION_BYTES, type Version } from '../../model/version.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import { decodeRecord } from './record.ts';
import type { LogCursor, StoredRecord } from './store.ts';
import { StoreCorrupt, StoreUnsupported } from './store-errors.ts';

/**
 * What a segment of the apply log is made of. All integers are big-endian:
 *
 *     entry   CRC-32 u32 | length u32 | kind u8 | flags u8 | sequence u48 | what the kind adds
 *     group   magic 8 B | offset in the file u48 | sequence ceiling u48 | clock ceiling ms u48
 *     record  partition u16 | key length u16 | record length u32 | previous version 14 B, if flagged
 *             | request id, if flagged | key | record (record.ts)
 *             request id: number u64 | client start ms u48 | attempt u32 | length of client id u8 | client id
 *     cursor  incarnation u48 | origin's sequence u48 | origin length u16 | origin
 *     meta    name length u16 | value length u32 | name | value
 *     clean end, nothing more
 *
 * `length` counts what follows it. The checksum starts from the checksum of the store's id and covers everything
 * after itself, so that nothing of another store passes.
 *
 * Entries are written in groups, one write and one sync each, and a group is only begun when the one before it is
 * synced. So the first entry of each group, `group`, proves that everything before it was synced: damage that a valid
 * group follows is corruption, damage in the last group is a write that a crash tore (segment-scan.ts).
 * `group` also carries the ceilings (ceilings.ts), so that every sync renews them and every segment repeats them.
 *
 * Records, cursors and metas each take a sequence of their own. A group has the sequence before its first entry, and a
 * clean end the last one used.
 */
export type LogEntry = RecordEntry | CursorEntry | MetaEntry;

export interface RecordEntry {
  readonly kind: 'record';
  readonly sequence: number;
  readonly own: boolean;
  readonly partition: number;
  readonly key: Buffer;
  readonly record: StoredRecord;
  /** What the record replaced. */
  readonly previous: Version | undefined;
  readonly requestId: RequestId | undefined;
}

export interface CursorEntry {
  readonly kind: 'cursor';
  readonly sequence: number;
  readonly cursor: LogCursor;
}

export interface MetaEntry {
  readonly kind: 'meta';
  readonly sequence: number;
  readonly name: string;
  readonly value: Buffer;
}

/** How far sequences and clock are reserved. */
export interface CeilingValues {
  readonly sequence: number;
  readonly clockMs: number;
}

export const KIND = { group: 1, record: 2, cursor: 3, meta: 4, cleanEnd: 5 } as const;
export const FLAG = { own: 1, previous: 2, requestId: 4 } as const;
const KNOWN_FLAGS = FLAG.own | FLAG.previous | FLAG.requestId;

/** CRC-32 and length. */
export const FRAME_BYTES = 8;
/** Kind, flags, sequence. */
export const ENTRY_HEAD_BYTES = 8;
export const GROUP_BYTES = FRAME_BYTES + ENTRY_HEAD_BYTES + 8 + 18;
const GROUP_MAGIC = Buffer.from('\x89KVgroup', 'latin1');
const GROUP_MAGIC_OFFSET = FRAME_BYTES + ENTRY_HEAD_BYTES;

/** A checked entry in a buffer, not decoded yet. */
export interface Frame {
  readonly kind: number;
  readonly flags: number;
  readonly sequence: number;
  /** Where the entry begins. */
  readonly start: number;
  /** Where the next one begins. */
  readonly end: number;
}

/** What the checksums of a store's entries start from. */
export function entrySeed(storeId: Uint8Array): number {
  return crc32(storeId);
}

/**
 * Checks the entry at `start`: undefined when it is damaged or incomplete.
 *
 * @throws StoreUnsupported when it is sound and of an unknown kind.
 */
export function readFrame(bytes: Buffer, start: number, seed: number): Frame | undefined {
  const bodyStart = start + FRAME_BYTES;
  if (bytes.length < bodyStart + ENTRY_HEAD_BYTES) return undefined;
  const end = bodyStart + bytes.readUInt32BE(start + 4);
  if (end > bytes.length || end < bodyStart + ENTRY_HEAD_BYTES) return undefined;
  if (crc32(bytes.subarray(start + 4, end), seed) !== bytes.readUInt32BE(start)) return undefined;
  const kind = bytes.readUInt8(bodyStart);
  const flags = bytes.readUInt8(bodyStart + 1);
  if (kind < KIND.group || kind > KIND.cleanEnd || (flags & ~KNOWN_FLAGS) !== 0) {
    throw new StoreUnsupported(
      `log entry of kind ${kind} (flags ${flags}) was written by a newer version: use that version`,
    );
  }
  return { kind, flags, sequence: bytes.readUIntBE(bodyStart + 2, 6), start, end };
}

/** Bytes that `readFrame` needs at `start`, as far as `bytes` tells. */
export function frameBytes(bytes: Buffer, start: number): number {
  return bytes.length < start + FRAME_BYTES ? FRAME_BYTES : FRAME_BYTES + bytes.readUInt32BE(start + 4);
}

/** The first entry of a group, as it stands at `offset` of its segment. */
export function encodeGroup(
  group: { sequence: number; offset: number; ceilings: CeilingValues },
  seed: number,
): Buffer {
  const bytes = Buffer.alloc(GROUP_BYTES);
  bytes.writeUInt32BE(GROUP_BYTES - FRAME_BYTES, 4);
  bytes.writeUInt8(KIND.group, FRAME_BYTES);
  bytes.writeUIntBE(group.sequence, FRAME_BYTES + 2, 6);
  GROUP_MAGIC.copy(bytes, GROUP_MAGIC_OFFSET);
  let at = GROUP_MAGIC_OFFSET + GROUP_MAGIC.length;
  for (const value of [group.offset, group.ceilings.sequence, group.ceilings.clockMs]) {
    bytes.writeUIntBE(value, at, 6);
    at += 6;
  }
  bytes.writeUInt32BE(crc32(bytes.subarray(4), seed), 0);
  return bytes;
}

/** The ceilings that a group carries; undefined when it was written for another place. `offset` of `bytes` in the file. */
export function decodeGroup(bytes: Buffer, frame: Frame, offset = 0): CeilingValues | undefined {
  const at = frame.start + GROUP_MAGIC_OFFSET;
  if (frame.kind !== KIND.group || frame.end - frame.start !== GROUP_BYTES) return undefined;
  if (!bytes.subarray(at, at + 8).equals(GROUP_MAGIC)) return undefined;
  if (bytes.readUIntBE(at + 8, 6) !== offset + frame.start) return undefined;
  return { sequence: bytes.readUIntBE(at + 14, 6), clockMs: bytes.readUIntBE(at + 20, 6) };
}

/** Whether a valid group begins anywhere after `start`. `bytes` is a segment from its beginning. */
export function groupFollows(bytes: Buffer, start: number, seed: number): boolean {
  let at = bytes.indexOf(GROUP_MAGIC, start + 1 + GROUP_MAGIC_OFFSET);
  while (at >= 0) {
    // Clients choose what values hold: checksums over a length that one of them made up would take hours.
    const head = at - GROUP_MAGIC_OFFSET;
    const frame = frameBytes(bytes, head) === GROUP_BYTES ? readFrame(bytes, head, seed) : undefined;
    if (frame !== undefined && decodeGroup(bytes, frame) !== undefined) return true;
    at = bytes.indexOf(GROUP_MAGIC, at + 1);
  }
  return false;
}

/**
 * Reads a record, cursor or meta; undefined for the other kinds. The result refers to `bytes`.
 *
 * @throws StoreCorrupt when a sound checksum covers nonsense.
 */
export function decodeEntry(bytes: Buffer, frame: Frame): LogEntry | undefined {
  if (frame.kind !== KIND.record && frame.kind !== KIND.cursor && frame.kind !== KIND.meta) return undefined;
  try {
    const reader = new BodyReader(bytes, frame);
    const entry =
      frame.kind === KIND.record
        ? decodeRecordEntry(reader, frame)
        : frame.kind === KIND.cursor
          ? decodeCursorEntry(reader, frame)
          : decodeMetaEntry(reader, frame);
    reader.expectEnd();
    return entry;
  } catch (error) {
    if (error instanceof StoreUnsupported) throw error;
    throw new StoreCorrupt(`log entry ${frame.sequence} cannot be decoded: ${messageOf(error)}`, error);
  }
}

function decodeRecordEntry(reader: BodyReader, frame: Frame): RecordEntry {
  const partition = reader.uint(2);
  const keyLength = reader.uint(2);
  const recordLength = reader.uint(4);
  const previous =
    (frame.flags & FLAG.previous) === 0 ? undefined : readVersion(reader.take(VERSION_BYTES), 0);
  const requestId = (frame.flags & FLAG.requestId) === 0 ? undefined : decodeRequestId(reader);
  const key = reader.take(keyLength);
  return {
    kind: 'record',
    sequence: frame.sequence,
    own: (frame.flags & FLAG.own) !== 0,
    partition,
    key,
    record: decodeRecord(key, reader.take(recordLength)),
    previous,
    requestId,
  };
}

function decodeRequestId(reader: BodyReader): RequestId {
  const number = reader.uint(4) * 2 ** 32 + reader.uint(4);
  const clientStartMs = reader.uint(6);
  const attempt = reader.uint(4);
  return { number, clientStartMs, attempt, clientId: reader.take(reader.uint(1)) };
}

function decodeCursorEntry(reader: BodyReader, frame: Frame): CursorEntry {
  const incarnation = reader.uint(6);
  const sequence = reader.uint(6);
  const origin = reader.take(reader.uint(2)).toString('utf8');
  return { kind: 'cursor', sequence: frame.sequence, cursor: { origin, incarnation, sequence } };
}

function decodeMetaEntry(reader: BodyReader, frame: Frame): MetaEntry {
  const nameLength = reader.uint(2);
  const valueLength = reader.uint(4);
  const name = reader.take(nameLength).toString('utf8');
  return { kind: 'meta', sequence: frame.sequence, name, value: reader.take(valueLength) };
}

class BodyReader {
  private readonly bytes: Buffer;
  private readonly end: number;
  private at: number;

  constructor(bytes: Buffer, frame: Frame) {
    this.bytes = bytes;
    this.at = frame.start + FRAME_BYTES + ENTRY_HEAD_BYTES;
    this.end = frame.end;
  }

  take(length: number): Buffer {
    if (this.at + length > this.end) throw new RangeError('entry is too short');
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  uint(length: number): number {
    return this.take(length).readUIntBE(0, length);
  }

  expectEnd(): void {
    if (this.at !== this.end) throw new RangeError('entry is too long');
  }
}
