import { KvError } from '../../../common/errors.ts';
import type { KeyedRecord, Store } from '../../storage/store.ts';

export interface WatchedEntry extends KeyedRecord {
  readonly partition: number;
}

/** What the log says in (after, through]. */
export interface WatchedSlice {
  readonly through: number;
  readonly entries: readonly WatchedEntry[];
}

export interface LogReadsOptions {
  readonly store: Pick<Store, 'readEntries'>;
  readonly partitionOf: (key: Buffer) => number;
  /** Bytes of entries in a slice; one larger entry makes a slice of its own. */
  readonly sliceBytes: number;
}

/** Slices kept: as far as watches that keep up are apart. */
const MOST_KEPT = 8;

/** Reads the log once for all watches that stand at one place of it. */
export class LogReads {
  private readonly options: LogReadsOptions;
  /** By the sequence they begin after, the oldest read first. */
  private readonly slices = new Map<number, Promise<WatchedSlice>>();

  constructor(options: LogReadsOptions) {
    this.options = options;
  }

  /**
   * Synced entries after a sequence, of which there is at least one or that is no record. None, when the log has to be read from
   * far before that place: the next call goes on from where this one ended.
   *
   * @throws KvError OUT_OF_RANGE when the log no longer reaches back to `after`, or is damaged there.
   */
  read(after: number): Promise<WatchedSlice> {
    const known = this.slices.get(after);
    if (known !== undefined) return known;
    const slice = this.readSlice(after);
    this.slices.set(after, slice);
    // A failure is for those who wait for it now, and so is a look that has not reached the place yet; later ones try again.
    const forget = (): void => {
      if (this.slices.get(after) === slice) this.slices.delete(after);
    };
    slice.then(({ through }) => {
      if (through === after) forget();
    }, forget);
    const [oldest] = this.slices.keys();
    if (this.slices.size > MOST_KEPT && oldest !== undefined) this.slices.delete(oldest);
    return slice;
  }

  /** Lets go of what is kept. */
  clear(): void {
    this.slices.clear();
  }

  private async readSlice(after: number): Promise<WatchedSlice> {
    const { store, partitionOf, sliceBytes } = this.options;
    try {
      const { through, entries } = await store.readEntries(after, sliceBytes);
      return {
        through,
        entries: entries.map(({ key, record }) => ({ key, record, partition: partitionOf(key) })),
      };
    } catch (error) {
      if (!(error instanceof KvError) || error.code !== 'DATA_LOSS') throw error;
      throw new KvError('OUT_OF_RANGE', `the log cannot be read after ${after}`, { cause: error });
    }
  }
}
