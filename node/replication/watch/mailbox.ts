import type { Scheduler } from '../../../common/clock.ts';

interface Waiting<T> {
  readonly item: T;
  readonly taken: () => void;
}

/** Where several senders leave items for one taker: each goes on when its item has been taken, so one of each waits at most. */
export class Mailbox<T> {
  private readonly waiting: Waiting<T>[] = [];
  private wake: (() => void) | undefined;
  private closed = false;

  /** Resolves when the item has been taken, or nothing is taken any more. */
  put(item: T): Promise<void> {
    if (this.closed) return Promise.resolve();
    return new Promise((taken) => {
      this.waiting.push({ item, taken });
      this.nudge();
    });
  }

  /** The first item that `wanted` accepts; undefined when there is none. */
  take(wanted: (item: T) => boolean): T | undefined {
    const index = this.waiting.findIndex(({ item }) => wanted(item));
    const [found] = index < 0 ? [] : this.waiting.splice(index, 1);
    found?.taken();
    return found?.item;
  }

  /** Resolves at the next `put` or `nudge`, at the latest after `delayMs`. */
  wait(scheduler: Scheduler, delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = scheduler.after(delayMs, () => this.nudge());
      this.wake = () => {
        timer.cancel();
        resolve();
      };
    });
  }

  /** Ends the wait. */
  nudge(): void {
    const { wake } = this;
    this.wake = undefined;
    wake?.();
  }

  /** Nothing is taken any more; senders go on. */
  close(): void {
    this.closed = true;
    for (const { taken } of this.waiting.splice(0)) taken();
    this.nudge();
  }
}
