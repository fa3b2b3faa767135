import { crc32 } from 'node:zlib';
import { KvError } from '../../common/errors.ts';
import { VERSION_BYTES, type Version, readVersion } from '../../model/version.ts';

/** What a merge needs of an encoded record. */
export interface RecordHead {
  readonly version: Version;
  /** Of key and record, as written. */
  readonly checksum: number;
}

/** Format byte and flags come first; the checksum comes last in every format. */
const VERSION_OFFSET = 2;
const CHECKSUM_BYTES = 4;

/**
 * Reads version and checksum of an encoded record (the layout stands in node/storage/record.ts) without its value.
 *
 * @throws KvError DATA_LOSS when the checksum does not fit, FAILED_PRECONDITION when the format is not known.
 */
export function readRecordHead(key: Buffer, record: Buffer): RecordHead {
  const end = record.length - CHECKSUM_BYTES;
  if (end < VERSION_OFFSET + VERSION_BYTES) throw new KvError('DATA_LOSS', 'a record is too short to be one');
  const checksum = record.readUInt32BE(end);
  if (crc32(record.subarray(0, end), crc32(key)) !== checksum) {
    throw new KvError('DATA_LOSS', 'a record fails its checksum');
  }
  if (record[0] !== 1) {
    throw new KvError(
      'FAILED_PRECONDITION',
      `record format ${record[0] ?? 0} was written by a newer version`,
    );
  }
  return { version: readVersion(record, VERSION_OFFSET), checksum };
}
