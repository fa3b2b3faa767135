import type { Scheduler, Timer } from '../../common/clock.ts';
import type { SimTime } from './time.ts';

/**
 * One process on a machine: what was planned by it never happens once it is dead, and nothing happens in it while it is
 * stopped (a long collection of garbage, SIGSTOP, a starved machine).
 */
export class SimProcess implements Scheduler {
  /** How long work that was put off takes to get its turn, milliseconds. */
  turnMs = 0;
  private readonly time: SimTime;
  private isAlive = true;
  private stoppedUntilMs = 0;

  constructor(time: SimTime) {
    this.time = time;
  }

  get alive(): boolean {
    return this.isAlive;
  }

  /** The process is gone; what it had begun to write elsewhere may still arrive. */
  kill(): void {
    this.isAlive = false;
  }

  /** Nothing happens in it for so long. */
  pause(forMs: number): void {
    this.stoppedUntilMs = Math.max(this.stoppedUntilMs, this.time.nowMs + forMs);
  }

  resume(): void {
    this.stoppedUntilMs = 0;
  }

  after(delayMs: number, task: () => void): Timer {
    let timer = this.time.after(delayMs, () => {
      if (!this.isAlive) return;
      if (this.stoppedUntilMs > this.time.nowMs)
        timer = this.after(this.stoppedUntilMs - this.time.nowMs, task);
      else task();
    });
    return { cancel: () => timer.cancel() };
  }

  soon(task: () => void): void {
    if (this.turnMs > 0) {
      this.after(this.turnMs, task);
      return;
    }
    this.time.soon(() => this.enter(task));
  }

  /** Runs `task` in the process now, or as soon as it runs again; never when it is dead. */
  enter(task: () => void): void {
    if (!this.isAlive) return;
    if (this.stoppedUntilMs > this.time.nowMs) this.after(this.stoppedUntilMs - this.time.nowMs, task);
    else task();
  }
}
