import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  type BackupManifest,
  type ChunkDescription,
  ChunkBuilder,
  MANIFEST_NAME,
  chunkName,
  encodeChunk,
  encodeManifest,
} from '../../common/backup-format.ts';
import { makeDirectory } from '../../common/make-directory.ts';
import { syncDirectory, writeSynced } from '../../common/synced-files.ts';
import { partitionOf } from '../../model/key-hash.ts';
import type { PlacedRecord } from './merge.ts';
import { PARTIAL_PREFIX } from './backup-path.ts';

/** What only the one who gathers the records knows of a manifest. */
export type ManifestHead = Omit<BackupManifest, 'records' | 'sizeBytes' | 'chunks'>;

/** A partial directory that nobody has written to for this long was left by a crash. */
const ABANDONED_AFTER_MS = 3_600_000;

/**
 * Writes one backup into a partial directory and gives it its name when everything is on disk, the manifest last: what
 * has a backup's name is complete.
 */
export class BackupWriter {
  private readonly directory: string;
  private readonly finalPath: string;
  private readonly partitions: number;
  private readonly builder = new ChunkBuilder();
  private readonly chunks: ChunkDescription[] = [];

  private constructor(parent: string, id: string, partitions: number) {
    this.directory = join(parent, `${PARTIAL_PREFIX}${id}`);
    this.finalPath = join(parent, id);
    this.partitions = partitions;
  }

  /** Makes the partial directory, with its parents. */
  static async create(parent: string, id: string, partitions: number): Promise<BackupWriter> {
    await makeDurableDirectory(parent);
    const writer = new BackupWriter(parent, id, partitions);
    await mkdir(writer.directory);
    return writer;
  }

  /** Adds the next record in (partition, key) order; writes a chunk when one is full. */
  async add({ key, record }: PlacedRecord): Promise<void> {
    if (this.builder.add({ key, record })) await this.writeChunk();
  }

  /** Completes the backup: the last chunk, the manifest, and the name, each synced before the next. */
  async commit(head: ManifestHead): Promise<BackupManifest> {
    await this.writeChunk();
    const manifest: BackupManifest = {
      ...head,
      records: this.chunks.reduce((sum, { records }) => sum + records, 0),
      sizeBytes: this.chunks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      chunks: this.chunks,
    };
    await writeDurably(join(this.directory, MANIFEST_NAME), Buffer.from(encodeManifest(manifest)));
    await syncDirectory(this.directory);
    await rename(this.directory, this.finalPath);
    await syncDirectory(dirname(this.finalPath));
    return manifest;
  }

  /** Removes what was written; for a backup that cannot be completed. */
  async abandon(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }

  private async writeChunk(): Promise<void> {
    const records = this.builder.take();
    if (records.length === 0) return;
    const name = chunkName(this.chunks.length);
    const { bytes, description } = await encodeChunk(name, records, (key) =>
      partitionOf(key, this.partitions),
    );
    await writeDurably(join(this.directory, name), bytes);
    this.chunks.push(description);
  }
}

/** Removes partial backups that a crash left behind; another job's that is being written stays. */
export async function removeAbandoned(parent: string, nowMs: number): Promise<void> {
  for (const name of await namesIn(parent)) {
    if (!name.startsWith(PARTIAL_PREFIX)) continue;
    const path = join(parent, name);
    const files = await namesIn(path);
    const times = await Promise.all([path, ...files.map((file) => join(path, file))].map(modifiedAtMs));
    if (nowMs - Math.max(...times) > ABANDONED_AFTER_MS) await rm(path, { recursive: true, force: true });
  }
}

/** Names in a directory, none when it does not exist. */
export async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return (await readdir(directory)).toSorted();
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return [];
    throw error;
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

async function modifiedAtMs(path: string): Promise<number> {
  try {
    return (await stat(path)).mtimeMs;
  } catch {
    return 0; // Removed meanwhile.
  }
}

async function makeDurableDirectory(path: string): Promise<void> {
  for (const made of await makeDirectory(path)) await syncDirectory(dirname(made));
}

function writeDurably(path: string, bytes: Buffer): Promise<void> {
  return writeSynced(path, bytes, { flags: 'wx', mode: 0o640 });
}
