import { crc32 } from 'node:zlib';
import { StoreCorrupt, StoreUnsupported } from './store-errors.ts';

/**
 * A segment is one file of the apply log: a head, then groups of entries (entry.ts). The head, big-endian:
 *
 *     magic 8 B | format u8 = 1 | store id 16 B | number u48 | first sequence u48 | made at, wall ms u48 | CRC-32 u32
 *
 * Segments are numbered from 1 without gaps. `first sequence` is the lowest one an entry of the segment can have.
 */
export interface SegmentHead {
  readonly storeId: Buffer;
  readonly number: number;
  readonly firstSequence: number;
  /** Wall clock when it was made. */
  readonly madeAtMs: number;
}

const MAGIC = Buffer.from('\x89KVlog\r\n', 'latin1');
const FORMAT = 1;
export const STORE_ID_BYTES = 16;
const FIELDS_OFFSET = MAGIC.length + 1 + STORE_ID_BYTES;
const CHECKSUM_OFFSET = FIELDS_OFFSET + 18;
export const SEGMENT_HEAD_BYTES = CHECKSUM_OFFSET + 4;

const NAME = /^(\d{12})\.log$/;

/** File name of a segment. */
export function segmentName(number: number): string {
  return `${String(number).padStart(12, '0')}.log`;
}

/** Number of the segment with that file name; undefined for other files. */
export function segmentNumber(name: string): number | undefined {
  const digits = NAME.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

export function encodeSegmentHead(head: SegmentHead): Buffer {
  const bytes = Buffer.alloc(SEGMENT_HEAD_BYTES);
  MAGIC.copy(bytes, 0);
  bytes.writeUInt8(FORMAT, MAGIC.length);
  head.storeId.copy(bytes, MAGIC.length + 1);
  bytes.writeUIntBE(head.number, FIELDS_OFFSET, 6);
  bytes.writeUIntBE(head.firstSequence, FIELDS_OFFSET + 6, 6);
  bytes.writeUIntBE(head.madeAtMs, FIELDS_OFFSET + 12, 6);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, CHECKSUM_OFFSET)), CHECKSUM_OFFSET);
  return bytes;
}

/**
 * Reads a segment's head; undefined when it is incomplete or damaged, as a crash leaves it.
 *
 * @throws StoreUnsupported for an unknown format; StoreCorrupt when it is a sound head of another segment or store.
 */
export function decodeSegmentHead(
  bytes: Buffer,
  expected: { storeId?: Buffer | undefined; number: number },
): SegmentHead | undefined {
  if (bytes.length < SEGMENT_HEAD_BYTES) return undefined;
  if (crc32(bytes.subarray(0, CHECKSUM_OFFSET)) !== bytes.readUInt32BE(CHECKSUM_OFFSET)) return undefined;
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  const format = bytes.readUInt8(MAGIC.length);
  if (format !== FORMAT) {
    throw new StoreUnsupported(`log format ${format} was written by a newer version: use that version`);
  }
  const head = {
    storeId: Buffer.from(bytes.subarray(MAGIC.length + 1, FIELDS_OFFSET)),
    number: bytes.readUIntBE(FIELDS_OFFSET, 6),
    firstSequence: bytes.readUIntBE(FIELDS_OFFSET + 6, 6),
    madeAtMs: bytes.readUIntBE(FIELDS_OFFSET + 12, 6),
  };
  if (expected.storeId !== undefined && !head.storeId.equals(expected.storeId)) {
    throw new StoreCorrupt(`log segment ${expected.number} belongs to another store`);
  }
  if (head.number !== expected.number) {
    throw new StoreCorrupt(`log segment ${expected.number} is a copy of segment ${head.number}`);
  }
  return head;
}
