import type { Clock, Scheduler } from '../../common/clock.ts';

/** A promise that ends no later than a deadline. */
export interface Settled<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

/** A promise settled from outside, or rejected with `late()` at `deadlineMs` of the monotonic clock. */
export function settleBy<T>(
  time: { readonly clock: Clock; readonly scheduler: Scheduler },
  deadlineMs: number,
  late: () => Error,
): Settled<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const timer = time.scheduler.after(Math.max(0, deadlineMs - time.clock.monotonicMs()), () =>
    reject(late()),
  );
  return {
    promise,
    resolve(value) {
      timer.cancel();
      resolve(value);
    },
    reject(error) {
      timer.cancel();
      reject(error);
    },
  };
}
