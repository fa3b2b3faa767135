import { createHash, type Hash } from 'node:crypto';
import type { AdminClient } from '../../client/admin-client.ts';
import { moveReportOf } from '../../client/move-reports.ts';
import { publishMap } from '../../client/publish-map.ts';
import { type ClusterMap, replicasOf, sealMap } from '../../model/cluster-map.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { markDown } from '../../model/map-commands.ts';
import { type MemberReport, nextStep } from '../../model/moves.ts';
import type { GetStatusResponse } from '../../proto/gen/admin.ts';
import { cleanAtExit } from './exit-cleanup.ts';
import { freePorts } from './free-ports.ts';
import { LoopVolume } from './loop-volume.ts';
import { firstMap, NodeHome } from './node-process.ts';
import { PeerMesh } from './peer-mesh.ts';
import { waitFor } from './wait.ts';
import { SupervisedNode } from './supervised-node.ts';

export interface ProcessClusterOptions {
  /** @default 3 */
  readonly nodes?: number;
  /** The last node stores on a volume of its own of this size, which can be filled. @default none */
  readonly volumeBytes?: number;
  /** Further flags of every node. */
  readonly flags?: Readonly<Record<string, string>>;
}

/** Hash partitions of such a cluster. */
export const PARTITIONS = 16;
const COPIES = 3;
const PORTS_OF_NODE = 3;
const EQUAL_TIMEOUT_MS = 60_000;
const STREAM_TIMEOUT_MS = 30_000;
const CHANGE_TIMEOUT_MS = 60_000;
/** A node that does not answer at once is not whole. */
const LOOK_TIMEOUT_MS = 1000;

/** Nodes as processes, with a network of ours between them. */
export class ProcessCluster implements AsyncDisposable {
  readonly nodes: readonly SupervisedNode[];
  readonly mesh: PeerMesh;
  readonly admin: AdminClient;
  /** What the last node stores on. */
  readonly volume: LoopVolume | undefined;
  /** As it was last published here. */
  map: ClusterMap;
  /** Their secret, and the directories of those without a volume of their own. */
  readonly home: NodeHome;
  private readonly cancelCleaning: () => void;

  private constructor(
    nodes: readonly SupervisedNode[],
    parts: {
      mesh: PeerMesh;
      home: NodeHome;
      volume: LoopVolume | undefined;
      cancelCleaning: () => void;
    },
  ) {
    this.nodes = nodes;
    this.mesh = parts.mesh;
    this.home = parts.home;
    this.volume = parts.volume;
    this.cancelCleaning = parts.cancelCleaning;
    this.admin = parts.home.admin();
    const members = nodes.map((node) => node.memberAt(parts.mesh.port(node.nodeId)));
    this.map = firstMap(members, PARTITIONS);
  }

