import type { Command } from 'commander';
import { sleep } from '../../common/clock.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { nextStep } from '../../model/moves.ts';
import { workersInMap } from '../../model/workers.ts';
import {
  isWantedMember,
  readLocalCluster,
  readWantedCluster,
  type WantedCluster,
  writeWantedCluster,
} from '../local-cluster.ts';
import type { AdminClient } from '../admin-client.ts';
import { askMembers, findMap, type MemberSeeds } from '../members.ts';
import { moveReportOf } from '../move-reports.ts';
import {
  type AdminOptions,
  localDataDir,
  localSeeds,
  usingAdmin,
  withAdminOptions,
} from './connection-options.ts';
import { type KvctlContext, UsageError } from './context.ts';
import { writeLine } from './output.ts';

const LOOK_MS = 500;

/** `kvctl cluster add` and `kvctl cluster remove`: the size of a local cluster. */
export function addClusterSize(cluster: Command, context: KvctlContext): void {
  withAdminOptions(cluster.command('add'))
    .description('add nodes to a local cluster; partitions move to them while it serves')
    .argument('[count]', 'how many', '1')
    .action(async (count: string, options: AdminOptions) => {
      const added = Number(count);
      if (!Number.isSafeInteger(added) || added < 1)
        throw new UsageError(`"${count}" is not a number of nodes`);
      await resize(context, options, (wanted, name) => ({
        ...wanted,
        nodes: withMore(wanted.nodes, name, added),
      }));
    });
  withAdminOptions(cluster.command('remove'))
    .description('empty a node of a local cluster, then stop it; its data directory stays')
    .argument('<node>')
    .action(async (node: string, options: AdminOptions) => {
      await resize(context, options, (wanted) => {
        if (!wanted.nodes.includes(node)) {
          throw new UsageError(`there is no node ${node}: ${wanted.nodes.join(', ')}`);
        }
        if (wanted.nodes.length === 1) throw new UsageError(`${node} is the last node`);
        return { ...wanted, nodes: wanted.nodes.filter((other) => other !== node) };
      });
    });
}

/** The lowest ordinals that are free. */
function withMore(nodes: readonly string[], cluster: string, count: number): readonly string[] {
  const all = [...nodes];
  for (let ordinal = 0; all.length < nodes.length + count; ordinal += 1) {
    const name = `${cluster}-${ordinal}`;
    if (!all.includes(name)) all.push(name);
  }
  return all;
}

async function resize(
  context: KvctlContext,
  options: AdminOptions,
  change: (wanted: WantedCluster, cluster: string) => WantedCluster,
): Promise<void> {
  const { dataDir, signal, scheduler } = { ...context, dataDir: localDirectory(context, options) };
  const local = readLocalCluster(dataDir);
  await usingAdmin(context, options, async (admin, seeds) => {
    const map = await findMap(admin, seeds, signal);
    const held = readWantedCluster(dataDir) ?? {
      nodes: [...new Set(local.nodes.map(({ nodeId, pod }) => pod ?? nodeId))],
      replicationFactor: map.replicationFactor,
      workersPerPod: workersInMap(map),
    };
    const wanted = change(held, local.name);
    writeWantedCluster(dataDir, wanted);
    await writeLine(
      context,
      `${held.nodes.length} nodes become ${wanted.nodes.length}: ${wanted.nodes.join(', ')}`,
    );
    let told = '';
    for (;;) {
      const current = localSeeds(readLocalCluster(dataDir));
      const now = await findMap(admin, current, signal).catch(() => undefined);
      if (now !== undefined) {
        if (await isReached({ admin, signal }, now, wanted, current)) break;
        const progress = progressOf(now);
        if (progress !== told) await writeLine(context, progress);
        told = progress;
      }
      await sleep(scheduler, LOOK_MS, signal);
    }
    await writeLine(context, 'done');
  });
}

function localDirectory(context: KvctlContext, options: AdminOptions): string {
  const dataDir = localDataDir(context, options.dataDir);
  if (dataDir !== undefined && options.service === undefined && options.members === undefined) return dataDir;
  throw new UsageError(
    'this changes a local cluster (--data-dir); on Kubernetes: kubectl scale kvc NAME --replicas=N',
  );
}

/** Whether there is nothing left to do, by what the members report. */
async function isReached(
  { admin, signal }: { admin: AdminClient; signal: AbortSignal },
  map: ClusterMap,
  wanted: WantedCluster,
  seeds: MemberSeeds,
): Promise<boolean> {
  const members = map.members.filter((member) => isWantedMember(wanted, member));
  const count = wanted.nodes.length * wanted.workersPerPod;
  if (map.moving !== undefined || members.length !== count) return false;
  const reports = new Map(
    (await askMembers(admin, map, seeds, signal)).flatMap(({ target, status }) =>
      status === undefined ? [] : [[target.nodeId, moveReportOf(status)] as const],
    ),
  );
  const { replicationFactor } = wanted;
  return nextStep(map, { members, replicationFactor }, reports).kind === 'done';
}

function progressOf({ epoch, members, moving }: ClusterMap): string {
  const names = members.map(({ nodeId, state }) => (state === 'active' ? nodeId : `${nodeId} (${state})`));
  const move =
    moving === undefined ? '' : `, ${moving.partitions.length} partitions move (step ${moving.phase} of 2)`;
  return `epoch ${epoch}: ${names.join(', ')}${move}`;
}
