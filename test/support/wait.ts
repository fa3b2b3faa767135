import { setTimeout as delay } from 'node:timers/promises';

export interface WaitOptions {
  /** What is waited for, as the end of "waited 30 s for ...". */
  what: string;
  timeoutMs: number;
  /** Pause between two looks. @default 250 */
  intervalMs?: number;
}

/**
 * Looks again and again until `look` gives something other than undefined or false, and gives that.
 *
 * `look` tells what it saw by calling `see`, so that a failed wait says how far things had come. An error that it
 * throws counts as "not yet" and is told in the same way.
 *
 * @throws Error naming what was waited for and what was last seen.
 */
export async function waitFor<T>(
  options: WaitOptions,
  look: (see: (seen: string) => void) => Promise<T | undefined | false> | T | undefined | false,
): Promise<T> {
  const { what, timeoutMs, intervalMs = 250 } = options;
  const deadline = performance.now() + timeoutMs;
  let lastSeen = 'nothing';
  let cause: unknown;
  for (;;) {
    try {
      const found = await look((seen) => (lastSeen = seen));
      cause = undefined;
      if (found !== undefined && found !== false) return found;
    } catch (error) {
      cause = error;
      lastSeen = error instanceof Error ? error.message : String(error);
    }
    if (performance.now() > deadline) {
      throw new Error(`waited ${timeoutMs / 1000} s for ${what}; last seen: ${lastSeen}`, { cause });
    }
    await delay(intervalMs);
  }
}
