import { join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { createAdminClient } from '../../client/admin-client.ts';
import {
  LOCAL_DATA_DIR,
  readWantedCluster,
  type WantedCluster,
  writeWantedCluster,
} from '../../client/local-cluster.ts';
import { sleep } from '../../common/clock.ts';
import { makeDirectory } from '../../common/make-directory.ts';
import type { Member } from '../../model/cluster-map.ts';
import { workersInMap } from '../../model/workers.ts';
import type { KVCluster } from '../../model/kvcluster.ts';
import { lockDirectory } from '../storage/lock.ts';
import type { RunnerArguments } from './arguments.ts';
import type { RunnerOptions } from './runner-options.ts';
import { ensureSecret, knownNodes } from './data-directory.ts';
import { firstNodes, layOut, type LocalNode, LOOPBACK, requireFreePorts } from './layout.ts';
import { LocalNodes } from './local-nodes.ts';
import { readManifest } from './manifest.ts';
import { startCluster } from './start-cluster.ts';
import { Steering } from './steer.ts';

/** Silence at the start after which the person is told what is waited for, milliseconds. */
const PATIENCE_MS = 5000;

/** How often it is looked whether something else is wanted of the cluster, milliseconds. */
const LOOK_MS = 500;

/**
 * Runs the cluster until it is told to stop, and changes its size when that is wanted (kvctl cluster).
 *
 * @throws KvError with one sentence for a person when the manifest, a port or the data directory forbids it; nothing is
 * left running then.
 */
export async function runLocalCluster(options: RunnerOptions): Promise<void> {
  const { manifest, dataDir, basePort, nodes: replicas, workers: workersPerPod } = options.arguments;
  const cluster = await readManifest(manifest, { replicas, workersPerPod });
  await makeDirectory(dataDir, 0o700);
  const lock = await lockDirectory(dataDir, options.logger);
  try {
    const wanted = wantedAtStart(options.arguments, cluster);
    // An old cluster starts as it was; what else is wanted comes when it serves.
    const known = knownNodes(dataDir);
    const names = known.names.length > 0 ? known.names : wanted.nodes;
    const workers = Math.max(known.workers, wanted.workersPerPod);
    const layout = await layOut(names, { dataDir, basePort, workers });
    const nodes = new LocalNodes(options, cluster, layout);
    await requireFreePorts(nodes.all);
    await nodes.note();
    const { path, secret } = await ensureSecret(dataDir, options.random);
    try {
      nodes.startAll(path);
      await start(options, cluster, nodes.members, secret);
      options.print(banner(options.arguments, cluster, nodes.all));
      writeWantedCluster(dataDir, wanted);
      await steer(options, nodes, secret);
    } catch (error) {
      if (!options.stop.aborted) throw error;
    } finally {
      await nodes.stopAll();
    }
  } finally {
    await lock.release();
  }
}

/** What the command line says, else what was wanted last, else what the manifest says. */
function wantedAtStart({ dataDir, nodes, workers }: RunnerArguments, cluster: KVCluster): WantedCluster {
  const { replicas, replicationFactor, workersPerPod: specified } = cluster.spec;
  const held = readWantedCluster(dataDir);
  const workersPerPod = workers ?? held?.workersPerPod ?? specified;
  if (held !== undefined && nodes === undefined) return { ...held, workersPerPod };
  return { nodes: firstNodes(cluster, replicas), replicationFactor, workersPerPod };
}

/** Sees to it, until the runner is stopped, that the cluster is what is wanted. */
async function steer(options: RunnerOptions, nodes: LocalNodes, secret: Buffer): Promise<void> {
  const { clock, scheduler, random, print, stop, arguments: given } = options;
  const admin = createAdminClient({ secret, sender: 'runner', clock, random });
  const steering = new Steering({
    admin,
    nodes: () => nodes.members,
    targetOf: (nodeId) => nodes.targetOf(nodeId),
    wanted: () => wantedOr(nodes.names, given.dataDir),
    print,
    signal: stop,
  });
  let settledOn: WantedCluster | undefined;
  try {
    for (;;) {
      await sleep(scheduler, LOOK_MS, stop);
      const wanted = readWantedCluster(given.dataDir);
      if (wanted === undefined || isDeepStrictEqual(wanted, settledOn)) continue;
      await nodes.add(wanted.nodes);
      const { done, map } = await steering.look();
      if (!done || map === undefined) continue;
      await nodes.keep(map.members.map(({ pod }) => pod));
      await nodes.keepWorkers(workersInMap(map));
      settledOn = wanted;
    }
  } finally {
    admin.close();
  }
}

/** What is wanted; what there is, should nobody have said anything. */
function wantedOr(nodes: readonly string[], dataDir: string): WantedCluster {
  return readWantedCluster(dataDir) ?? { nodes, replicationFactor: 1, workersPerPod: 1 };
}

async function start(
  options: RunnerOptions,
  cluster: KVCluster,
  members: readonly Member[],
  secret: Buffer,
): Promise<void> {
  const { clock, scheduler, random, print, stop } = options;
  const admin = createAdminClient({ secret, sender: 'runner', clock, random });
  let toldAtMs = clock.monotonicMs();
  try {
    await startCluster({
      cluster,
      members,
      targets: members.map(({ nodeId, peerPort }) => ({ nodeId, address: `${LOOPBACK}:${peerPort}` })),
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
    `KVCluster ${cluster.namespace}/${cluster.name} is ready: ${sizeOf(nodes)}`,
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

function sizeOf(nodes: readonly LocalNode[]): string {
  const workers = nodes[0]?.workers ?? 1;
  return `${nodes.length} ${nodes.length === 1 ? 'node' : 'nodes'}${workers === 1 ? '' : ` of ${workers} workers`}`;
}
