import { type Command, Option } from 'commander';
import { messageOf } from '../../common/errors.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import type { GetStatusResponse } from '../../proto/gen/admin.ts';
import { StoreState } from '../../proto/gen/peer.ts';
import { type MemberReport, askMembers, findMap } from '../members.ts';
import { type AdminOptions, usingAdmin, withAdminOptions } from './connection-options.ts';
import { CommandFailed, type KvctlContext } from './context.ts';
import { formatBytes, writeJson, writeLine, writeTable } from './output.ts';

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
  await writeTable(
    context,
    ['NODE', 'STATE', 'READY', 'IN SYNC', 'BEHIND', 'EPOCH', 'RECORDS', 'DISK', 'VERSION', 'NOTE'],
    reports.map(rowOf),
  );
}

function rowOf({ target, status, error }: MemberReport): string[] {
  if (status === undefined) {
    return [target.nodeId, 'unreachable', '-', '-', '-', '-', '-', '-', '-', messageOf(error)];
  }
  return [
    target.nodeId,
    status.draining ? 'draining' : stateName(status.state),
    yesNo(status.ready),
    yesNo(status.inSync),
    String(behind(status)),
    String(status.epoch),
    String(status.records),
    formatBytes(status.stateBytes + status.logBytes),
    status.version,
    status.notReadyReason,
  ];
}

/** Entries of all peers' logs that the node has yet to apply. */
function behind(status: GetStatusResponse): number {
  return status.peers.reduce((sum, peer) => sum + peer.behind, 0);
}

const stateNames = new Map<StoreState, string>([
  [StoreState.BLANK, 'blank'],
  [StoreState.READABLE, 'readable'],
  [StoreState.REBUILDING, 'rebuilding'],
]);

function stateName(state: StoreState): string {
  return stateNames.get(state) ?? 'unknown';
}

function yesNo(value: boolean): string {
  return value ? 'yes' : 'no';
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
            peers: status.peers.map((peer) => ({ ...peer, state: stateName(peer.state) })),
          },
    ),
  });
}
