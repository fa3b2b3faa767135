import type { Clock, Scheduler, Timer } from '../../common/clock.ts';

interface Planned {
  readonly atMs: number;
  readonly order: number;
  readonly task: () => void;
}

/**
 * Time that moves only when nothing else is left to do: tests with seconds of heartbeats and deadlines take
 * milliseconds, and run the same way each time.
 */
export class ManualTime {
  private nowMs = 0;
  private order = 0;
  private planned: Planned[] = [];
  private ready: (() => void)[] = [];
  private readonly startWallMs: number;

  constructor(startWallMs = 1_800_000_000_000) {
    this.startWallMs = startWallMs;
  }

  get monotonicMs(): number {
    return this.nowMs;
  }

  /** A clock of its own; `skewMs` can be changed at any time. */
  clock(skewMs = 0): Clock & { skewMs: number } {
    const wallMs = (): number => this.startWallMs + Math.floor(this.nowMs);
    const monotonicMs = (): number => this.nowMs;
    return {
      skewMs,
      wallMs() {
        return wallMs() + this.skewMs;
      },
      monotonicMs,
    };
  }

  /** A scheduler of its own; after `stop` nothing that was put off runs any more, as if the process were gone. */
  scheduler(): Scheduler & { stop(): void } {
    let stopped = false;
    const guarded = (task: () => void) => () => {
      if (!stopped) task();
    };
    return {
      after: (delayMs, task) => this.plan(delayMs, guarded(task)),
      soon: (task) => void this.ready.push(guarded(task)),
      stop: () => {
        stopped = true;
      },
    };
  }

  /** Lets time pass until the promise settles, at most `limitMs` of it. */
  async run<T>(promise: Promise<T>, limitMs = 60_000): Promise<T> {
    let settled = false;
    promise.then(
      () => (settled = true),
      () => (settled = true),
    );
    await this.until('the promise settles', () => settled, limitMs);
    return promise;
  }

  /** Lets time pass until the condition holds, at most `limitMs` of it. */
  async until(what: string, condition: () => boolean, limitMs = 60_000): Promise<void> {
    const end = this.nowMs + limitMs;
    for (;;) {
      await this.settle(condition);
      if (condition()) return;
      if (!this.step(end)) throw new Error(`waited ${limitMs / 1000} s of test time until ${what}`);
    }
  }

  /** Lets this much time pass. */
  async advance(delayMs: number): Promise<void> {
    const end = this.nowMs + delayMs;
    do await this.settle(() => false);
    while (this.step(end));
    this.nowMs = end;
  }

  private plan(delayMs: number, task: () => void): Timer {
    this.order += 1;
    const planned = { atMs: this.nowMs + Math.max(0, delayMs), order: this.order, task };
    this.planned.push(planned);
    return {
      cancel: () => {
        this.planned = this.planned.filter((other) => other !== planned);
      },
    };
  }

  /** Runs everything that needs no time. */
  private async settle(condition: () => boolean): Promise<void> {
    for (;;) {
      // A turn of the real event loop ends every chain of promises.
      await new Promise((resolve) => setImmediate(resolve));
      if (condition() || this.ready.length === 0) return;
      for (const task of this.ready.splice(0)) task();
    }
  }

  /** Moves on to the next planned task, if there is one before the end. */
  private step(end: number): boolean {
    const next = this.planned.reduce<Planned | undefined>(
      (first, planned) =>
        first === undefined ||
        planned.atMs < first.atMs ||
        (planned.atMs === first.atMs && planned.order < first.order)
          ? planned
          : first,
      undefined,
    );
    if (next === undefined || next.atMs > end) return false;
    this.planned = this.planned.filter((planned) => planned !== next);
    this.nowMs = Math.max(this.nowMs, next.atMs);
    next.task();
    return true;
  }
}
