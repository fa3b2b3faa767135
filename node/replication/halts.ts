import type { Clock, Scheduler, Timer } from '../../common/clock.ts';

export interface HaltsOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  /** Standing still for longer than this is a halt, milliseconds. */
  readonly haltMs: number;
}

/** Looks within the time of a halt. */
const LOOKS = 3;

/**
 * Notices that the process stood still: it was stopped, its machine was, or one turn of the event loop took that long. What
 * it reads next may have waited in its buffers while its senders gave it up and went on elsewhere.
 */
export class Halts {
  private readonly options: HaltsOptions;
  private seenMs: number;
  private doubtfulUntilMs = -Infinity;
  private timer: Timer | undefined;

  constructor(options: HaltsOptions) {
    this.options = options;
    this.seenMs = options.clock.monotonicMs();
  }

  start(): void {
    this.look();
    this.timer = this.options.scheduler.after(this.options.haltMs / LOOKS, () => this.start());
  }

  stop(): void {
    this.timer?.cancel();
  }

  /** Whether a request that comes now may be one from before a halt: for as long as the halt took, and a little longer. */
  mayBeLate(): boolean {
    return this.look() < this.doubtfulUntilMs;
  }

  /** The time by the monotonic clock. */
  private look(): number {
    const { clock, haltMs } = this.options;
    const now = clock.monotonicMs();
    const stoodMs = now - this.seenMs;
    // Sockets are read before timers run: a request may be the first to notice.
    if (stoodMs > haltMs) this.doubtfulUntilMs = Math.max(this.doubtfulUntilMs, now + stoodMs + haltMs);
    this.seenMs = now;
    return now;
  }
}
