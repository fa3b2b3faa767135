import type { Store } from '../storage/store.ts';
import { readJsonMeta, writeJsonMeta } from '../cluster/json-meta.ts';

const META = 'log-floor';
const FORMAT = 1;

interface StoredFloor {
  /** Where the log began when the floor was taken. */
  readonly logStart: number;
  readonly floor: number;
}

/**
 * The sequence below which own entries may have been dropped from the log. Most of a log may be entries of others, which
 * nobody resumes from: a peer whose cursor lies before the log's beginning has missed something only when it lies below
 * the newest own entry that was dropped.
 */
export class LogFloor {
  private readonly store: Store;
  private logStart: number;
  private value: number;

  constructor(store: Store) {
    this.store = store;
    const stored = readJsonMeta(store, META, FORMAT) as StoredFloor | undefined;
    this.logStart = stored?.logStart ?? 0;
    this.value = stored?.floor ?? 0;
  }

  /** Every own entry after this sequence is in the log. */
  get sequence(): number {
    const { head, logStart } = this.store;
    if (logStart !== this.logStart) {
      this.logStart = logStart;
      this.value = Math.min(head, logStart);
    }
    return this.value;
  }

  /** Makes the floor durable when the log has begun anew since the last call. */
  async persist(): Promise<void> {
    const before = this.logStart;
    const floor = this.sequence;
    if (this.logStart === before) return;
    await writeJsonMeta(this.store, META, FORMAT, { logStart: this.logStart, floor });
  }
}
