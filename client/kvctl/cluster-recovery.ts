import type { Command } from 'commander';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { forceRemoveReplicas, markDown, partitionsAtRisk, replaceVolume } from '../../model/map-commands.ts';
import type { Reports } from '../../model/moves.ts';
import type { AdminClient } from '../admin-client.ts';
import { askMembers, findMap, type MemberSeeds, targetOf } from '../members.ts';
import { moveReportOf } from '../move-reports.ts';
import { publishMap } from '../publish-map.ts';
import { type AdminOptions, usingAdmin, withAdminOptions } from './connection-options.ts';
import { CommandFailed, type KvctlContext, UsageError } from './context.ts';
import { writeLine } from './output.ts';

interface RecoveryOptions extends AdminOptions {
  readonly yes?: boolean;
}

/** What a recovery command works on. */
interface Scene {
  readonly admin: AdminClient;
  readonly seeds: MemberSeeds;
  readonly map: ClusterMap;
  readonly reports: Reports;
}

const YES = ['--yes', 'do it; without it only say what would be done and what may be lost'] as const;

/** The commands for when something does not come back: each says what may be lost, and acts with --yes only. */
export function addClusterRecovery(cluster: Command, context: KvctlContext): void {
  const recovery = (
    name: string,
    description: string,
    act: (scene: Scene, node: string) => Promise<Plan>,
  ): void => {
    withAdminOptions(cluster.command(name))
      .description(description)
      .argument('<node>')
      .option(...YES)
      .action(async (node: string, options: RecoveryOptions) => {
        await usingAdmin(context, options, async (admin, seeds) => {
          const scene = await lookAt(context, admin, seeds);
          if (scene.map.members.every(({ nodeId }) => nodeId !== node)) {
            const names = scene.map.members.map(({ nodeId }) => nodeId);
            throw new UsageError(`the cluster has no node ${node}: ${names.join(', ')}`);
          }
          const { what, cost, carryOut } = await act(scene, node);
          await writeLine(context, what);
          await writeLine(context, cost);
          if (options.yes !== true) throw new CommandFailed('nothing was done: add --yes to do it');
          await writeLine(context, await carryOut());
        });
      });
  };
  recovery('replace', 'set the volume of a node aside and let it begin blank', (scene, node) =>
    Promise.resolve(planReplace(context, scene, node)),
  );
  recovery('mark-down', 'wait no longer for a node that is away when partitions move', (scene, node) =>
    Promise.resolve(planMarkDown(context, scene, node)),
  );
  recovery(
    'remove-lost',
    'take all partitions from a node that is marked down and will not come back',
    (scene, node) => Promise.resolve(planRemoveLost(context, scene, node)),
  );
  recovery('force-activate', 'make a node serve what it has, although others may have more', (scene, node) =>
    planForceActivate(context, scene, node),
  );
}

interface Plan {
  readonly what: string;
  readonly cost: string;
  /** Resolves with what was done. */
  readonly carryOut: () => Promise<string>;
}

async function lookAt(context: KvctlContext, admin: AdminClient, seeds: MemberSeeds): Promise<Scene> {
  const map = await findMap(admin, seeds, context.signal);
  const members = await askMembers(admin, map, seeds, context.signal);
  const reports: Reports = new Map(
    members.flatMap(({ target, status }) =>
      status === undefined ? [] : [[target.nodeId, moveReportOf(status)] as const],
    ),
  );
  return { admin, seeds, map, reports };
}

function costOf({ map, reports }: Scene, node: string): string {
  const atRisk = partitionsAtRisk(map, [node], reports);
  return atRisk.length === 0
    ? 'Nothing that was acknowledged at QUORUM or ALL is lost by it: enough other replicas serve everything.'
    : `WARNING: ${atRisk.length} of ${map.partitions} partitions may lose acknowledged writes: too few of their other ` +
        'replicas are there and serve.';
}

async function publish(
  context: KvctlContext,
  { admin, seeds, map }: Scene,
  next: ClusterMap,
): Promise<string> {
  await publishMap({
    admin,
    from: map,
    map: next,
    targetOf: (nodeId) => {
      const member = next.members.find((other) => other.nodeId === nodeId);
      return member === undefined ? undefined : targetOf(member, seeds);
    },
    signal: context.signal,
  });
  return `done: the cluster map has epoch ${next.epoch}`;
}

function planReplace(context: KvctlContext, scene: Scene, node: string): Plan {
  const incarnations = new Set([
    scene.reports.get(node)?.incarnation ?? 0,
    ...[...scene.reports.values()].map(({ peerIncarnations }) => peerIncarnations?.get(node) ?? 0),
  ]);
  incarnations.delete(0);
  const [incarnation] = incarnations;
  if (incarnation === undefined)
    throw new CommandFailed(`nobody knows a volume of ${node}: there is nothing to replace`);
  return {
    what: `The volume of ${node} is set aside where it is, and ${node} begins blank and fills from the others.`,
    cost: costOf(scene, node),
    carryOut: () => publish(context, scene, replaceVolume(scene.map, node, incarnation)),
  };
}

function planMarkDown(context: KvctlContext, scene: Scene, node: string): Plan {
  const away = scene.reports.has(node)
    ? ` WARNING: ${node} answers; it is refused until it holds the newest map.`
    : '';
  return {
    what: `Moves and other changes of the map wait no longer for ${node}; it keeps its partitions.${away}`,
    cost: 'Nothing is lost by it.',
    carryOut: () => publish(context, scene, markDown(scene.map, node)),
  };
}

function planRemoveLost(context: KvctlContext, scene: Scene, node: string): Plan {
  const { map, mayLose } = forceRemoveReplicas(scene.map, [node], scene.reports);
  return {
    what: `${node} holds nothing any more by the map; the missing copies are made from the replicas that are left.`,
    cost:
      mayLose.length === 0
        ? 'Nothing that was acknowledged at QUORUM or ALL is lost by it: enough other replicas serve everything.'
        : `WARNING: ${mayLose.length} of ${map.partitions} partitions may lose acknowledged writes.`,
    carryOut: () => publish(context, scene, map),
  };
}

async function planForceActivate(context: KvctlContext, scene: Scene, node: string): Promise<Plan> {
  const { admin, seeds, map } = scene;
  const member = map.members.find(({ nodeId }) => nodeId === node);
  if (member === undefined) throw new UsageError(`the cluster has no node ${node}`);
  const target = targetOf(member, seeds);
  const { partitions, consequence } = await admin.forceActivate(target, { dryRun: true }, context.signal);
  return {
    what: `${partitions.length} partitions of ${node} are not readable and become so.`,
    cost: partitions.length === 0 ? 'Nothing changes.' : `WARNING: ${consequence}.`,
    carryOut: async () => {
      const done = await admin.forceActivate(target, { dryRun: false }, context.signal);
      return `done: ${done.partitions.length} partitions were made readable`;
    },
  };
}
