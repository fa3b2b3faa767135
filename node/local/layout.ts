import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { LocalCluster } from '../../client/local-cluster.ts';
import { KvError } from '../../common/errors.ts';
import type { Member } from '../../model/cluster-map.ts';
import type { KVCluster } from '../../model/kvcluster.ts';
import { DEFAULT_BASE_PORT } from './arguments.ts';

/** Address that everything listens on. */
export const LOOPBACK = '127.0.0.1';
const PEER_OFFSET = 1000;
const HTTP_OFFSET = 2000;
const DEFAULT_HTTP_BASE = 9091;

/** A node as the runner raises it. */
export interface LocalNode {
  readonly nodeId: string;
  readonly dataDir: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly httpPort: number;
}

/** Names of the first nodes of a cluster. */
export function firstNodes(cluster: KVCluster, count: number): readonly string[] {
  return Array.from({ length: count }, (_, ordinal) => `${cluster.name}-${ordinal}`);
}

/** Directories and ports of nodes; each name ends with the node's ordinal. */
export async function layOut(
  names: readonly string[],
  dataDir: string,
  basePort: number,
): Promise<readonly LocalNode[]> {
  const free = basePort === 0 ? await freePorts(3 * names.length) : [];
  const httpBase = basePort === DEFAULT_BASE_PORT ? DEFAULT_HTTP_BASE : basePort + HTTP_OFFSET;
  return names.map((nodeId, index) => {
    const ordinal = Number(/\d+$/.exec(nodeId)?.[0] ?? index);
    return {
      nodeId,
      dataDir: join(dataDir, nodeId),
      clientPort: free[3 * index] ?? basePort + ordinal,
      peerPort: free[3 * index + 1] ?? basePort + PEER_OFFSET + ordinal,
      httpPort: free[3 * index + 2] ?? httpBase + ordinal,
    };
  });
}

/** The node as the cluster map has it. */
export function memberFor({ nodeId, clientPort, peerPort, httpPort }: LocalNode): Member {
  return { nodeId, host: LOOPBACK, clientPort, peerPort, httpPort, zone: '', state: 'active', pod: nodeId };
}

/** What kvctl reads from the data directory. */
export function describeLayout(cluster: KVCluster, nodes: readonly LocalNode[]): LocalCluster {
  return {
    format: 1,
    namespace: cluster.namespace,
    name: cluster.name,
    nodes: nodes.map(({ nodeId, clientPort, peerPort, httpPort }) => ({
      nodeId,
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
  const ports = nodes.flatMap(({ clientPort, peerPort, httpPort }) => [clientPort, peerPort, httpPort]);
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

async function freePorts(count: number): Promise<readonly number[]> {
  // Held together, so that no port comes twice.
  const servers = await Promise.all(Array.from({ length: count }, () => listen(0)));
  const ports = servers.map(portOf);
  await Promise.all(servers.map(closed));
  return ports;
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
