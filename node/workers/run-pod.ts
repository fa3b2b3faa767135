import { systemClock, systemScheduler } from '../../common/clock.ts';
import { messageOf } from '../../common/errors.ts';
import { createLogger } from '../../common/log.ts';
import { systemRandom } from '../../common/random.ts';
import { givenFlags, type NodeConfig } from '../config.ts';
import { EXIT_FAILED } from '../exit-codes.ts';
import { Pod } from './pod.ts';

/**
 * Looks after the workers of a pod in this process, which ends with them. They end with it, too: each sees its channel
 * close.
 */
export async function runPod(config: NodeConfig, argv: readonly string[]): Promise<never> {
  const logger = createLogger({ level: config.logLevel, fields: { pod: config.pod } });
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (error: unknown) => {
      logger.error({ error }, 'unexpected error: the pod stops');
      exitFailed(error);
    });
  }
  const pod = new Pod({
    config,
    flags: givenFlags(argv),
    clock: systemClock,
    scheduler: systemScheduler,
    random: systemRandom,
    logger,
  });
  let stopping = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    logger.info({ signal }, stopping ? 'second signal: ending at once' : 'signal received');
    if (stopping) pod.kill();
    else pod.stop(0);
    stopping = true;
  };
  process.on('SIGTERM', onSignal).on('SIGINT', onSignal);
  try {
    process.exit(await pod.run());
  } catch (error) {
    exitFailed(error);
  }
}

function exitFailed(error: unknown): never {
  console.error(`kvcluster node: ${messageOf(error)}`);
  process.exit(EXIT_FAILED);
}
