import { createAdminClient } from '../client/admin-client.ts';
import { clusterDomainOf } from '../client/headless-service.ts';
import { sleep, systemClock, systemScheduler } from '../common/clock.ts';
import { KvError, messageOf } from '../common/errors.ts';
import { createLogger, type Logger } from '../common/log.ts';
import { readSoftwareVersion } from '../common/software-version.ts';
import { random48, systemRandom } from '../common/random.ts';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { OPERATOR_USAGE, type OperatorConfig, parseOperatorConfig } from './config.ts';
import { serveHttp } from './http-server.ts';
import { createOperatorMetrics, type OperatorMetrics } from './metrics.ts';
import { Operator } from './operator.ts';
import { connectToKubernetes, namespaceOfConfig } from './runtime/kubernetes.ts';
import { LeaderElection } from './runtime/leader.ts';
import type { KubernetesApi } from './runtime/api.ts';

/** Beyond this the event loop is considered stuck. */
const STUCK_MS = 10_000;
/** A question to a node that takes longer counts as not answered. */
const ADMIN_DEADLINE_MS = 2000;

/** Runs until SIGTERM or SIGINT. Resolves with the exit code: 0 when asked to stop, 1 when the Lease was lost. */
async function main(config: OperatorConfig, log: Logger): Promise<number> {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      log.info({ signal }, 'stopping');
      stop.abort(new Error(`received ${signal}`));
    });
  }
  const metrics = createOperatorMetrics();
  const api = connectToKubernetes(systemScheduler);
  const identity = `${process.env['POD_NAME'] ?? hostname()}-${random48(systemRandom).toString(36)}`;
  const election = config.leaderElection ? createElection(config, api, identity, log) : undefined;
  const operator = await createOperator({ config, api, metrics, identity, log, election });
  await using http = await startHttp(config, operator, metrics, stop.signal);
  log.info({ port: http.port, namespaces: config.namespaces, identity }, 'started');
  const watching = operator.watch(stop.signal);
  const code = await leadWhileElected(operator, election, metrics, stop, log);
  stop.abort(new Error('stopping'));
  await watching;
  return code;
}

async function leadWhileElected(
  operator: Operator,
  election: LeaderElection | undefined,
  metrics: OperatorMetrics,
  stop: AbortController,
  log: Logger,
): Promise<number> {
  try {
    await election?.acquire(stop.signal);
  } catch (error) {
    if (stop.signal.aborted) return 0;
    throw error;
  }
  metrics.leading.set(1);
  if (election === undefined) {
    await operator.lead(stop.signal);
    return 0;
  }
  const lost = new AbortController();
  const keeping = election.keep(stop.signal).catch((error: unknown) => {
    log.error({ error }, 'the Lease was lost: stopping all work at once');
    lost.abort(error);
  });
  await operator.lead(AbortSignal.any([stop.signal, lost.signal]));
  metrics.leading.set(0);
  await keeping;
  if (lost.signal.aborted) return 1;
  await election.release();
  return 0;
}

function createElection(
  config: OperatorConfig,
  api: KubernetesApi,
  identity: string,
  log: Logger,
): LeaderElection {
  return new LeaderElection({
    api,
    namespace: config.leaseNamespace ?? namespaceOfConfig(),
    name: config.leaseName,
    identity,
    clock: systemClock,
    scheduler: systemScheduler,
    random: systemRandom,
    log,
  });
}

async function createOperator(parts: {
  config: OperatorConfig;
  api: KubernetesApi;
  metrics: OperatorMetrics;
  identity: string;
  log: Logger;
  election: LeaderElection | undefined;
}): Promise<Operator> {
  const { config, api, metrics, identity, log, election } = parts;
  return new Operator({
    api,
    namespaces: config.namespaces,
    defaultImage: config.defaultImage,
    clusterDomain: config.clusterDomain ?? clusterDomainOf(await readResolvConf()),
    concurrency: config.concurrency,
    instance: identity,
    clock: systemClock,
    scheduler: systemScheduler,
    random: systemRandom,
    log,
    metrics,
    isLeader: () => election?.isHeld() ?? true,
    connectAdmin: (secret) =>
      createAdminClient({
        secret,
        sender: 'operator',
        clock: systemClock,
        random: systemRandom,
        deadlineMs: ADMIN_DEADLINE_MS,
      }),
  });
}

async function readResolvConf(): Promise<string> {
  return readFile('/etc/resolv.conf', 'utf8').catch(() => '');
}

async function startHttp(
  config: OperatorConfig,
  operator: Operator,
  metrics: OperatorMetrics,
  signal: AbortSignal,
): Promise<{ readonly port: number } & AsyncDisposable> {
  let turnedMs = systemClock.monotonicMs();
  const beat = async (): Promise<void> => {
    while (!signal.aborted) {
      turnedMs = systemClock.monotonicMs();
      await sleep(systemScheduler, 1000, signal).catch(() => undefined);
    }
  };
  void beat();
  const server = await serveHttp(config.httpPort, {
    metrics: () => {
      metrics.queueDepth.set(operator.queueDepth);
      return metrics.registry.metrics();
    },
    unhealthy: () =>
      systemClock.monotonicMs() - turnedMs > STUCK_MS ? 'the event loop does not turn' : undefined,
    notReady: () => (operator.hasSynced ? undefined : 'reading the objects of the cluster'),
  });
  return { port: server.port, [Symbol.asyncDispose]: () => server.close() };
}

function readConfig(): OperatorConfig {
  try {
    const parsed = parseOperatorConfig(process.argv.slice(2), process.env);
    if (typeof parsed !== 'string') return parsed;
    process.stdout.write(`${parsed === 'help' ? OPERATOR_USAGE : readSoftwareVersion()}\n`);
    process.exit(0);
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(error instanceof KvError ? 2 : 1);
  }
}

const config = readConfig();
const log = createLogger({ level: config.logLevel, fields: { component: 'operator' } });
main(config, log).then(
  (code) => process.exit(code),
  (error: unknown) => {
    log.error({ error }, 'the operator failed');
    process.exit(1);
  },
);
