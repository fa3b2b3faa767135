import { join, resolve } from 'node:path';
import { createAdminClient } from '../../client/admin-client.ts';
import { LOCAL_DATA_DIR } from '../../client/local-cluster.ts';
import { type Clock, type Scheduler, abortReason } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import { makeDirectory } from '../../common/make-directory.ts';
import type { Random } from '../../common/random.ts';
import type { KVCluster } from '../../model/kvcluster.ts';
import { lockDirectory } from '../storage/lock.ts';
import type { RunnerArguments } from './arguments.ts';
import { ensureSecret, noteCluster } from './data-directory.ts';
import { LOOPBACK, type LocalNode, describeLayout, layOut, memberFor, requireFreePorts } from './layout.ts';
import { readManifest } from './manifest.ts';
import { NodeProcess } from './node-process.ts';
import { startCluster } from './start-cluster.ts';

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

/** Silence at the start after which the person is told what is waited for, milliseconds. */
const PATIENCE_MS = 5000;

/**
 * Runs the cluster until it is told to stop.
 *
 * @throws KvError with one sentence for a person when the manifest, a port or the data directory forbids it; nothing is
 * left running then.
 */
export async function runLocalCluster(options: RunnerOptions): Promise<void> {
  const { manifest, dataDir, basePort, nodes: count } = options.arguments;
  const cluster = await readManifest(manifest, count);
  await makeDirectory(dataDir, 0o700);
  const lock = await lockDirectory(dataDir, options.logger);
  try {
    const nodes = await layOut(cluster, dataDir, basePort);
    await requireFreePorts(nodes);
    await noteCluster(dataDir, cluster, describeLayout(cluster, nodes));
    const { path, secret } = await ensureSecret(dataDir, options.random);
    const processes = nodes.map((node) => nodeProcess(options, cluster, node, nodes, path));
    try {
      for (const started of processes) started.start();
      await start(options, cluster, nodes, secret);
      options.print(banner(options.arguments, cluster, nodes));
      await aborted(options.stop);
    } catch (error) {
      if (!options.stop.aborted) throw error;
    } finally {
      await stopAll(options, processes);
    }
  } finally {
    await lock.release();
  }
}

function nodeProcess(
  options: RunnerOptions,
  cluster: KVCluster,
  node: LocalNode,
  all: readonly LocalNode[],
  secretFile: string,
): NodeProcess {
  const { dataDir, verbose } = options.arguments;
  const peers = all.map(({ nodeId, peerPort }) => `${nodeId}=${LOOPBACK}:${peerPort}`);
  const flags = {
    'node-id': node.nodeId,
    host: LOOPBACK,
    namespace: cluster.namespace,
    'cluster-name': cluster.name,
    'data-dir': node.dataDir,
    'secret-file': secretFile,
    partitions: String(cluster.spec.partitions),
    listen: LOOPBACK,
    'client-port': String(node.clientPort),
    'peer-port': String(node.peerPort),
    'http-port': String(node.httpPort),
    discovery: 'static',
    peers: peers.join(','),
    // Nobody balances load over local nodes, so there is no need to serve on while others notice.
    'drain-serve-ms': '0',
    'drain-timeout-ms': '5000',
  };
  const { print, clock, scheduler, random } = options;
  return new NodeProcess({
    nodeId: node.nodeId,
    flags: Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]),
    logFile: verbose ? undefined : join(dataDir, 'logs', `${node.nodeId}.log`),
    print,
    clock,
    scheduler,
    random,
  });
}

async function start(
  options: RunnerOptions,
  cluster: KVCluster,
  nodes: readonly LocalNode[],
  secret: Buffer,
): Promise<void> {
  const { clock, scheduler, random, print, stop } = options;
  const admin = createAdminClient({ secret, sender: 'runner', clock, random });
  let toldAtMs = clock.monotonicMs();
  try {
    await startCluster({
      cluster,
      members: nodes.map(memberFor),
      targets: nodes.map(({ nodeId, peerPort }) => ({ nodeId, address: `${LOOPBACK}:${peerPort}` })),
      admin,
      scheduler,
      random,
      waiting: (what) => {
        if (clock.monotonicMs() - toldAtMs < PATIENCE_MS) return;
        toldAtMs = clock.monotonicMs();
        print(`the nodes are still starting (${what})`);
      },
      signal: stop,
    });
  } finally {
    admin.close();
  }
}

function banner(
  { dataDir, verbose }: RunnerArguments,
  cluster: KVCluster,
  nodes: readonly LocalNode[],
): string {
  const width = Math.max(...nodes.map(({ nodeId }) => nodeId.length));
  const option = resolve(dataDir) === resolve(LOCAL_DATA_DIR) ? '' : ` --data-dir ${dataDir}`;
  return [
    '',
    `KVCluster ${cluster.namespace}/${cluster.name} is ready: ${nodes.length} ${nodes.length === 1 ? 'node' : 'nodes'}`,
    '',
    ...nodes.map(
      ({ nodeId, clientPort, httpPort }) =>
        `  ${nodeId.padEnd(width)}  clients ${LOOPBACK}:${clientPort}  metrics http://${LOOPBACK}:${httpPort}/metrics`,
    ),
    '',
    `  data  ${dataDir}${verbose ? '' : `    logs  ${join(dataDir, 'logs')}`}`,
    `  try   npm run -s kvctl --${option} put hello world`,
    `        npm run -s kvctl --${option} status`,
    '',
    'Ctrl-C stops it.',
  ].join('\n');
}

async function stopAll(options: RunnerOptions, processes: readonly NodeProcess[]): Promise<void> {
  const killAll = (): void => processes.forEach((node) => node.kill());
  if (options.kill.aborted) killAll();
  options.kill.addEventListener('abort', killAll, { once: true });
  await Promise.all(processes.map((node) => node.stop()));
  options.kill.removeEventListener('abort', killAll);
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(abortReason(signal));
    signal.addEventListener('abort', () => reject(abortReason(signal)), { once: true });
  });
}
