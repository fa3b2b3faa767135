import { join } from 'node:path';
import { systemClock, systemScheduler } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import { createLogger } from '../../common/log.ts';
import { systemRandom } from '../../common/random.ts';
import { RUNNER_HELP, parseRunnerArguments } from './arguments.ts';
import { watchParent } from './parent-watch.ts';
import { runLocalCluster } from './runner.ts';

const FAILED = 1;
const WRONG_USE = 2;

const stop = new AbortController();
const kill = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    if (stop.signal.aborted) {
      kill.abort(new Error(`ended by ${name}`));
      return;
    }
    console.log('stopping; again to end at once');
    stop.abort(new Error(`stopped by ${name}`));
  });
}

// npm that is killed passes nothing on. Started otherwise, the runner may well outlive the shell it came from.
const parent =
  process.env['npm_lifecycle_event'] === 'start'
    ? watchParent({
        parentPid: () => process.ppid,
        scheduler: systemScheduler,
        onGone: () => stop.abort(new Error('npm has ended')),
      })
    : undefined;
process.exitCode = await main();
parent?.cancel();

async function main(): Promise<number> {
  try {
    const parsed = parseRunnerArguments(process.argv.slice(2), join(import.meta.dirname, '../..'));
    if (parsed === 'help') {
      console.log(RUNNER_HELP);
      return 0;
    }
    await runLocalCluster({
      arguments: parsed,
      print: (line) => console.log(line),
      logger: createLogger({ level: 'warn' }),
      clock: systemClock,
      scheduler: systemScheduler,
      random: systemRandom,
      stop: stop.signal,
      kill: kill.signal,
    });
    return 0;
  } catch (error) {
    console.error(`kvcluster: ${messageOf(error)}`);
    return error instanceof KvError && error.code === 'INVALID_ARGUMENT' ? WRONG_USE : FAILED;
  }
}
