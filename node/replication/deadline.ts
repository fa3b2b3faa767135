import type { Clock, Scheduler } from '../../common/clock.ts';

/** A promise that ends no later than a deadline. */
export interface Settled<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

/** A promise settled from outside, or rejected with `late()` at `deadlineMs` of the monotonic clock or when `signal` aborts. */
export function settleBy<T>(
  time: { readonly clock: Clock; readonly scheduler: Scheduler },
  deadlineMs: number,
  late: () => Error,
  signal?: AbortSignal,
): Settled<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const onLate = (): void => {
    release();
    reject(late());
  };
  const release = (): void => {
    timer.cancel();
    signal?.removeEventListener('abort', onLate);
  };
  const timer = time.scheduler.after(Math.max(0, deadlineMs - time.clock.monotonicMs()), onLate);
  if (signal?.aborted === true) onLate();
  else signal?.addEventListener('abort', onLate, { once: true });
  return {
    promise,
    resolve(value) {
      release();
      resolve(value);
    },
    reject(error) {
      release();
      reject(error);
    },
  };
}
