import type { Marks } from './marks.ts';

/**
 * The marks of partitions whose log is being told. What all replicas are known to hold now is in this node's log by its
 * newest entry; so a mark taken now counts once the log has been told through there.
 */
export class RisingMarks {
  private readonly current: Map<number, number>;
  private readonly lowWaterMs: (partition: number) => number;
  private sampled: { readonly target: number; readonly marks: Marks } | undefined;

  constructor(marks: Marks, lowWaterMs: (partition: number) => number) {
    this.current = new Map(marks);
    this.lowWaterMs = lowWaterMs;
  }

  /** Takes a sample unless one waits; `newest` is the sequence of the newest entry of the log, synced or not. */
  sample(newest: number): void {
    if (this.sampled !== undefined) return;
    const marks = new Map<number, number>();
    for (const [partition, markMs] of this.current) {
      const lowWaterMs = this.lowWaterMs(partition);
      if (lowWaterMs > markMs) marks.set(partition, lowWaterMs);
    }
    if (marks.size > 0) this.sampled = { target: newest, marks };
  }

  /** The marks that have risen now that the log has been told through this sequence. */
  reached(sequence: number): Marks | undefined {
    const { sampled } = this;
    if (sampled === undefined || sequence < sampled.target) return undefined;
    this.sampled = undefined;
    for (const [partition, markMs] of sampled.marks) this.current.set(partition, markMs);
    return sampled.marks;
  }
}
