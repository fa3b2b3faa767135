import type { Clock, Scheduler } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import type { Random } from '../../common/random.ts';
import type { RunnerArguments } from './arguments.ts';

export interface RunnerOptions {
  readonly arguments: RunnerArguments;
  readonly print: (line: string) => void;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** Aborts at the first Ctrl-C: stop cleanly. */
  readonly stop: AbortSignal;
  /** Aborts at the second one: end at once. */
  readonly kill: AbortSignal;
}
