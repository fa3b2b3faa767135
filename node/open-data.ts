import type { Clock, Scheduler } from '../common/clock.ts';
import type { Logger } from '../common/log.ts';
import type { Random } from '../common/random.ts';
import { openStore } from './storage/open-store.ts';
import { setAside } from './storage/set-aside.ts';
import { StoreCorrupt } from './storage/store-errors.ts';
import type { Store } from './storage/store.ts';

export interface OpenDataOptions {
  readonly directory: string;
  /** Stores on the directory's volume, this one included. */
  readonly volumeStores: number;
  readonly partitions: number;
  readonly logBytes: number;
  readonly logAgeMs: number;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly logger: Logger;
  /** Told of every sync of the log: entries made durable, and how long it took. */
  readonly observeSync: (entries: number, seconds: number) => void;
}

/**
 * Opens the store of a data directory. One that cannot be trusted is kept aside as evidence, and a blank one takes its
 * place: the peers have the records.
 *
 * @throws KvError FAILED_PRECONDITION when the directory is in use, or holds a store that is not for this configuration.
 */
export async function openData(options: OpenDataOptions): Promise<Store> {
  const { directory, logAgeMs, logBytes, logger } = options;
  const open = (): Promise<Store> => openStore({ ...options, limits: { logBytes, logAgeMs } });
  try {
    return await open();
  } catch (error) {
    if (!(error instanceof StoreCorrupt)) throw error;
    const movedTo = await setAside(directory);
    logger.error(
      { directory, movedTo, error },
      'THE STORE IS CORRUPT: it was set aside, and this node starts blank and rebuilds from its peers',
    );
    return open();
  }
}
