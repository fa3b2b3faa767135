import type { Scheduler } from '../../../common/clock.ts';

/** Lets one of several long pieces of work go on in each turn of the event loop, in the order in which they ask. */
export class Turns {
  private readonly scheduler: Scheduler;
  private readonly waiting: (() => void)[] = [];

  constructor(scheduler: Scheduler) {
    this.scheduler = scheduler;
  }

  /** Resolves in a turn of its own. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      if (this.waiting.length === 1) this.scheduler.soon(() => this.run());
    });
  }

  private run(): void {
    this.waiting.shift()?.();
    if (this.waiting.length > 0) this.scheduler.soon(() => this.run());
  }
}
