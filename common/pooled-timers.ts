import type { Clock, Scheduler, Timer } from './clock.ts';

/** A timer of many. */
class PooledTimer implements Timer {
  readonly atMs: number;
  readonly task: () => void;
  private readonly pool: Set<PooledTimer>;

  constructor(atMs: number, task: () => void, pool: Set<PooledTimer>) {
    this.atMs = atMs;
    this.task = task;
    this.pool = pool;
  }

  cancel(): void {
    this.pool.delete(this);
  }
}

/**
 * A scheduler for timers that are set by the thousand and nearly all cancelled, such as the deadlines of operations: one
 * timer of `scheduler` stands for all, set for the earliest that there was.
 */
export class PooledTimers implements Scheduler {
  private readonly clock: Clock;
  private readonly scheduler: Scheduler;
  private readonly waiting = new Set<PooledTimer>();
  private timer: Timer | undefined;
  private timerAtMs = Infinity;

  constructor(clock: Clock, scheduler: Scheduler) {
    this.clock = clock;
    this.scheduler = scheduler;
  }

  after(delayMs: number, task: () => void): Timer {
    const pooled = new PooledTimer(this.clock.monotonicMs() + delayMs, task, this.waiting);
    this.waiting.add(pooled);
    this.watch(pooled.atMs);
    return pooled;
  }

  soon(task: () => void): void {
    this.scheduler.soon(task);
  }

  private watch(atMs: number): void {
    if (this.timerAtMs <= atMs) return;
    this.timer?.cancel();
    this.timerAtMs = atMs;
    this.timer = this.scheduler.after(Math.max(0, atMs - this.clock.monotonicMs()), () => this.fire());
  }

  private fire(): void {
    this.timer = undefined;
    this.timerAtMs = Infinity;
    const now = this.clock.monotonicMs();
    let nextMs = Infinity;
    const due: PooledTimer[] = [];
    for (const pooled of this.waiting) {
      if (pooled.atMs <= now) due.push(pooled);
      else nextMs = Math.min(nextMs, pooled.atMs);
    }
    // Before the tasks: one of them may throw.
    if (nextMs !== Infinity) this.watch(nextMs);
    due.sort((a, b) => a.atMs - b.atMs);
    for (const pooled of due) if (this.waiting.delete(pooled)) pooled.task();
  }
}
