import { crc32 } from 'node:zlib';
import { LEAVES } from './digest.ts';
import { emptyLeaves, type StoredLeaves } from './digests.ts';
import type { CeilingValues } from './entry.ts';
import { STORE_ID_BYTES } from './segment.ts';
import type { LogCursor } from './store.ts';
import { StoreCorrupt, StoreUnsupported } from './store-errors.ts';

/**
 * The named values that the store keeps in its state. Each ends with a CRC-32 over its name and what precedes, and the
 * store's own begin with a format byte; integers are big-endian:
 *
 *     store            2 | store id 16 B | partitions u32
 *     applied          1 | sequence u48 | head u48 | sequence ceiling u48 | clock ceiling ms u48
 *     cursor/<incarnation, 12 hex digits>/<origin>    1 | sequence u48
 *     digest/<partition>    1 | unsure u8 | 256 sums u48 (digest.ts)
 *     user/<name>      as the caller wrote it
 */
export interface StoreIdentity {
  readonly storeId: Buffer;
  readonly partitions: number;
}

/** How far the state is: everything of the log up to `sequence`. */
export interface Applied {
  readonly sequence: number;
  /** Sequence of the newest own record. */
  readonly head: number;
  readonly ceilings: CeilingValues;
}

const FORMAT = 1;
/** Format 1 kept no digests. */
const STORE_FORMAT = 2;
export const STORE_NAME = 'store';
export const APPLIED_NAME = 'applied';
const CURSOR_PREFIX = 'cursor/';
const DIGEST_PREFIX = 'digest/';
const USER_PREFIX = 'user/';
const INCARNATION_DIGITS = 12;

export function encodeIdentity(identity: StoreIdentity): Buffer {
  const bytes = Buffer.alloc(1 + STORE_ID_BYTES + 4);
  bytes.writeUInt8(STORE_FORMAT, 0);
  identity.storeId.copy(bytes, 1);
  bytes.writeUInt32BE(identity.partitions, 1 + STORE_ID_BYTES);
  return bytes;
}

export function decodeIdentity(bytes: Buffer): StoreIdentity {
  if (bytes[0] === 1) {
    throw new StoreUnsupported(
      'the store was made by a version that was never released: start with a blank one',
    );
  }
  checkFormat(STORE_NAME, bytes, 1 + STORE_ID_BYTES + 4, STORE_FORMAT);
  return {
    storeId: Buffer.from(bytes.subarray(1, 1 + STORE_ID_BYTES)),
    partitions: bytes.readUInt32BE(1 + STORE_ID_BYTES),
  };
}

export function encodeApplied(applied: Applied): Buffer {
  const bytes = Buffer.alloc(25);
  bytes.writeUInt8(FORMAT, 0);
  bytes.writeUIntBE(applied.sequence, 1, 6);
  bytes.writeUIntBE(applied.head, 7, 6);
  bytes.writeUIntBE(applied.ceilings.sequence, 13, 6);
  bytes.writeUIntBE(applied.ceilings.clockMs, 19, 6);
  return bytes;
}

export function decodeApplied(bytes: Buffer): Applied {
  checkFormat(APPLIED_NAME, bytes, 25);
  return {
    sequence: bytes.readUIntBE(1, 6),
    head: bytes.readUIntBE(7, 6),
    ceilings: { sequence: bytes.readUIntBE(13, 6), clockMs: bytes.readUIntBE(19, 6) },
  };
}

/** The name a cursor is kept under: one for each origin and incarnation. */
export function cursorName(cursor: { origin: string; incarnation: number }): string {
  return `${CURSOR_PREFIX}${cursor.incarnation.toString(16).padStart(INCARNATION_DIGITS, '0')}/${cursor.origin}`;
}

export function encodeCursor(cursor: LogCursor): Buffer {
  const bytes = Buffer.alloc(7);
  bytes.writeUInt8(FORMAT, 0);
  bytes.writeUIntBE(cursor.sequence, 1, 6);
  return bytes;
}

/** Reads a cursor from its name and value; undefined when the name is not one of a cursor. */
export function decodeCursor(name: string, bytes: Buffer): LogCursor | undefined {
  if (!name.startsWith(CURSOR_PREFIX)) return undefined;
  checkFormat(name, bytes, 7);
  const digits = name.slice(CURSOR_PREFIX.length, CURSOR_PREFIX.length + INCARNATION_DIGITS);
  return {
    origin: name.slice(CURSOR_PREFIX.length + INCARNATION_DIGITS + 1),
    incarnation: Number.parseInt(digits, 16),
    sequence: bytes.readUIntBE(1, 6),
  };
}

export function digestName(partition: number): string {
  return `${DIGEST_PREFIX}${partition}`;
}

export function encodeDigest({ leaves, unsure }: StoredLeaves): Buffer {
  const bytes = Buffer.allocUnsafe(2 + LEAVES * 6);
  bytes.writeUInt8(FORMAT, 0);
  bytes.writeUInt8(unsure ? 1 : 0, 1);
  leaves.forEach((sum, leaf) => bytes.writeUIntBE(sum, 2 + leaf * 6, 6));
  return bytes;
}

/** Reads a digest from its name and value; undefined when the name is not one of a digest. */
export function decodeDigest(
  name: string,
  bytes: Buffer,
): (StoredLeaves & { partition: number }) | undefined {
  if (!name.startsWith(DIGEST_PREFIX)) return undefined;
  checkFormat(name, bytes, 2 + LEAVES * 6);
  const leaves = emptyLeaves();
  for (let leaf = 0; leaf < LEAVES; leaf += 1) leaves[leaf] = bytes.readUIntBE(2 + leaf * 6, 6);
  return { partition: Number(name.slice(DIGEST_PREFIX.length)), leaves, unsure: bytes[1] !== 0 };
}

/** The name that a caller's value is kept under. */
export function userName(name: string): string {
  return USER_PREFIX + name;
}

/** The caller's name; undefined when the value is the store's own. */
export function nameOfUser(name: string): string | undefined {
  return name.startsWith(USER_PREFIX) ? name.slice(USER_PREFIX.length) : undefined;
}

const CHECKSUM_BYTES = 4;

/** A value with the checksum it is kept with. */
export function sealMeta(name: string, value: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(value.length + CHECKSUM_BYTES);
  value.copy(bytes);
  bytes.writeUInt32BE(crc32(value, crc32(name)), value.length);
  return bytes;
}

/**
 * The value that `sealMeta` sealed.
 *
 * @throws StoreCorrupt when the checksum does not fit.
 */
export function unsealMeta(name: string, bytes: Buffer): Buffer {
  const end = bytes.length - CHECKSUM_BYTES;
  const value = bytes.subarray(0, Math.max(0, end));
  if (end < 0 || bytes.readUInt32BE(end) !== crc32(value, crc32(name))) {
    throw new StoreCorrupt(`state value ${name} fails its checksum`);
  }
  return value;
}

function checkFormat(name: string, bytes: Buffer, length: number, format = FORMAT): void {
  if (bytes[0] !== undefined && bytes[0] > format) {
    throw new StoreUnsupported(
      `state value ${name} has format ${bytes[0]}, written by a newer version: use that one`,
    );
  }
  if (bytes[0] !== format || bytes.length !== length)
    throw new StoreCorrupt(`state value ${name} is damaged`);
}
