import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { LocalCluster } from '../../client/local-cluster.ts';
import { KvError } from '../../common/errors.ts';
import type { Member } from '../../model/cluster-map.ts';
import type { KVCluster } from '../../model/kvcluster.ts';
import { type NodePorts, workerNames, workerPorts } from '../../model/workers.ts';
import { DEFAULT_BASE_PORT, MAX_LOCAL_NODES_WITH_WORKERS, MAX_LOCAL_WORKERS } from './arguments.ts';

/** Address that everything listens on. */
export const LOOPBACK = '127.0.0.1';
const PEER_OFFSET = 1000;
const HTTP_OFFSET = 2000;
const DEFAULT_HTTP_BASE = 9091;
const MAX_PORT = 65_535;

/** A node as the runner raises it: one process, or the workers that one looks after. */
export interface LocalNode {
  readonly nodeId: string;
  readonly dataDir: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly httpPort: number;
  readonly workers: number;
}

/** Names of the first nodes of a cluster. */
export function firstNodes(cluster: KVCluster, count: number): readonly string[] {
  return Array.from({ length: count }, (_, ordinal) => `${cluster.name}-${ordinal}`);
}

export interface LayoutOptions {
  readonly dataDir: string;
  /** First client port; 0: any free ports. */
  readonly basePort: number;
  /** Of each node. */
  readonly workers: number;
}

/**
 * Directories and ports of nodes; each name ends with the node's ordinal.
 *
 * @throws KvError INVALID_ARGUMENT when their ports would meet.
 */
export async function layOut(
  names: readonly string[],
  { dataDir, basePort, workers }: LayoutOptions,
): Promise<readonly LocalNode[]> {
  const ordinals = names.map((nodeId, index) => Number(/\d+$/.exec(nodeId)?.[0] ?? index));
  const free = basePort === 0 ? await freePorts(names.length, workers) : undefined;
  if (free === undefined) requireRoom(ordinals, workers);
  const httpBase = basePort === DEFAULT_BASE_PORT ? DEFAULT_HTTP_BASE : basePort + HTTP_OFFSET;
  return names.map((nodeId, index) => {
    const ordinal = ordinals[index] ?? index;
    return {
      nodeId,
      dataDir: join(dataDir, nodeId),
      clientPort: free?.[index]?.client ?? basePort + ordinal,
      peerPort: free?.[index]?.peer ?? basePort + PEER_OFFSET + ordinal,
      httpPort: free?.[index]?.http ?? httpBase + ordinal,
      workers,
    };
  });
}

function requireRoom(ordinals: readonly number[], workers: number): void {
  if (workers === 1) return;
  if (workers <= MAX_LOCAL_WORKERS && Math.max(...ordinals) < MAX_LOCAL_NODES_WITH_WORKERS) return;
  throw new KvError(
    'INVALID_ARGUMENT',
    `on one machine there is room for ${MAX_LOCAL_NODES_WITH_WORKERS} nodes of ${MAX_LOCAL_WORKERS} workers each: ` +
      'name fewer with --nodes or --workers, or take any free ports with --base-port 0',
  );
}

/** The members of the cluster map that a node is. */
export function membersFor(node: LocalNode): readonly Member[] {
  const { nodeId: pod, workers } = node;
  return workerNames(pod, workers).map((nodeId, worker) => {
    const { client, peer, http } = workerPorts(portsOf(node), worker, workers);
    const ports = { clientPort: client, peerPort: peer, httpPort: http };
    return { nodeId, host: LOOPBACK, ...ports, zone: '', state: 'active', pod };
  });
}

function portsOf({ clientPort, peerPort, httpPort }: LocalNode): NodePorts {
  return { client: clientPort, peer: peerPort, http: httpPort };
}

/** Every port that a node listens on, its workers included. */
function allPorts(pod: NodePorts, workers: number): readonly number[] {
  const own = Array.from({ length: workers }, (_, worker) =>
    Object.values(workerPorts(pod, worker, workers)),
  );
  return [...new Set([pod.client, pod.http, ...own.flat()])];
}

/** What kvctl reads from the data directory. */
export function describeLayout(cluster: KVCluster, nodes: readonly LocalNode[]): LocalCluster {
  return {
    format: 1,
    namespace: cluster.namespace,
    name: cluster.name,
    nodes: nodes.flatMap(membersFor).map(({ nodeId, pod, clientPort, peerPort, httpPort }) => ({
      nodeId,
      ...(pod === nodeId ? {} : { pod }),
      client: `${LOOPBACK}:${clientPort}`,
      peer: `${LOOPBACK}:${peerPort}`,
      http: `${LOOPBACK}:${httpPort}`,
    })),
  };
}

/**
 * Checks that every port can be had, before any process is started.
 *
 * @throws KvError FAILED_PRECONDITION naming the ports that are taken.
 */
export async function requireFreePorts(nodes: readonly LocalNode[]): Promise<void> {
  const ports = nodes.flatMap((node) => allPorts(portsOf(node), node.workers));
  const free = await Promise.all(ports.map(isFree));
  const taken = ports.filter((_port, index) => free[index] !== true);
  if (taken.length === 0) return;
  const which = taken.length === 1 ? `port ${taken.join()} is` : `ports ${taken.join(', ')} are`;
  throw new KvError(
    'FAILED_PRECONDITION',
    `${which} taken by another process: stop it, or choose other ports with --base-port`,
  );
}

async function isFree(port: number): Promise<boolean> {
  try {
    await boundPort(port);
    return true;
  } catch {
    return false;
  }
}

/** Ports for so many nodes of which all are free that their workers need as well. */
async function freePorts(nodes: number, workers: number): Promise<readonly NodePorts[]> {
  const taken = new Set<number>();
  const chosen: NodePorts[] = [];
  while (chosen.length < nodes) {
    const ports = await threeFreePorts();
    const all = allPorts(ports, workers);
    const wanted = workers === 1 ? 3 : 3 * workers + 2;
    if (all.length < wanted || all.some((port) => port > MAX_PORT || taken.has(port))) continue;
    if ((await Promise.all(all.map(isFree))).includes(false)) continue;
    for (const port of all) taken.add(port);
    chosen.push(ports);
  }
  return chosen;
}

async function threeFreePorts(): Promise<NodePorts> {
  // Held together, so that no port comes twice.
  const servers = await Promise.all([listen(0), listen(0), listen(0)]);
  const [client = 0, peer = 0, http = 0] = servers.map(portOf);
  await Promise.all(servers.map(closed));
  return { client, peer, http };
}

async function boundPort(port: number): Promise<void> {
  await closed(await listen(port));
}

type TcpServer = ReturnType<typeof createServer>;

async function listen(port: number): Promise<TcpServer> {
  const server = createServer().listen({ host: LOOPBACK, port, exclusive: true });
  await once(server, 'listening');
  return server;
}

function portOf(server: TcpServer): number {
  const address = server.address();
  return address !== null && typeof address === 'object' ? address.port : 0;
}

async function closed(server: TcpServer): Promise<void> {
  server.close();
  await once(server, 'close');
}
