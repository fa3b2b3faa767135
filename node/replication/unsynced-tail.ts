import type { Version } from '../../model/version.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';

/** An entry of a peer's log, by place and key, and the write that it is of. */
export interface TailEntry {
  readonly sequence: number;
  readonly key: Buffer;
  readonly version: Version;
  readonly requestId: RequestId | undefined;
}

const MOST_ENTRIES = 100_000;

/**
 * Entries received from a peer that it has not announced as synced on its own disk. Peers send beside their sync; one
 * that is killed in between comes back without these entries although others hold them, and nobody's log would ever
 * bring them to the rest. So they are given back to it, and it logs them again as its own.
 */
export class UnsyncedTail {
  /** Which start of which volume the tail belongs to. */
  private incarnation = 0;
  private bootCounter = 0;
  private tail: TailEntry[] = [];
  private lost: readonly TailEntry[] = [];
  private from = 0;

  /** The entries after this sequence, up to the cursor, are all here; undefined for another volume of the peer. */
  afterOf(incarnation: number): number | undefined {
    return incarnation === this.incarnation ? this.from : undefined;
  }

  /** Entries of an earlier start that the peer has lost and that have yet to be given back. */
  get toReturn(): readonly TailEntry[] {
    return this.lost;
  }

  /** A stream of the peer begins: a new start of the same volume has lost what lies above the end it found. */
  begin(start: { incarnation: number; bootCounter: number; recoveredHead: number; cursor: number }): void {
    const sameVolume = start.incarnation === this.incarnation;
    if (sameVolume && start.bootCounter === this.bootCounter) return;
    this.lost = sameVolume
      ? [...this.lost, ...this.tail].filter((entry) => entry.sequence > start.recoveredHead)
      : [];
    this.tail = [];
    this.incarnation = start.incarnation;
    this.bootCounter = start.bootCounter;
    this.from = start.cursor;
  }

  note(entry: TailEntry): void {
    this.tail.push(entry);
    if (this.tail.length <= MOST_ENTRIES) return;
    this.from = this.tail.shift()?.sequence ?? this.from;
  }

  /** The peer has announced its own disk to be synced through `sequence`. */
  synced(sequence: number): void {
    const kept = this.tail.findIndex((entry) => entry.sequence > sequence);
    if (kept !== 0) this.tail = kept === -1 ? [] : this.tail.slice(kept);
    this.from = Math.max(this.from, sequence);
  }

  /** Everything in `toReturn` is durable at the peer. */
  returned(): void {
    this.lost = [];
  }
}
