import type { Scheduler, Timer } from '../../common/clock.ts';

export interface ParentWatchOptions {
  /** Process id of the parent at this moment. */
  readonly parentPid: () => number;
  readonly scheduler: Scheduler;
  /** Called once, when the parent is another one than at the start. */
  readonly onGone: () => void;
}

const LOOK_EVERY_MS = 500;

/**
 * Watches for the end of the parent process, which hands its children over to another one. It is for a program that
 * serves its parent alone: one whose parent leaves it behind on purpose, as a shell does with `&`, must not watch.
 *
 * @returns a timer whose `cancel` ends the watch.
 */
export function watchParent({ parentPid, scheduler, onGone }: ParentWatchOptions): Timer {
  const parent = parentPid();
  const look = (): void => {
    if (parentPid() === parent) timer = scheduler.after(LOOK_EVERY_MS, look);
    else onGone();
  };
  let timer = scheduler.after(LOOK_EVERY_MS, look);
  return { cancel: () => timer.cancel() };
}
