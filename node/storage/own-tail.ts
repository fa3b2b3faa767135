import type { LogSlice, OwnEntry } from './store.ts';

/** Counted for an entry beside its key and record. */
const ENTRY_OVERHEAD_BYTES = 100;

/**
 * The newest own entries, kept in memory: peers that keep up are served from here, before the entries are synced. What
 * is not synced is never dropped.
 */
export class OwnTail {
  private readonly maxBytes: number;
  private entries: OwnEntry[] = [];
  /** Entries before this index are dropped; the array is cut now and then. */
  private first = 0;
  private bytes = 0;
  private droppedThrough: number;

  /** `head`: sequence of the newest own entry so far, which is not here. */
  constructor(maxBytes: number, head: number) {
    this.maxBytes = maxBytes;
    this.droppedThrough = head;
  }

  /** Every own entry after this sequence is here. */
  get start(): number {
    return this.droppedThrough;
  }

  add(entry: OwnEntry): void {
    this.entries.push(entry);
    this.bytes += entryBytes(entry);
  }

  /** Drops the oldest entries beyond the bound, up to the synced one. */
  shrink(syncedThrough: number): void {
    while (this.bytes > this.maxBytes) {
      const oldest = this.entries[this.first];
      if (oldest === undefined || oldest.sequence > syncedThrough) break;
      this.bytes -= entryBytes(oldest);
      this.droppedThrough = oldest.sequence;
      this.first += 1;
    }
    if (this.first > 1024 && this.first * 2 > this.entries.length) {
      this.entries = this.entries.slice(this.first);
      this.first = 0;
    }
  }

  /** Sequence of the newest entry up to `ceiling`; `start` when there is none. */
  headUpTo(ceiling: number): number {
    return this.entries[this.indexAfter(ceiling) - 1]?.sequence ?? this.droppedThrough;
  }

  /** Entries in (after, ceiling], at least one if there is one, bounded in bytes. `after` is at or above `start`. */
  read(after: number, ceiling: number, maxBytes: number): LogSlice {
    const entries: OwnEntry[] = [];
    let bytes = 0;
    for (let index = this.indexAfter(after); index < this.entries.length; index += 1) {
      const entry = this.entries[index];
      if (entry === undefined || entry.sequence > ceiling) break;
      bytes += entryBytes(entry);
      if (entries.length > 0 && bytes > maxBytes) break;
      entries.push(entry);
    }
    return { after, through: entries.at(-1)?.sequence ?? after, entries };
  }

  /** Index of the first entry whose sequence is above `sequence`. */
  private indexAfter(sequence: number): number {
    let low = this.first;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.entries[middle]?.sequence ?? 0) > sequence) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** What an own entry counts for against bounds in bytes. */
export function entryBytes(entry: OwnEntry): number {
  return ENTRY_OVERHEAD_BYTES + entry.key.length + entry.record.bytes.length;
}
