import { systemClock, systemScheduler } from '../../common/clock.ts';
import { systemRandom } from '../../common/random.ts';
import { runKvctl } from './kvctl.ts';

const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => interrupted.abort(new Error(`stopped by ${name}`)));
}
// A reader such as `head` that has seen enough is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

process.exitCode = await runKvctl(process.argv.slice(2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  directory: process.cwd(),
  clock: systemClock,
  scheduler: systemScheduler,
  random: systemRandom,
  signal: interrupted.signal,
});
