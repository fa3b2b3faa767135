import type { Clock, Scheduler } from '../../../common/clock.ts';
import { sleep } from '../../../common/clock.ts';

/** Keeps work at a number of bytes per second over time; what was spent is waited for afterwards. */
export class Pace {
  private readonly clock: Clock;
  private readonly scheduler: Scheduler;
  private readonly perSecond: number;
  private paidUntilMs = 0;

  constructor(perSecond: number, clock: Clock, scheduler: Scheduler) {
    this.perSecond = perSecond;
    this.clock = clock;
    this.scheduler = scheduler;
  }

  /** Resolves when what has been spent so far is paid. @throws the signal's reason when it aborts first. */
  async spend(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.perSecond === Infinity || bytes === 0) return;
    const nowMs = this.clock.monotonicMs();
    this.paidUntilMs = Math.max(nowMs, this.paidUntilMs) + (bytes / this.perSecond) * 1000;
    const waitMs = this.paidUntilMs - nowMs;
    // Timers are no finer than this; what is left over counts for the next time.
    if (waitMs >= 1) await sleep(this.scheduler, waitMs, signal);
  }
}
