import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { readSharedSecret } from '../../common/shared-secret.ts';
import { type AdminClient, createAdminClient } from '../admin-client.ts';
import { fullServiceName } from '../headless-service.ts';
import { type Consistency, KvClient } from '../kv-client.ts';
import {
  LOCAL_CLUSTER_FILE,
  LOCAL_DATA_DIR,
  LOCAL_SECRET_FILE,
  type LocalCluster,
  readLocalCluster,
} from '../local-cluster.ts';
import type { MemberSeeds } from '../members.ts';
import { type KvctlContext, UsageError } from './context.ts';
import { parseDurationMs } from './duration.ts';

/** Options of every command that talks to the client API. */
export interface ClientOptions {
  readonly endpoints?: string;
  readonly dataDir?: string;
  readonly timeout: number;
}

/** Options of every command that talks to the admin service. */
export interface AdminOptions {
  readonly service?: string;
  readonly clusterDomain?: string;
  readonly members?: MemberSeeds;
  readonly secretFile?: string;
  readonly dataDir?: string;
}

/** Without anything said, and no local cluster here. */
const FALLBACK_ENDPOINT = '127.0.0.1:50051';

const dataDirOption = (): Option =>
  new Option(
    '--data-dir <dir>',
    `data directory of a local cluster (default: ${LOCAL_DATA_DIR} when it is there)`,
  ).env('KVCTL_DATA_DIR');

/** Adds the options of the client API. */
export function withClientOptions(command: Command): Command {
  return command
    .addOption(new Option('--endpoints <list>', 'nodes or Services, host:port,...').env('KVCTL_ENDPOINTS'))
    .addOption(dataDirOption())
    .addOption(durationOption('--timeout <duration>', 'for the operation with its retries', 5000, '5s'));
}

/** Adds the options of the admin service. */
export function withAdminOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--service <name.namespace>', 'headless Service of the cluster')
        .env('KVCTL_SERVICE')
        .conflicts('members'),
    )
    .addOption(new Option('--cluster-domain <domain>', 'of DNS names (default: from resolv.conf)'))
    .addOption(
      new Option('--members <list>', 'peer ports of nodes, name=host:port,...')
        .env('KVCTL_MEMBERS')
        .argParser(parseMembers),
    )
    .addOption(new Option('--secret-file <file>', "the cluster's secret").env('KVCTL_SECRET_FILE'))
    .addOption(dataDirOption());
}

/** An option that takes a duration such as `30s`. */
export function durationOption(flags: string, help: string, defaultMs?: number, shown?: string): Option {
  const option = new Option(flags, help).argParser((text: string) => {
    const parsed = parseDurationMs(text);
    if (parsed === undefined || parsed < 1)
      throw new InvalidArgumentError('write it as 500ms, 30s, 5m, 2h or 7d');
    return parsed;
  });
  return defaultMs === undefined ? option : option.default(defaultMs, shown);
}

/** The option that chooses how many replicas take part. */
export function consistencyOption(): Option {
  return new Option('-c, --consistency <level>', 'one, quorum or all (default: quorum)').argParser(
    (text: string): Consistency => {
      const level = (['ONE', 'QUORUM', 'ALL'] as const).find((known) => known === text.toUpperCase());
      if (level === undefined) throw new InvalidArgumentError('it is one, quorum or all');
      return level;
    },
  );
}

/** An option that takes a whole number of at least 1. */
export function countOption(flags: string, help: string): Option {
  return new Option(flags, help).argParser((text: string) => {
    if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('it is a whole number from 1');
    return Number(text);
  });
}

/** Connects to the client API, runs `use`, and closes. */
export async function usingClient<Result>(
  context: KvctlContext,
  options: ClientOptions,
  use: (client: KvClient) => Promise<Result>,
): Promise<Result> {
  const { clock, scheduler, random, signal } = context;
  const endpoints = options.endpoints ?? localEndpoints(context, options.dataDir);
  const timeoutMs = options.timeout;
  await using client = await KvClient.connect({
    endpoints,
    timeoutMs,
    signal,
    // One operation has seen nothing before, and is not worth a connection to each node.
    consistency: 'QUORUM',
    routing: false,
    clock,
    scheduler,
    random,
  });
  return await use(client);
}

/** Opens the admin service, runs `use`, and closes. */
export async function usingAdmin<Result>(
  context: KvctlContext,
  options: AdminOptions,
  use: (admin: AdminClient, seeds: MemberSeeds) => Promise<Result>,
): Promise<Result> {
  const { seeds, secretFile } = await locate(context, options);
  const secret = await readSharedSecret(secretFile);
  const admin = createAdminClient({ secret, sender: 'kvctl', clock: context.clock, random: context.random });
  try {
    return await use(admin, seeds);
  } finally {
    admin.close();
  }
}

async function locate(
  context: KvctlContext,
  options: AdminOptions,
): Promise<{ seeds: MemberSeeds; secretFile: string }> {
  const named = options.service !== undefined || options.members !== undefined;
  const dataDir =
    named && options.secretFile !== undefined ? undefined : localDataDir(context, options.dataDir);
  const secretFile =
    options.secretFile === undefined
      ? dataDir === undefined
        ? undefined
        : join(dataDir, LOCAL_SECRET_FILE)
      : resolve(context.directory, options.secretFile);
  if (secretFile === undefined)
    throw new UsageError("name the cluster's secret: --secret-file, or --data-dir");
  if (options.service !== undefined) {
    const service = await fullServiceName(options.service, options.clusterDomain);
    return { seeds: { kind: 'service', service }, secretFile };
  }
  if (options.members !== undefined) return { seeds: options.members, secretFile };
  if (dataDir !== undefined) return { seeds: localSeeds(readLocalCluster(dataDir)), secretFile };
  throw new UsageError('name the members: --service, --members or --data-dir');
}

/** The members of a local cluster. */
export function localSeeds(cluster: LocalCluster): MemberSeeds {
  return { kind: 'list', targets: cluster.nodes.map(({ nodeId, peer }) => ({ nodeId, address: peer })) };
}

function localEndpoints(context: KvctlContext, given: string | undefined): readonly string[] {
  const dataDir = localDataDir(context, given);
  return dataDir === undefined
    ? [FALLBACK_ENDPOINT]
    : readLocalCluster(dataDir).nodes.map(({ client }) => client);
}

/** The data directory of a local cluster; undefined when there is none here and none is named. */
export function localDataDir(context: KvctlContext, given: string | undefined): string | undefined {
  if (given !== undefined) return resolve(context.directory, given);
  const usual = join(context.directory, LOCAL_DATA_DIR);
  return existsSync(join(usual, LOCAL_CLUSTER_FILE)) ? usual : undefined;
}

function parseMembers(list: string): MemberSeeds {
  const targets = list.split(',').map((entry) => {
    const match = /^([^=\s]+)=(\[[^\]\s]+\]|[^:\s[\]]+):(\d{1,5})$/.exec(entry.trim());
    if (match === null) throw new InvalidArgumentError(`"${entry}" is not name=host:port`);
    return { nodeId: match[1] ?? '', address: `${match[2] ?? ''}:${match[3] ?? ''}` };
  });
  return { kind: 'list', targets };
}
