import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import { z } from 'zod';
import { KvError, messageOf } from './errors.ts';

/**
 * The backup format: a directory (or a prefix of an object store) with chunks of records and one manifest, written last.
 * A directory without a manifest is an unfinished backup, never a backup.
 *
 * Chunk: magic "KVBK", format byte 1, then one zstd frame over entries of {key length u32, record length u32, key,
 * record}, big endian, in (partition, key) order, chunks ascending. Records are the encoded, checksummed bytes that
 * logs, stores and peers carry.
 */
export const BACKUP_FORMAT = 1;

/** Name of the manifest within a backup. */
export const MANIFEST_NAME = 'manifest.json';

/** A chunk is closed once its entries reach this size, uncompressed bytes. */
export const CHUNK_TARGET_BYTES = 8 * 1024 * 1024;

/** No chunk holds more, uncompressed: what decoding may allocate. One entry beyond the target always fits. */
const CHUNK_MAX_BYTES = 1024 * 1024 * 1024;

const CHUNK_HEAD = Buffer.from([0x4b, 0x56, 0x42, 0x4b, BACKUP_FORMAT]);
const ENTRY_HEAD_BYTES = 8;
const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

/** A record as a backup holds it. */
export interface BackupRecord {
  readonly key: Buffer;
  /** Encoded and checksummed as stored, tombstones included. */
  readonly record: Buffer;
}

const hex = (digits: number) => z.string().regex(new RegExp(`^[0-9a-f]{${digits}}$`));
const count = z.int().min(0);

const chunkSchema = z.strictObject({
  /** File name within the backup. */
  name: z.string().regex(/^[a-z0-9][a-z0-9.-]*$/),
  records: count,
  /** Of the file. */
  sizeBytes: count,
  /** Of the entries, uncompressed. */
  rawBytes: count.max(CHUNK_MAX_BYTES),
  /** Of the file. */
  sha256: hex(64),
  /** Partitions of the first and the last record. */
  firstPartition: count,
  lastPartition: count,
});

const contentSchema = z.strictObject({
  format: z.literal(BACKUP_FORMAT),
  /** `node`: what one node holds; `cluster`: merged from enough replicas of every partition. */
  kind: z.enum(['node', 'cluster']),
  clusterId: hex(32),
  namespace: z.string(),
  clusterName: z.string(),
  epoch: count,
  partitions: z.int().min(1),
  /** ISO 8601, UTC. Every write acknowledged before `startedAt` at QUORUM or ALL is in a `cluster` backup. */
  startedAt: z.iso.datetime(),
  finishedAt: z.iso.datetime(),
  /** Of the software that made it. */
  softwareVersion: z.string(),
  /** The stores that were read, and the head of each one's log when its stream began. */
  sources: z.array(z.strictObject({ nodeId: z.string(), incarnation: count, head: count })).min(1),
  /** Tombstones and expired records included. */
  records: count,
  /** Of all chunk files. */
  sizeBytes: count,
  chunks: z.array(chunkSchema),
});

/** What a manifest says of one chunk. */
export type ChunkDescription = z.infer<typeof chunkSchema>;
/** What a manifest says. */
export type BackupManifest = z.infer<typeof contentSchema>;

/** Gathers records into chunks of about CHUNK_TARGET_BYTES. */
export class ChunkBuilder {
  private entries: BackupRecord[] = [];
  private rawBytes = 0;

  /** Adds a record; returns true when the chunk is full and must be taken. */
  add(record: BackupRecord): boolean {
    this.entries.push(record);
    this.rawBytes += ENTRY_HEAD_BYTES + record.key.length + record.record.length;
    return this.rawBytes >= CHUNK_TARGET_BYTES;
  }

  /** The records gathered, and a fresh start. Empty when there are none. */
  take(): readonly BackupRecord[] {
    const taken = this.entries;
    this.entries = [];
    this.rawBytes = 0;
    return taken;
  }
}

/** Name of the n-th chunk, from 0. */
export function chunkName(index: number): string {
  return `records-${String(index).padStart(6, '0')}.kvb`;
}

/**
 * Encodes a chunk and describes it for the manifest.
 *
 * @param partitionOf the partition of a key under the backup's number of partitions.
 */
