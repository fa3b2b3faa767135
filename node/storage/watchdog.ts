import type { Scheduler } from '../../common/clock.ts';

/**
 * Waits for work that a stuck disk may never end: after `limitMs` it counts as failed. What it still does then is of no
 * interest, for the store that waited for it has failed.
 */
export function withinLimit<T>(scheduler: Scheduler, limitMs: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const watchdog = scheduler.after(limitMs, () => reject(new Error(`no answer within ${limitMs} ms`)));
    void work.then(resolve, reject).finally(() => watchdog.cancel());
  });
}
