import type { Clock } from '../../../common/clock.ts';

interface Reading {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/**
 * The wall clock at a distance: what it has not been below for a while. A clock that jumps ahead is noticed, by
 * comparison with others, before anything has followed it; one that is set back takes nothing along.
 */
export class SteadyWall {
  private readonly clock: Clock;
  private readonly lagMs: number;
  private readings: Reading[] = [];

  constructor(clock: Clock, lagMs: number) {
    this.clock = clock;
    this.lagMs = lagMs;
  }

  /** To be called regularly; undefined until there are readings over the whole distance. */
  read(): number | undefined {
    const now = { monotonicMs: this.clock.monotonicMs(), wallMs: this.clock.wallMs() };
    this.readings.push(now);
    const from = this.readings.findLastIndex(
      ({ monotonicMs }) => monotonicMs <= now.monotonicMs - this.lagMs,
    );
    if (from === -1) return undefined;
    this.readings.splice(0, from);
    return Math.min(...this.readings.map(({ wallMs }) => wallMs));
  }

  /** The clock is not to be trusted: what was read counts no more. */
  reset(): void {
    this.readings = [];
  }
}