export async function encodeChunk(
  name: string,
  records: readonly BackupRecord[],
  partitionOf: (key: Buffer) => number,
): Promise<{ bytes: Buffer; description: ChunkDescription }> {
  const raw = encodeEntries(records);
  const packed = await compress(raw, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  const bytes = Buffer.concat([CHUNK_HEAD, packed]);
  const first = records[0];
  const last = records.at(-1);
  return {
    bytes,
    description: {
      name,
      records: records.length,
      sizeBytes: bytes.length,
      rawBytes: raw.length,
      sha256: sha256(bytes),
      firstPartition: first === undefined ? 0 : partitionOf(first.key),
      lastPartition: last === undefined ? 0 : partitionOf(last.key),
    },
  };
}

function encodeEntries(records: readonly BackupRecord[]): Buffer {
  const size = records.reduce(
    (sum, { key, record }) => sum + ENTRY_HEAD_BYTES + key.length + record.length,
    0,
  );
  const raw = Buffer.allocUnsafe(size);
  let offset = 0;
  for (const { key, record } of records) {
    raw.writeUInt32BE(key.length, offset);
    raw.writeUInt32BE(record.length, offset + 4);
    key.copy(raw, offset + ENTRY_HEAD_BYTES);
    record.copy(raw, offset + ENTRY_HEAD_BYTES + key.length);
    offset += ENTRY_HEAD_BYTES + key.length + record.length;
  }
  return raw;
}

/**
 * Decodes a chunk after comparing it with what the manifest says of it.
 *
 * @throws KvError DATA_LOSS naming the chunk and what differs; FAILED_PRECONDITION for a format of newer software.
 */
export async function decodeChunk(
  bytes: Buffer,
  expected: ChunkDescription,
): Promise<readonly BackupRecord[]> {
  const damaged = (what: string, cause?: unknown): KvError =>
    new KvError('DATA_LOSS', `backup chunk ${expected.name} is damaged: ${what}`, { cause });
  if (bytes.length !== expected.sizeBytes) {
    throw damaged(`it has ${bytes.length} bytes and the manifest says ${expected.sizeBytes}`);
  }
  if (sha256(bytes) !== expected.sha256) throw damaged('its SHA-256 differs from the manifest');
  if (!bytes.subarray(0, 4).equals(CHUNK_HEAD.subarray(0, 4))) throw damaged('it does not begin with "KVBK"');
  if (bytes[4] !== BACKUP_FORMAT) {
    throw new KvError(
      'FAILED_PRECONDITION',
      `backup chunk ${expected.name} has format ${bytes[4]}, this software reads format ${BACKUP_FORMAT}: use the version that made it, or a newer one`,
    );
  }
  let raw: Buffer;
  try {
    raw = await decompress(bytes.subarray(CHUNK_HEAD.length), {
      maxOutputLength: Math.max(1, expected.rawBytes),
    });
  } catch (error) {
    throw damaged(messageOf(error), error);
  }
  if (raw.length !== expected.rawBytes) throw damaged('its content has another size than the manifest says');
  const records = decodeEntries(raw);
  if (records?.length !== expected.records) throw damaged('its entries do not add up');
  return records;
}

function decodeEntries(raw: Buffer): BackupRecord[] | undefined {
  const records: BackupRecord[] = [];
  let offset = 0;
  while (offset < raw.length) {
    if (offset + ENTRY_HEAD_BYTES > raw.length) return undefined;
    const keyEnd = offset + ENTRY_HEAD_BYTES + raw.readUInt32BE(offset);
    const end = keyEnd + raw.readUInt32BE(offset + 4);
    if (end > raw.length) return undefined;
    records.push({ key: raw.subarray(offset + ENTRY_HEAD_BYTES, keyEnd), record: raw.subarray(keyEnd, end) });
    offset = end;
  }
  return records;
}

/** The manifest's text: indented JSON with a checksum over everything else. */
export function encodeManifest(manifest: BackupManifest): string {
  return `${JSON.stringify({ ...manifest, checksum: contentChecksum(manifest) }, undefined, 2)}\n`;
}

/**
 * Reads a manifest's text.
 *
 * @throws KvError DATA_LOSS when it is damaged, FAILED_PRECONDITION when it is of a format this software does not know.
 */
export function decodeManifest(text: string): BackupManifest {
  const document = parseObject(text);
  const { checksum, ...content } = document;
  if (typeof content['format'] === 'number' && content['format'] > BACKUP_FORMAT) {
    throw new KvError(
      'FAILED_PRECONDITION',
      `the backup has format ${content['format']}, this software reads format ${BACKUP_FORMAT}: use the version that made it, or a newer one`,
    );
  }
  const parsed = contentSchema.safeParse(content);
  if (!parsed.success) {
    throw new KvError('DATA_LOSS', `the backup's manifest is damaged: ${z.prettifyError(parsed.error)}`);
  }
  if (checksum !== contentChecksum(parsed.data)) {
    throw new KvError(
      'DATA_LOSS',
      "the backup's manifest is damaged: its checksum does not match its content",
    );
  }
  return parsed.data;
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (value !== null && typeof value === 'object' && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch (error) {
    throw new KvError('DATA_LOSS', `the backup's manifest is damaged: ${messageOf(error)}`, { cause: error });
  }
  throw new KvError('DATA_LOSS', "the backup's manifest is damaged: it is not a JSON object");
}

function contentChecksum(manifest: BackupManifest): string {
  return sha256(Buffer.from(JSON.stringify(sortKeys(manifest))));
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, inner]) => [name, sortKeys(inner)]),
  );
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
