import { join } from 'node:path';
import type { AdminTarget } from '../../client/admin-client.ts';
import type { Member } from '../../model/cluster-map.ts';
import type { KVCluster } from '../../model/kvcluster.ts';
import { compareNatural } from '../../model/natural-order.ts';
import { noteCluster } from './data-directory.ts';
import { describeLayout, layOut, type LocalNode, LOOPBACK, membersFor, requireFreePorts } from './layout.ts';
import { NodeProcess } from './node-process.ts';
import type { RunnerOptions } from './runner-options.ts';

/** The processes of a local cluster, which may become more and fewer. */
export class LocalNodes {
  private readonly options: RunnerOptions;
  private readonly cluster: KVCluster;
  private readonly processes = new Map<string, NodeProcess>();
  private nodes: readonly LocalNode[];
  private secretFile = '';

  constructor(options: RunnerOptions, cluster: KVCluster, nodes: readonly LocalNode[]) {
    this.options = options;
    this.cluster = cluster;
    this.nodes = nodes;
  }

  get all(): readonly LocalNode[] {
    return this.nodes;
  }

  get names(): readonly string[] {
    return this.nodes.map(({ nodeId }) => nodeId);
  }

  /** The members that they are. */
  get members(): readonly Member[] {
    return this.nodes.flatMap(membersFor);
  }

  targetOf(nodeId: string): AdminTarget | undefined {
    const member = this.members.find((other) => other.nodeId === nodeId);
    return member === undefined ? undefined : { nodeId, address: `${LOOPBACK}:${member.peerPort}` };
  }

  /** Says where the nodes are, for kvctl. */
  note(): Promise<void> {
    return noteCluster(
      this.options.arguments.dataDir,
      this.cluster,
      describeLayout(this.cluster, this.nodes),
    );
  }

  startAll(secretFile: string): void {
    this.secretFile = secretFile;
    for (const node of this.nodes) this.start(node);
  }

  /**
   * Starts the nodes of these names that do not run.
   *
   * @throws KvError FAILED_PRECONDITION naming the ports that are taken.
   */
  async add(names: readonly string[]): Promise<void> {
    const missing = names.filter((name) => !this.names.includes(name));
    if (missing.length === 0) return;
    const { dataDir, basePort } = this.options.arguments;
    const workers = this.nodes[0]?.workers ?? 1;
    const added = await layOut(missing, { dataDir, basePort, workers });
    await requireFreePorts(added);
    this.nodes = [...this.nodes, ...added].sort((a, b) => compareNatural(a.nodeId, b.nodeId));
    for (const node of added) this.start(node);
    await this.note();
  }

  /** Stops the nodes of other names; their data stays. */
  async keep(names: readonly string[]): Promise<void> {
    const leaving = this.names.filter((name) => !names.includes(name));
    if (leaving.length === 0) return;
    this.nodes = this.nodes.filter(({ nodeId }) => names.includes(nodeId));
    await this.note();
    for (const name of leaving) {
      await this.processes.get(name)?.stop();
      this.processes.delete(name);
      this.options.print(
        `${name} has left and is stopped; its data stays in ${join(this.options.arguments.dataDir, name)}`,
      );
    }
  }

  /** Counts on so many workers of each node: the others have left, and end when the node does. */
  async keepWorkers(workers: number): Promise<void> {
    if (this.nodes.every((node) => node.workers <= workers)) return;
    this.nodes = this.nodes.map((node) => ({ ...node, workers }));
    await this.note();
    this.options.print(
      `each node has ${workers} of its workers left; the other processes end when it is stopped`,
    );
  }

  /** Stops everything; at once when the runner is told so. */
  async stopAll(): Promise<void> {
    const { kill } = this.options;
    const processes = [...this.processes.values()];
    const killAll = (): void => processes.forEach((node) => node.kill());
    if (kill.aborted) killAll();
    kill.addEventListener('abort', killAll, { once: true });
    await Promise.all(processes.map((node) => node.stop()));
    kill.removeEventListener('abort', killAll);
  }

  private start(node: LocalNode): void {
    const process = this.process(node);
    this.processes.set(node.nodeId, process);
    process.start();
  }

  private process(node: LocalNode): NodeProcess {
    const { cluster } = this;
    const { dataDir, verbose } = this.options.arguments;
    const peers = this.members.map(({ nodeId, peerPort }) => `${nodeId}=${LOOPBACK}:${peerPort}`);
    const flags = {
      'node-id': node.nodeId,
      host: LOOPBACK,
      ...(node.workers === 1 ? {} : { workers: String(node.workers) }),
      namespace: cluster.namespace,
      'cluster-name': cluster.name,
      'data-dir': node.dataDir,
      'secret-file': this.secretFile,
      partitions: String(cluster.spec.partitions),
      listen: LOOPBACK,
      'client-port': String(node.clientPort),
      'peer-port': String(node.peerPort),
      'http-port': String(node.httpPort),
      discovery: 'static',
      peers: peers.join(','),
      // Nobody balances load over local nodes, so there is no need to serve on while others notice.
      'drain-serve-ms': '0',
      'drain-timeout-ms': '5000',
    };
    const { print, clock, scheduler, random } = this.options;
    return new NodeProcess({
      nodeId: node.nodeId,
      flags: Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]),
      logFile: verbose ? undefined : join(dataDir, 'logs', `${node.nodeId}.log`),
      print,
      clock,
      scheduler,
      random,
    });
  }
}
