import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory, writeSynced } from '../../common/synced-files.ts';
import { StoreCorrupt } from './store-errors.ts';

/** What a data directory has in it (open-store.ts). */
export const LOG_DIRECTORY = 'log';
export const STATE_DIRECTORY = 'state';
/** Says why a store must not be opened again. */
const CONDEMNED = 'condemned';
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
  // The mark goes last: a crash before that leaves the rest condemned.
  for (const name of [STATE_DIRECTORY, LOG_DIRECTORY, CONDEMNED]) {
    await rename(join(directory, name), join(target, name)).catch(ignoreMissing);
  }
  await syncDirectory(target);
  await syncDirectory(directory);
  for (const number of numbers.slice(0, Math.max(0, numbers.length - KEPT + 1))) {
    await rm(join(directory, `quarantine-${number}`), { recursive: true, force: true });
  }
  return target;
}

/** Marks a store that was found too damaged to go on with, durably: `checkCondemned` refuses it until it is set aside. */
export async function condemn(directory: string, reason: string): Promise<void> {
  await writeSynced(join(directory, CONDEMNED), `${reason}\n`);
  await syncDirectory(directory);
}

/** @throws StoreCorrupt when the store was condemned. */
export async function checkCondemned(directory: string): Promise<void> {
  const reason = await readFile(join(directory, CONDEMNED), 'utf8').catch(ignoreMissing);
  if (reason !== undefined)
    throw new StoreCorrupt(`the store was found corrupt in its last run: ${reason.trim()}`);
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}
