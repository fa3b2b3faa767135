import { type Command, Option } from 'commander';
import { messageOf } from '../../common/errors.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { type MemberReport, askMembers, findMap } from '../members.ts';
import { type AdminOptions, usingAdmin, withAdminOptions } from './connection-options.ts';
import { CommandFailed, type KvctlContext } from './context.ts';
import { writeJson, writeLine, writeTable } from './output.ts';
import { behind, clockSkewMs, stateName, STATUS_HEADINGS, statusRow } from './status-table.ts';

interface StatusCommandOptions extends AdminOptions {
  readonly output: 'table' | 'json';
}

export function addStatus(program: Command, context: KvctlContext): void {
  withAdminOptions(program.command('status'))
    .description('show the members: what they hold, whether they are ready and in sync')
    .addOption(new Option('-o, --output <form>', 'what to print').choices(['table', 'json']).default('table'))
    .action(async (options: StatusCommandOptions) => {
      const { map, reports } = await usingAdmin(context, options, async (admin, seeds) => {
        const newest = await findMap(admin, seeds, context.signal);
        return { map: newest, reports: await askMembers(admin, newest, seeds, context.signal) };
      });
      await (options.output === 'json'
        ? printJson(context, map, reports)
        : printTable(context, map, reports));
      if (reports.every(({ status }) => status === undefined)) throw new CommandFailed('no member answers');
    });
}

async function printTable(
  context: KvctlContext,
  map: ClusterMap,
  reports: readonly MemberReport[],
): Promise<void> {
  const state = map.initialised ? '' : ', starting';
  await writeLine(
    context,
    `${map.namespace}/${map.name}  cluster ${map.clusterId}  epoch ${map.epoch}  ` +
      `${map.partitions} partitions  replication factor ${map.replicationFactor}${state}`,
  );
  await writeTable(context, STATUS_HEADINGS, reports.map(statusRow));
}

function printJson(context: KvctlContext, map: ClusterMap, reports: readonly MemberReport[]): Promise<void> {
  const { clusterId, namespace, name, epoch, hash, partitions, replicationFactor, initialised } = map;
  return writeJson(context, {
    cluster: { clusterId, namespace, name, epoch, hash, partitions, replicationFactor, initialised },
    nodes: reports.map(({ target, status, error }) =>
      status === undefined
        ? { nodeId: target.nodeId, address: target.address, reachable: false, error: messageOf(error) }
        : {
            ...status,
            nodeId: target.nodeId,
            address: target.address,
            reachable: true,
            state: stateName(status.state),
            behind: behind(status),
            clockSkewMs: clockSkewMs(status),
            peers: status.peers.map((peer) => ({ ...peer, state: stateName(peer.state) })),
          },
    ),
  });
}
