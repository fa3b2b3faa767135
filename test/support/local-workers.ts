import { plaintext } from '../../client/grpc.ts';
import { KeyValueStoreClient, type PingResponse } from '../../proto/gen/kvstore.ts';
import type { LocalTestCluster } from './local-cluster.ts';
import { unary } from './unary.ts';

/** What a pod of the one-machine runner shows beside its workers: the ports that belong to all of them. */
export interface LocalPod {
  readonly name: string;
  /** `host:port` for clients that do not route by key. */
  readonly client: string;
  readonly http: string;
}

/** The pods of a cluster with several workers each, as the runner has printed them. */
export function podsOf(cluster: LocalTestCluster): readonly LocalPod[] {
  const lines = cluster.runner.output.matchAll(/^ {2}(\S+) +clients (\S+) +metrics (http:\S+)\/metrics$/gm);
  return [...lines].map(([, name = '', client = '', http = '']) => ({ name, client, http }));
}

/** Fetches a path of a pod's HTTP port. */
export async function fetchFrom(pod: LocalPod, path: string): Promise<{ status: number; body: string }> {
  const response = await fetch(`${pod.http}${path}`);
  return { status: response.status, body: await response.text() };
}

/** Names of the members that answer on so many connections to an address, one after the other. */
export async function answering(address: string, connections: number): Promise<readonly string[]> {
  const names: string[] = [];
  for (let count = 0; count < connections; count += 1) {
    // A pool of its own, or all would share one connection.
    const client = new KeyValueStoreClient(address, plaintext(), { 'grpc.use_local_subchannel_pool': 1 });
    try {
      const { nodeId } = await unary<PingResponse>((metadata, options, done) =>
        client.ping({}, metadata, options, done),
      );
      names.push(nodeId);
    } finally {
      client.close();
    }
  }
  return names;
}
