import { mkdir, readdir, rename, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { MANIFEST_NAME } from '../../common/backup-format.ts';
import { writeSynced } from '../../common/synced-files.ts';

const NAME = /^\d{8}T\d{6}Z-\d{4}$/;

/** Room on the volume of a directory, bytes. */
export interface DiskSpace {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** Room on the volume that holds `path`, as an unprivileged process sees it. */
export async function diskSpace(path: string): Promise<DiskSpace> {
  const { bavail, blocks, bsize } = await statfs(path);
  return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
}

/** The snapshots in a directory by name, oldest first, finished ones and what interrupted ones left. */
export async function listSnapshots(
  directory: string,
): Promise<{ readonly finished: readonly string[]; readonly unfinished: readonly string[] }> {
  const finished: string[] = [];
  const unfinished: string[] = [];
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    if (!entry.isDirectory() || !NAME.test(entry.name)) continue;
    const hasManifest = await exists(join(directory, entry.name, MANIFEST_NAME));
    (hasManifest ? finished : unfinished).push(entry.name);
  }
  return { finished: finished.sort(), unfinished: unfinished.sort() };
}

/** `20260102T030405Z-0001`: UTC time of the start, and a number for those of the same second. Sorts by age. */
export function snapshotName(startedMs: number, taken: readonly string[]): string {
  const time = `${new Date(startedMs).toISOString().replace(/[-:]|\.\d+/g, '')}-`;
  const last = Math.max(
    0,
    ...taken.filter((name) => name.startsWith(time)).map((name) => Number(name.slice(-4))),
  );
  return `${time}${String(last + 1).padStart(4, '0')}`;
}

/** Makes the directory with its parents. */
export async function makeDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
}

/** Removes a snapshot; one that is gone is fine. The manifest goes first, so that a half removed one is none. */
export async function removeSnapshot(directory: string, name: string): Promise<void> {
  await rm(join(directory, name, MANIFEST_NAME), { force: true });
  await rm(join(directory, name), { recursive: true, force: true });
}

/** Writes a file that is durable when this resolves; it appears under its name only then. */
export async function writeDurably(directory: string, name: string, bytes: Buffer | string): Promise<void> {
  const temporary = join(directory, `${name}.tmp`);
  await writeSynced(temporary, bytes);
  await rename(temporary, join(directory, name));
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}
