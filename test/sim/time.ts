import type { Timer } from '../../common/clock.ts';

interface Event {
  readonly atMs: number;
  readonly order: number;
  /** Undefined once it has run or was cancelled. */
  task: (() => void) | undefined;
}

/** Events run in one turn of the real event loop; promises are settled between them. */
const EVENTS_A_TURN = 128;

/**
 * Simulated time: one queue of events, by time and then by order of planning. Time moves only from event to event, and
 * everything that an event has set off through promises has happened before the next one.
 */
export class SimTime {
  /** Milliseconds since the beginning. */
  nowMs = 0;
  /** Events run so far. */
  ran = 0;
  private order = 0;
  private readonly heap: Event[] = [];
  /** Planned for now, in order; run before the queue. */
  private ready: (() => void)[] = [];
  private nextReady = 0;

  /** Runs `task` after what is already planned for now. */
  soon(task: () => void): void {
    this.ready.push(task);
  }

  after(delayMs: number, task: () => void): Timer {
    this.order += 1;
    const event: Event = { atMs: this.nowMs + Math.max(0, delayMs), order: this.order, task };
    this.push(event);
    return {
      cancel() {
        event.task = undefined;
      },
    };
  }

  /** Resolves after this much time. */
  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.after(delayMs, resolve));
  }

  /**
   * Runs events until `done` says so; false when `limitMs` of simulated time or `limitEvents` have passed before, or
   * nothing is left to happen.
   */
  run(done: () => boolean, limits: { limitMs: number; limitEvents: number }): Promise<boolean> {
    const untilMs = this.nowMs + limits.limitMs;
    const untilEvents = this.ran + limits.limitEvents;
    return new Promise((resolve, reject) => {
      let waiting = 0;
      let ended = false;
      const end = (result: boolean): void => {
        ended = true;
        resolve(result);
      };
      const turn = (): void => {
        waiting -= 1;
        if (ended) return;
        try {
          if (done()) end(true);
          else if (this.ran >= untilEvents || !this.step(untilMs)) end(false);
        } catch (error) {
          ended = true;
          reject(error instanceof Error ? error : new Error(String(error)));
        }
        if (waiting === 0 && !ended) fill();
      };
      // Node settles all promises between two immediates of one turn, which is cheaper than a turn for each event.
      const fill = (): void => {
        for (; waiting < EVENTS_A_TURN; waiting += 1) setImmediate(turn);
      };
      fill();
    });
  }

  /** Runs the next event; false when there is none up to `untilMs`. */
  private step(untilMs: number): boolean {
    if (this.nextReady < this.ready.length) {
      const task = this.ready[this.nextReady];
      this.nextReady += 1;
      if (this.nextReady === this.ready.length) {
        this.ready.length = 0;
        this.nextReady = 0;
      }
      this.ran += 1;
      task?.();
      return true;
    }
    for (;;) {
      const next = this.heap[0];
      if (next === undefined || next.atMs > untilMs) {
        // Time passes although nothing happens: whoever waits a little at a time must get on.
        if (next !== undefined) this.nowMs = Math.max(this.nowMs, untilMs);
        return false;
      }
      this.pop();
      const { task } = next;
      if (task === undefined) continue;
      next.task = undefined;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      this.ran += 1;
      task();
      return true;
    }
  }

  private push(event: Event): void {
    const { heap } = this;
    let index = heap.length;
    heap.push(event);
    while (index > 0) {
      const above = (index - 1) >>> 1;
      const parent = heap[above]!;
      if (!isBefore(event, parent)) break;
      heap[index] = parent;
      index = above;
    }
    heap[index] = event;
  }

  private pop(): void {
    const { heap } = this;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isBefore(heap[child]!, last)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
