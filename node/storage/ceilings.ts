import { MAX_WALL_MS } from '../../model/version.ts';
import type { CeilingValues } from './entry.ts';

/**
 * What may be used without having been reserved durably before: sequences and clock values up to a ceiling that is on
 * disk (PROTOCOL 10, 12). After an unclean start everything below the ceilings counts as used.
 *
 * Ceilings ride on every group of the log, raised a step beyond what is in use, so that under load they cost nothing
 * and are never in the way.
 */
export class Ceilings {
  private readonly steps: CeilingValues;
  private synced: CeilingValues;
  private wantedClockMs: number;

  constructor(recovered: CeilingValues, steps: CeilingValues) {
    this.synced = recovered;
    this.wantedClockMs = recovered.clockMs;
    this.steps = steps;
  }

  /** Durable. */
  get sequence(): number {
    return this.synced.sequence;
  }

  /** Durable. */
  get clockMs(): number {
    return this.synced.clockMs;
  }

  /** Whether the next group must raise the clock's ceiling to be at or above `wallMs`. */
  clockNeeds(wallMs: number): boolean {
    if (wallMs <= this.synced.clockMs) return false;
    this.wantClock(wallMs);
    return true;
  }

  /**
   * A version was minted here: keep the ceiling a step ahead. A version above the ceiling was not minted by the clock
   * (it overwrites one from a node whose clock is far ahead) and must not drag it along.
   */
  minted(wallMs: number): void {
    if (wallMs <= this.synced.clockMs && wallMs + this.steps.clockMs > this.wantedClockMs) {
      this.wantClock(wallMs + this.steps.clockMs);
    }
  }

  /** The ceilings for a group that begins to be written now and ends with `lastSequence`. */
  forGroup(lastSequence: number): CeilingValues {
    return {
      sequence: Math.max(this.synced.sequence, lastSequence + this.steps.sequence),
      clockMs: this.wantedClockMs,
    };
  }

  /** A group that carried `values` is synced. */
  noteSynced(values: CeilingValues): void {
    this.synced = values;
  }

  private wantClock(wallMs: number): void {
    this.wantedClockMs = Math.max(this.wantedClockMs, Math.min(wallMs, MAX_WALL_MS));
  }
}
