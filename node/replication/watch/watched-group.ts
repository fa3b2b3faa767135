import { lowestMark, type Marks } from './marks.ts';
import type { WatchPiece } from './partition-watch.ts';
import type { LogPlace } from './token.ts';

/** Partitions that one source tells, and how far it has come. */
export class WatchedGroup {
  /** The log that told them last, and through where. */
  place: LogPlace | undefined;
  /** Nothing of them has been told, and nothing needs to be: they begin with what comes. */
  fresh: boolean;
  /** The source tells its log by now. */
  live = false;
  /** Attempts in a row to go on in the log at `place` that told nothing. */
  attempts = 0;
  /** Sources in a row that failed before they told their log. */
  failures = 0;
  /** Monotonic time of the last attempt, and since when there is no source. */
  startedMs = -Infinity;
  orphanSinceMs: number | undefined;
  private readonly known: Map<number, number>;

  constructor(marks: Marks, place: LogPlace | undefined, fresh: boolean) {
    this.known = new Map(marks);
    this.place = place;
    this.fresh = fresh;
  }

  get marks(): Marks {
    return this.known;
  }

  get lowestMark(): number {
    return lowestMark(this.known);
  }

  /** Takes what a source has told. */
  advance(nodeId: string, { incarnation, sequence, marks }: WatchPiece): void {
    for (const [partition, markMs] of marks) {
      if (markMs > (this.known.get(partition) ?? 0)) this.known.set(partition, markMs);
    }
    if (sequence === undefined) return;
    this.place = { nodeId, incarnation, sequence };
    this.fresh = false;
    this.live = true;
    this.attempts = 0;
    this.failures = 0;
  }

  /** Takes some of the partitions out, into a group of their own. */
  split(partitions: readonly number[]): WatchedGroup {
    const taken = new Map<number, number>();
    for (const partition of partitions) {
      taken.set(partition, this.known.get(partition) ?? 0);
      this.known.delete(partition);
    }
    const group = new WatchedGroup(taken, this.place, this.fresh);
    group.orphanSinceMs = this.orphanSinceMs;
    return group;
  }
}
