import { KvError } from '../../common/errors.ts';

/**
 * What is on disk contradicts itself: the store cannot be trusted. The caller sets the directory aside (set-aside.ts)
 * and starts blank; the records come back from the peers.
 */
export class StoreCorrupt extends KvError {
  constructor(message: string, cause?: unknown) {
    super('DATA_LOSS', message, { cause });
  }
}

/**
 * The store is sound, and not for this program or this configuration: written by a newer version, or created with
 * another number of partitions. Setting it aside would throw good data away; the process must stop.
 */
export class StoreUnsupported extends KvError {
  constructor(message: string) {
    super('FAILED_PRECONDITION', message);
  }
}

/** Another process has the data directory open. */
export class DirectoryInUse extends KvError {
  constructor(directory: string) {
    super(
      'FAILED_PRECONDITION',
      `data directory ${directory} is in use by another process: stop that process, or give this one a directory of its own`,
    );
  }
}
