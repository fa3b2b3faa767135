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
import type { KVCluster } from '../../model/kvcluster.ts';
import { lockDirectory } from '../storage/lock.ts';
import type { RunnerArguments } from './arguments.ts';
import type { RunnerOptions } from './runner-options.ts';
import { ensureSecret, knownNodes } from './data-directory.ts';
import { firstNodes, layOut, type LocalNode, LOOPBACK, memberFor, requireFreePorts } from './layout.ts';
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
  const { manifest, dataDir, nodes: count } = options.arguments;
  const cluster = await readManifest(manifest, count);
  await makeDirectory(dataDir, 0o700);
  const lock = await lockDirectory(dataDir, options.logger);
  try {
    const wanted = wantedAtStart(options.arguments, cluster);
    // An old cluster starts as it was; what else is wanted comes when it serves.
    const known = knownNodes(dataDir);
    const names = known.length > 0 ? known : wanted.nodes;
    const nodes = new LocalNodes(options, cluster, await layOut(names, dataDir, options.arguments.basePort));
    await requireFreePorts(nodes.all);
    await nodes.note();
    const { path, secret } = await ensureSecret(dataDir, options.random);
    try {
      nodes.startAll(path);
      await start(options, cluster, nodes.all, secret);
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
function wantedAtStart({ dataDir, nodes }: RunnerArguments, cluster: KVCluster): WantedCluster {
  const { replicas, replicationFactor } = cluster.spec;
  const held = readWantedCluster(dataDir);
  if (held !== undefined && nodes === undefined) return held;
  return { nodes: firstNodes(cluster, replicas), replicationFactor };
}

/** Sees to it, until the runner is stopped, that the cluster is what is wanted. */
async function steer(options: RunnerOptions, nodes: LocalNodes, secret: Buffer): Promise<void> {
  const { clock, scheduler, random, print, stop, arguments: given } = options;
  const admin = createAdminClient({ secret, sender: 'runner', clock, random });
  const steering = new Steering({
    admin,
    nodes: () => nodes.all.map(memberFor),
    targetOf: (nodeId) => nodes.targetOf(nodeId),
    wanted: () => readWantedCluster(given.dataDir) ?? { nodes: nodes.names, replicationFactor: 1 },
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
      await nodes.keep(map.members.map(({ nodeId }) => nodeId));
      settledOn = wanted;
    }
  } finally {
    admin.close();
  }
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
