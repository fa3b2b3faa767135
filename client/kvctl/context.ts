import type { Readable, Writable } from 'node:stream';
import type { Clock, Scheduler } from '../../common/clock.ts';
import type { Random } from '../../common/random.ts';

/** What a command runs in. */
export interface KvctlContext {
  readonly stdin: Readable;
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable;
  /** Directory that relative paths start from. */
  readonly directory: string;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** Aborts on Ctrl-C. */
  readonly signal: AbortSignal;
}

/** A command that has said what is wrong and ends with exit code 1, such as `get` of a missing key. */
export class CommandFailed extends Error {
  override readonly name = 'CommandFailed';
}

/** A wrong use of the command line that only the command can find: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
