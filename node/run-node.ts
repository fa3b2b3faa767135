import { systemClock, systemScheduler } from '../common/clock.ts';
import { messageOf } from '../common/errors.ts';
import { createLogger, type Logger } from '../common/log.ts';
import { systemRandom } from '../common/random.ts';
import { readSharedSecret } from '../common/shared-secret.ts';
import { readSoftwareVersion } from '../common/software-version.ts';
import { FatalError } from './cluster/fatal-error.ts';
import type { NodeConfig } from './config.ts';
import { EXIT_FAILED, EXIT_FENCED } from './exit-codes.ts';
import { Node } from './node.ts';
import { attachToPod } from './workers/worker-link.ts';

/** Runs one node in this process, which ends with it. */
export async function runNode(config: NodeConfig): Promise<never> {
  const logger = createLogger({ level: config.logLevel, fields: { node: config.nodeId } });
  // A defect of ours leaves the process in a state nobody knows; peers have the data, and a restart is quick.
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (error: unknown) => {
      logger.error({ error }, 'unexpected error: the node stops');
      exitFailed(error);
    });
  }
  // The configuration names the secret's file; the secret itself is in no log line.
  logger.info({ config }, 'starting');
  const starting = readSharedSecret(config.secretFile).then((secret) =>
    Node.start({
      config,
      secret,
      softwareVersion: readSoftwareVersion(),
      clock: systemClock,
      scheduler: systemScheduler,
      random: systemRandom,
      logger,
    }),
  );
  const running = starting.then(({ node }) => node);
  stopOnSignals(running, logger);
  attachToPod(running, systemScheduler);
  try {
    const node = await running;
    const reason = await node.failed();
    logger.error({ error: reason }, 'the node cannot go on');
    exitFailed(reason);
  } catch (error) {
    exitFailed(error);
  }
}

/** One line for a person, whatever the log level is. */
function exitFailed(error: unknown): never {
  console.error(`kvcluster node: ${messageOf(error)}`);
  process.exit(error instanceof FatalError && error.kind === 'copied-volume' ? EXIT_FENCED : EXIT_FAILED);
}

/** The first signal stops the node in order, the second one at once. */
function stopOnSignals(node: Promise<Node>, logger: Logger): void {
  let stopping = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (stopping) {
      logger.warn({ signal }, 'second signal: exiting at once');
      process.exit(EXIT_FAILED);
    }
    stopping = true;
    logger.info({ signal }, 'signal received');
    node.then((running) => running.stop()).then(() => process.exit(0), exitFailed);
  };
  process.on('SIGTERM', onSignal).on('SIGINT', onSignal);
}
