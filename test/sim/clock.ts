import type { Clock } from '../../common/clock.ts';
import type { SimTime } from './time.ts';

export const START_WALL_MS = 1_800_000_000_000;

/** The clock of one machine: it may run fast or slow, and its wall clock may jump. */
export class SimClock implements Clock {
  /** Furthest that the wall clock has ever been behind and ahead of true time, milliseconds. */
  lowestOffsetMs = 0;
  highestOffsetMs = 0;
  private readonly time: SimTime;
  private readonly monotonicBaseMs: number;
  private offsetMs: number;
  private rate = 1;
  private sinceMs = 0;

  constructor(time: SimTime, options: { offsetMs: number; monotonicBaseMs: number }) {
    this.time = time;
    this.offsetMs = options.offsetMs;
    this.monotonicBaseMs = options.monotonicBaseMs;
    this.note();
  }

  wallMs(): number {
    return START_WALL_MS + Math.floor(this.time.nowMs + this.offset());
  }

  /** Of the machine: goes on over restarts of a process, which nobody may rely on. */
  monotonicMs(): number {
    return this.monotonicBaseMs + this.time.nowMs;
  }

  /** True time at which the monotonic clock showed, or shows, `monotonicMs`. */
  trueMs(monotonicMs: number): number {
    return monotonicMs - this.monotonicBaseMs;
  }

  /** The wall clock jumps. */
  jump(byMs: number): void {
    this.offsetMs += byMs;
    this.note();
  }

  /** Sets the wall clock to true time where it is off by more than `toleratedMs`. */
  setRight(toleratedMs: number): void {
    const offset = this.offset();
    if (Math.abs(offset) > toleratedMs) this.jump(-offset);
  }

  /** The wall clock gains (or loses) so many milliseconds per millisecond from now on. */
  drift(rate: number): void {
    this.offsetMs = this.offset();
    this.sinceMs = this.time.nowMs;
    this.rate = 1 + rate;
    this.note();
  }

  /** Wall clock minus true time, milliseconds; noted as one the clock has had. */
  note(): number {
    const offset = this.offset();
    this.lowestOffsetMs = Math.min(this.lowestOffsetMs, offset);
    this.highestOffsetMs = Math.max(this.highestOffsetMs, offset);
    return offset;
  }

  private offset(): number {
    return this.offsetMs + (this.rate - 1) * (this.time.nowMs - this.sinceMs);
  }
}
