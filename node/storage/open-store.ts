import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory } from '../../common/synced-files.ts';
import { FileDisk } from './file-disk.ts';
import { LmdbState } from './lmdb-state.ts';
import { lockDirectory } from './lock.ts';
import { LogStore, type LogStoreOptions } from './log-store.ts';
import { Reserve } from './reserve.ts';
import { checkCondemned, condemn, LOG_DIRECTORY, STATE_DIRECTORY } from './set-aside.ts';

export interface OpenStoreOptions extends Omit<LogStoreOptions, 'disk' | 'state' | 'release' | 'condemn'> {
  /** The data directory: `log/` and `state/` are kept in it. Made when it is missing. */
  readonly directory: string;
  /** Stores on the directory's volume, this one included. @default 1 */
  readonly volumeStores?: number;
}

const RESERVE_BYTES = 16 * 1024 * 1024;

/**
 * Opens the store of a data directory, or creates it when the directory is blank; holds the directory's lock until the
 * store is closed.
 *
 * @throws DirectoryInUse when another process has the directory; StoreCorrupt when what is there cannot be trusted:
 * `setAside(directory)` (set-aside.ts) and open again; StoreUnsupported when it is of a newer format or has another
 * number of partitions; errors of the file system as they come.
 */
export async function openStore(options: OpenStoreOptions): Promise<LogStore> {
  const { directory, volumeStores } = options;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const lock = await lockDirectory(directory, options.logger);
  const release = (): Promise<void> => lock.release();
  const limits = { reserveBytes: RESERVE_BYTES, ...options.limits };
  let state: LmdbState;
  let disk: FileDisk;
  try {
    await checkCondemned(directory);
    disk = await FileDisk.open(join(directory, LOG_DIRECTORY), volumeStores);
    // LMDB, too, needs some room to open its files.
    await new Reserve(disk, limits).releaseWhenLow();
    state = await openState(join(directory, STATE_DIRECTORY));
    await syncDirectory(directory);
  } catch (error) {
    await release();
    throw error;
  }
  return LogStore.open({
    ...options,
    limits,
    disk,
    state,
    release,
    condemn: (reason) => condemn(directory, reason),
  });
}

async function openState(directory: string): Promise<LmdbState> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const state = await LmdbState.open(directory);
  await syncDirectory(directory);
  return state;
}
