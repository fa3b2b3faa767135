import { crc32 } from 'node:zlib';
import { KvError } from '../../common/errors.ts';
import { readVersion, VERSION_BYTES, writeVersion, type Version } from '../../model/version.ts';
import type { StoredRecord } from './store.ts';
import { StoreUnsupported } from './store-errors.ts';

/**
 * The encoded form of a record, the same in log, state, on the wire between peers and in backups. All integers are
 * big-endian:
 *
 *     format u8 = 1 | flags u8 | version 14 B | expiry u48, if flagged | value | CRC-32 u32
 *
 * The checksum covers the key and then everything before it, so that a record under another key does not pass. It is
 * the last four bytes in every format, so that a reader can tell damage from a format it does not know.
 */
const FORMAT = 1;
const FLAG_TOMBSTONE = 1;
const FLAG_EXPIRES = 2;
const KNOWN_FLAGS = FLAG_TOMBSTONE | FLAG_EXPIRES;

const VERSION_OFFSET = 2;
const EXPIRY_OFFSET = VERSION_OFFSET + VERSION_BYTES;
const EXPIRY_BYTES = 6;
const CHECKSUM_BYTES = 4;
const NOTHING = Buffer.alloc(0);

/** What the encoding adds to a value at most, bytes. */
export const RECORD_OVERHEAD_BYTES = EXPIRY_OFFSET + EXPIRY_BYTES + CHECKSUM_BYTES;

/** A live record. `expiresAtMs` is absolute, whole milliseconds since 1970; undefined: never. Copies `value`. */
export function liveRecord(
  key: Uint8Array,
  value: Uint8Array,
  version: Version,
  expiresAtMs?: number,
): StoredRecord {
  const valueOffset = EXPIRY_OFFSET + (expiresAtMs === undefined ? 0 : EXPIRY_BYTES);
  const bytes = Buffer.allocUnsafe(valueOffset + value.length + CHECKSUM_BYTES);
  if (expiresAtMs !== undefined) bytes.writeUIntBE(expiresAtMs, EXPIRY_OFFSET, EXPIRY_BYTES);
  bytes.set(value, valueOffset);
  const checksum = seal(bytes, key, version, expiresAtMs === undefined ? 0 : FLAG_EXPIRES);
  const stored = bytes.subarray(valueOffset, bytes.length - CHECKSUM_BYTES);
  return { version, tombstone: false, value: stored, expiresAtMs, checksum, bytes };
}

/** The record of a deleted key. */
export function tombstoneRecord(key: Uint8Array, version: Version): StoredRecord {
  const bytes = Buffer.allocUnsafe(EXPIRY_OFFSET + CHECKSUM_BYTES);
  const checksum = seal(bytes, key, version, FLAG_TOMBSTONE);
  return { version, tombstone: true, value: NOTHING, expiresAtMs: undefined, checksum, bytes };
}

function seal(bytes: Buffer, key: Uint8Array, version: Version, flags: number): number {
  bytes[0] = FORMAT;
  bytes[1] = flags;
  writeVersion(version, bytes, VERSION_OFFSET);
  const end = bytes.length - CHECKSUM_BYTES;
  const checksum = crc32(bytes.subarray(0, end), crc32(key));
  bytes.writeUInt32BE(checksum, end);
  return checksum;
}

/**
 * Reads an encoded record; the result refers to `bytes`, which must not change afterwards.
 *
 * @throws KvError DATA_LOSS when the checksum does not fit; StoreUnsupported when the format is not known.
 */
export function decodeRecord(key: Uint8Array, bytes: Buffer): StoredRecord {
  const end = bytes.length - CHECKSUM_BYTES;
  if (end < EXPIRY_OFFSET) throw damagedRecord();
  const checksum = crc32(bytes.subarray(0, end), crc32(key));
  if (bytes.readUInt32BE(end) !== checksum) throw damagedRecord();
  const flags = bytes[1] ?? 0;
  if (bytes[0] !== FORMAT || (flags & ~KNOWN_FLAGS) !== 0) {
    throw new StoreUnsupported(
      `record format ${bytes[0] ?? 0} (flags ${flags}) was written by a newer version`,
    );
  }
  const expires = (flags & FLAG_EXPIRES) !== 0;
  const valueOffset = expires ? EXPIRY_OFFSET + EXPIRY_BYTES : EXPIRY_OFFSET;
  if (end < valueOffset) throw damagedRecord();
  return {
    version: readVersion(bytes, VERSION_OFFSET),
    tombstone: (flags & FLAG_TOMBSTONE) !== 0,
    value: bytes.subarray(valueOffset, end),
    expiresAtMs: expires ? bytes.readUIntBE(EXPIRY_OFFSET, EXPIRY_BYTES) : undefined,
    checksum,
    bytes,
  };
}

/** As `decodeRecord`; undefined when the record is damaged. */
export function decodeIfSound(key: Uint8Array, bytes: Buffer): StoredRecord | undefined {
  try {
    return decodeRecord(key, bytes);
  } catch (error) {
    if (error instanceof KvError && error.code === 'DATA_LOSS') return undefined;
    throw error;
  }
}

/**
 * The version that a damaged record seems to have had, for the damage is more often elsewhere; undefined when the record
 * does not look like one.
 */
export function seemingVersion(bytes: Buffer): Version | undefined {
  const flags = bytes[1] ?? 0;
  if (bytes.length < EXPIRY_OFFSET || bytes[0] !== FORMAT || (flags & ~KNOWN_FLAGS) !== 0) return undefined;
  return readVersion(bytes, VERSION_OFFSET);
}

/** The error for a record that fails its checksum. */
export function damagedRecord(): KvError {
  return new KvError('DATA_LOSS', 'a stored record fails its checksum; read the key from another replica');
}
