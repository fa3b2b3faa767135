/**
 * Time as a parameter: production takes `systemClock` and `systemScheduler`, the simulation its own, and no other file
 * looks at the real clock.
 */

/** Where the time comes from. */
export interface Clock {
  /** Wall clock, whole milliseconds since 1970; may jump either way. */
  wallMs(): number;
  /** Milliseconds since an arbitrary start; never goes back. */
  monotonicMs(): number;
}

/** A timer that has been set; `cancel` is idempotent. */
export interface Timer {
  cancel(): void;
}

/** Where work is put off to. */
export interface Scheduler {
  /** Runs `task` once, not before `delayMs` milliseconds from now. */
  after(delayMs: number, task: () => void): Timer;
  /** Runs `task` when what is waiting at this turn of the event loop has been handled. */
  soon(task: () => void): void;
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};

export const systemScheduler: Scheduler = {
  after(delayMs, task) {
    const handle = setTimeout(task, delayMs);
    return { cancel: () => clearTimeout(handle) };
  },
  soon(task) {
    setImmediate(task);
  },
};

/**
 * Waits `delayMs` milliseconds.
 *
 * @throws the signal's reason when it aborts first.
 */
export function sleep(scheduler: Scheduler, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(abortReason(signal));
      return;
    }
    const onAbort = (): void => {
      timer.cancel();
      if (signal !== undefined) reject(abortReason(signal));
    };
    const timer = scheduler.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** What a signal was aborted with, as an Error. */
export function abortReason(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new Error('aborted', { cause: signal.reason });
}
