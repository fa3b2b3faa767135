import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type BackupManifest,
  type ChunkDescription,
  MANIFEST_NAME,
  decodeChunk,
} from '../../common/backup-format.ts';
import { messageOf } from '../../common/errors.ts';
import { partitionOf } from '../../model/key-hash.ts';
import type { BackupEntry } from './backup-catalog.ts';
import { type PlacedRecord, comparePlaces } from './merge.ts';
import { readRecordHead } from './record-head.ts';

/** Something wrong with a backup. */
export interface BackupFault {
  /** Path of the file. */
  readonly file: string;
  readonly problem: string;
}

/**
 * Reads a backup whole, one chunk at a time: checksums of chunks and records, counts, order. The result names every bad
 * file; empty when the backup is good.
 */
export async function verifyBackup(entry: BackupEntry, signal: AbortSignal): Promise<readonly BackupFault[]> {
  const { directory, manifest } = entry;
  if (manifest === undefined) {
    return [{ file: join(directory, MANIFEST_NAME), problem: entry.problem ?? 'it cannot be read' }];
  }
  const faults: BackupFault[] = checkTotals(manifest).map((problem) => ({
    file: join(directory, MANIFEST_NAME),
    problem,
  }));
  let previous: PlacedRecord | undefined;
  for (const chunk of manifest.chunks) {
    signal.throwIfAborted();
    const file = join(directory, chunk.name);
    try {
      const records = await decodeChunk(await readFile(file), chunk);
      for (const { key, record } of records) {
        const placed = { partition: partitionOf(key, manifest.partitions), key, record };
        checkRecord(placed, previous, chunk);
        previous = placed;
      }
    } catch (error) {
      faults.push({ file, problem: messageOf(error) });
    }
  }
  return faults;
}

function checkTotals(manifest: BackupManifest): readonly string[] {
  const records = manifest.chunks.reduce((sum, chunk) => sum + chunk.records, 0);
  const sizeBytes = manifest.chunks.reduce((sum, chunk) => sum + chunk.sizeBytes, 0);
  const names = new Set(manifest.chunks.map(({ name }) => name));
  return [
    ...(records === manifest.records ? [] : [`it counts ${manifest.records} records, its chunks ${records}`]),
    ...(sizeBytes === manifest.sizeBytes
      ? []
      : [`it counts ${manifest.sizeBytes} bytes, its chunks ${sizeBytes}`]),
    ...(names.size === manifest.chunks.length ? [] : ['it names a chunk twice']),
  ];
}

function checkRecord(
  placed: PlacedRecord,
  previous: PlacedRecord | undefined,
  chunk: ChunkDescription,
): void {
  readRecordHead(placed.key, placed.record);
  if (placed.partition < chunk.firstPartition || placed.partition > chunk.lastPartition) {
    throw new Error(
      `it holds a record of partition ${placed.partition}, which the manifest does not expect there`,
    );
  }
  if (previous !== undefined && comparePlaces(previous, placed) >= 0) {
    throw new Error('its records are not in order');
  }
}
