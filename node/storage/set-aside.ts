import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory } from '../../common/synced-files.ts';

/** What a data directory has in it (open-store.ts). */
export const LOG_DIRECTORY = 'log';
export const STATE_DIRECTORY = 'state';
const QUARANTINE = /^quarantine-(\d+)$/;
/** Corrupt stores may be all that is left of some records, but a volume that fills up with them helps nobody. */
const KEPT = 4;

/**
 * Moves a corrupt store out of the way, into `quarantine-<n>` beneath its data directory, so that the next `openStore`
 * creates a blank one; the directory itself may be a mount point and stays. Only the newest four are kept. A crash in
 * the middle leaves a store that is corrupt for want of its other half, and is set aside in turn.
 *
 * The store must be closed. Returns the directory it was moved to.
 */
export async function setAside(directory: string): Promise<string> {
  const numbers = (await readdir(directory))
    .map((name) => Number(QUARANTINE.exec(name)?.[1]))
    .filter((number) => Number.isSafeInteger(number))
    .sort((a, b) => a - b);
  const target = join(directory, `quarantine-${(numbers.at(-1) ?? 0) + 1}`);
  await mkdir(target);
  for (const name of [STATE_DIRECTORY, LOG_DIRECTORY]) {
    await rename(join(directory, name), join(target, name)).catch(ignoreMissing);
  }
  await syncDirectory(target);
  await syncDirectory(directory);
  for (const number of numbers.slice(0, Math.max(0, numbers.length - KEPT + 1))) {
    await rm(join(directory, `quarantine-${number}`), { recursive: true, force: true });
  }
  return target;
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
