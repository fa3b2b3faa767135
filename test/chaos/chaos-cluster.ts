import type { AdminClient } from '../../client/admin-client.ts';
import { type ClusterMap, sealMap } from '../../model/cluster-map.ts';
import type { GetStatusResponse } from '../../proto/gen/admin.ts';
import { freePorts } from '../support/free-ports.ts';
import { LoopVolume } from '../support/loop-volume.ts';
import { firstMap, NodeHome } from '../support/node-process.ts';
import { PeerMesh } from '../support/peer-mesh.ts';
import { digestOf } from '../support/record-digest.ts';
import { waitFor } from '../support/wait.ts';
import { ChaosNode } from './chaos-node.ts';

export interface ChaosClusterOptions {
  /** @default 3 */
  readonly nodes?: number;
  /** The last node stores on a volume of its own of this size, which can be filled. @default none */
  readonly volumeBytes?: number;
  /** Further flags of every node. */
  readonly flags?: Readonly<Record<string, string>>;
}

const PARTITIONS = 16;
const PORTS_OF_NODE = 3;
const EQUAL_TIMEOUT_MS = 60_000;
/** A node that does not answer at once is not whole. */
const LOOK_TIMEOUT_MS = 1000;

/** Nodes as processes, with a network of ours between them. */
export class ChaosCluster implements AsyncDisposable {
  readonly nodes: readonly ChaosNode[];
  readonly mesh: PeerMesh;
  readonly admin: AdminClient;
  /** What the last node stores on. */
  readonly volume: LoopVolume | undefined;
  private readonly home: NodeHome;

  private constructor(
    nodes: readonly ChaosNode[],
    parts: { mesh: PeerMesh; home: NodeHome; volume: LoopVolume | undefined },
  ) {
    this.nodes = nodes;
    this.mesh = parts.mesh;
    this.home = parts.home;
    this.volume = parts.volume;
    this.admin = parts.home.admin();
  }

  /** Starts the nodes and waits until all of them are ready. */
  static async start({
    nodes: count = 3,
    volumeBytes,
    flags = {},
  }: ChaosClusterOptions): Promise<ChaosCluster> {
    const nodeIds = Array.from({ length: count }, (_, index) => `sample-${index}`);
    const home = new NodeHome();
    const volume = volumeBytes === undefined ? undefined : new LoopVolume(volumeBytes);
    const mesh = await PeerMesh.open(nodeIds);
    const ports = await freePorts(count * PORTS_OF_NODE);
    const nodes = nodeIds.map((nodeId, index) => {
      const [clientPort = 0, peerPort = 0, httpPort = 0] = ports.slice(index * PORTS_OF_NODE);
      mesh.setTarget(nodeId, peerPort);
      const ownVolume = index === count - 1 ? volume : undefined;
      return new ChaosNode({
        nodeId,
        home,
        dataDir: ownVolume?.path ?? home.dataDir(nodeId),
        ports: { clientPort, peerPort, httpPort },
        flags: { peers: mesh.peersFlag(nodeId), partitions: String(PARTITIONS), ...flags },
      });
    });
    const cluster = new ChaosCluster(nodes, { mesh, home, volume });
    try {
      await cluster.form();
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  get addresses(): ReadonlyMap<string, string> {
    return new Map(this.nodes.map(({ nodeId, clientAddress }) => [nodeId, clientAddress]));
  }

  /** What a node says of itself; undefined when it does not answer. */
  async statusOf(node: ChaosNode): Promise<GetStatusResponse | undefined> {
    try {
      return await this.admin.status(node.adminTarget, AbortSignal.timeout(LOOK_TIMEOUT_MS));
    } catch {
      return undefined;
    }
  }

  /** Whether a node answers and may be read in all that it holds. */
  async isWhole(node: ChaosNode): Promise<boolean> {
    const status = await this.statusOf(node);
    return status !== undefined && status.ready && status.readablePartitions === status.partitions;
  }

  /** Waits until all nodes are in sync and hold the same records, byte by byte, tombstones included. */
  async untilEqual(): Promise<void> {
    await waitFor({ what: 'the nodes to be equal', timeoutMs: EQUAL_TIMEOUT_MS }, async (see) => {
      for (const node of this.nodes) {
        const status = await this.statusOf(node);
        see(`${node.nodeId}: ${status === undefined ? 'no answer' : describe(status)}`);
        if (status?.inSync !== true || !status.ready) return false;
      }
      const digests = await Promise.all(this.nodes.map((node) => digestOf(this.admin, node.adminTarget)));
      see(JSON.stringify(digests));
      return new Set(digests.map(({ sha256 }) => sha256)).size === 1;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.admin.close();
    await Promise.all(this.nodes.map((node) => node.close()));
    await this.mesh[Symbol.asyncDispose]();
    this.volume?.[Symbol.dispose]();
    this.home[Symbol.dispose]();
  }

  private async form(): Promise<void> {
    for (const node of this.nodes) node.start();
    const map = firstMap(
      this.nodes.map((node) => node.memberAt(this.mesh.port(node.nodeId))),
      PARTITIONS,
    );
    await this.publish(map);
    await Promise.all(this.nodes.map((node) => node.ready()));
    // From now on a blank volume is one that lost its data.
    await this.publish(sealMap({ ...map, epoch: 2, initialised: true }));
  }

  private async publish(map: ClusterMap): Promise<void> {
    for (const node of this.nodes) {
      await waitFor({ what: `${node.nodeId} to take a map`, timeoutMs: EQUAL_TIMEOUT_MS }, async (see) => {
        // Also to one that has it from a peer: a blank volume is founded by who writes the map, and by nobody else.
        const held = await this.admin.getMap(node.adminTarget);
        const expected = { epoch: held?.epoch ?? 0, hash: held?.hash ?? '' };
        const answer = await this.admin.proposeMap(node.adminTarget, map, expected);
        see(answer.message);
        return answer.accepted;
      });
    }
  }
}
function describe({ ready, notReadyReason, inSync, peers }: GetStatusResponse): string {
  const behind = peers.map(({ nodeId, connected, behind, ahead }) => ({ nodeId, connected, behind, ahead }));
  return JSON.stringify({ ready, notReadyReason, inSync, peers: behind });
}
