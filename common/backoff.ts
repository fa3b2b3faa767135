import type { Random } from './random.ts';

/** Bounds of an exponential backoff. */
export interface BackoffOptions {
  /** Delay before the first retry, milliseconds. */
  initialMs: number;
  /** Largest delay, milliseconds. */
  maxMs: number;
}

/** Delays between retries: doubling, capped, with "equal jitter" (half fixed, half random) so that peers spread out. */
export class Backoff {
  private attempt = 0;
  private readonly options: BackoffOptions;
  private readonly random: Random;

  constructor(options: BackoffOptions, random: Random) {
    this.options = options;
    this.random = random;
  }

  /** The next delay, milliseconds. */
  nextMs(): number {
    const ceiling = Math.min(this.options.maxMs, this.options.initialMs * 2 ** Math.min(this.attempt, 30));
    this.attempt += 1;
    return ceiling / 2 + (this.random.fraction() * ceiling) / 2;
  }

  /** Starts over, after a success. */
  reset(): void {
    this.attempt = 0;
  }
}