  /** Starts the nodes and waits until all of them are ready. */
  static async start({
    nodes: count = 3,
    volumeBytes,
    flags = {},
  }: ProcessClusterOptions): Promise<ProcessCluster> {
    const nodeIds = Array.from({ length: count }, (_, index) => `sample-${index}`);
    const home = new NodeHome();
    const cancelCleaning = cleanAtExit(() => home[Symbol.dispose]());
    const volume = volumeBytes === undefined ? undefined : new LoopVolume(volumeBytes);
    const mesh = await PeerMesh.open(nodeIds);
    const ports = await freePorts(count * PORTS_OF_NODE);
    const nodes = nodeIds.map((nodeId, index) => {
      const [clientPort = 0, peerPort = 0, httpPort = 0] = ports.slice(index * PORTS_OF_NODE);
      mesh.setTarget(nodeId, peerPort);
      const ownVolume = index === count - 1 ? volume : undefined;
      return new SupervisedNode({
        nodeId,
        home,
        dataDir: ownVolume?.path ?? home.dataDir(nodeId),
        ports: { clientPort, peerPort, httpPort },
        flags: { peers: mesh.peersFlag(nodeId), partitions: String(PARTITIONS), ...flags },
      });
    });
    const cluster = new ProcessCluster(nodes, { mesh, home, volume, cancelCleaning });
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
  async statusOf(node: SupervisedNode): Promise<GetStatusResponse | undefined> {
    try {
      return await this.admin.status(node.adminTarget, AbortSignal.timeout(LOOK_TIMEOUT_MS));
    } catch {
      return undefined;
    }
  }

  /** Whether a node answers and may be read in all that it holds. */
  async isWhole(node: SupervisedNode): Promise<boolean> {
    const status = await this.statusOf(node);
    return status !== undefined && status.ready && status.fillingPartitions === 0;
  }

  /** Waits until all nodes are in sync and replicas hold the same records, byte by byte, tombstones included. */
  async untilEqual(): Promise<void> {
    await waitFor({ what: 'the nodes to be equal', timeoutMs: EQUAL_TIMEOUT_MS }, async (see) => {
      for (const node of this.nodes) {
        const status = await this.statusOf(node);
        see(`${node.nodeId}: ${status === undefined ? 'no answer' : describe(status)}`);
        if (status?.inSync !== true || !status.ready) return false;
      }
      const contents = new Map<string, ReadonlyMap<number, string>>();
      for (const node of this.nodes) contents.set(node.nodeId, await this.contentsOf(node));
      for (let partition = 0; partition < PARTITIONS; partition += 1) {
        const replicas = replicasOf(this.map, partition).map(({ nodeId }) => nodeId);
        see(`the records of partition ${partition} differ at ${replicas.join(', ')}`);
        const copies = new Set(replicas.map((nodeId) => contents.get(nodeId)?.get(partition)));
        if (copies.size !== 1) return false;
      }
      return true;
    });
  }

  /** Marks a node down that is: nothing waits for it any more. */
  async markDown(node: SupervisedNode): Promise<void> {
    await this.change(markDown(this.map, node.nodeId));
  }

  /** Brings the map to these members, step by step as the map's writer does; resolves when there is nothing left to do. */
  async resizeTo(nodes: readonly SupervisedNode[]): Promise<void> {
    const members = nodes.map((node) => node.memberAt(this.mesh.port(node.nodeId)));
    await waitFor({ what: 'the members to change', timeoutMs: CHANGE_TIMEOUT_MS }, async (see) => {
      const reports = new Map<string, MemberReport>();
      for (const node of this.nodes) {
        const status = await this.statusOf(node);
        if (status !== undefined) reports.set(node.nodeId, moveReportOf(status));
      }
      const step = nextStep(this.map, { members, replicationFactor: COPIES }, reports);
      if (step.kind === 'publish') await this.change(step.map);
      if (step.kind !== 'done') see(step.why);
      return step.kind === 'done';
    });
  }

  private async change(map: ClusterMap): Promise<void> {
    await publishMap({
      admin: this.admin,
      from: this.map,
      map,
      targetOf: (nodeId) => this.nodes.find((node) => node.nodeId === nodeId)?.adminTarget,
      signal: AbortSignal.timeout(CHANGE_TIMEOUT_MS),
    });
    this.map = map;
  }

  /** By partition, a digest of the records that a node serves; none for a partition without records. */
  private async contentsOf(node: SupervisedNode): Promise<ReadonlyMap<number, string>> {
    const hashes = new Map<number, Hash>();
    const timeout = AbortSignal.timeout(STREAM_TIMEOUT_MS);
    for await (const chunk of this.admin.streamRecords(node.adminTarget, {}, timeout)) {
      for (const { key, record } of chunk.records) {
        const partition = partitionOf(key, PARTITIONS);
        let hash = hashes.get(partition);
        if (hash === undefined) hashes.set(partition, (hash = createHash('sha256')));
        hash.update(`${key.length} ${record.length} `).update(key).update(record);
      }
    }
    return new Map([...hashes].map(([partition, hash]) => [partition, hash.digest('hex')]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.admin.close();
    await Promise.all(this.nodes.map((node) => node.close()));
    await this.mesh[Symbol.asyncDispose]();
    this.volume?.[Symbol.dispose]();
    this.home[Symbol.dispose]();
    this.cancelCleaning();
  }

  private async form(): Promise<void> {
    for (const node of this.nodes) node.start();
    await this.publish(this.map);
    await Promise.all(this.nodes.map((node) => node.ready()));
    // From now on a blank volume is one that lost its data.
    this.map = sealMap({ ...this.map, epoch: 2, initialised: true });
    await this.publish(this.map);
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
