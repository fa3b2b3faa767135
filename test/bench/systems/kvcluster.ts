import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { AdminClient, AdminTarget } from '../../../client/admin-client.ts';
import { sealMap, type ClusterMap, type Member } from '../../../model/cluster-map.ts';
import type { GetStatusResponse } from '../../../proto/gen/admin.ts';
import { firstMap, NodeHome } from '../../support/node-process.ts';
import { freePorts } from '../../support/free-ports.ts';
import { cleanAtExit } from '../../support/exit-cleanup.ts';
import { ServerProcess } from './server-process.ts';

const HOST = '127.0.0.1';
/** The default of a KVCluster. */
const PARTITIONS = 256;
const PORTS_OF_NODE = 3;

export interface KvClusterOptions {
  /** Directory of the compiled code. */
  readonly code: string;
  /** Where the nodes store. */
  readonly directory: string;
  readonly nodes: number;
  /** Further flags of Node itself, such as --cpu-prof. @default none */
  readonly nodeOptions?: readonly string[];
}

/** A cluster of node processes as the image runs them, with the default settings and nothing between them. */
export class KvCluster implements AsyncDisposable {
  readonly nodes: readonly KvNode[];
  private readonly home: NodeHome;
  private readonly admin: AdminClient;
  private readonly cancelCleaning: () => void;

  private constructor(nodes: readonly KvNode[], home: NodeHome) {
    this.nodes = nodes;
    this.home = home;
    this.admin = home.admin();
    this.cancelCleaning = cleanAtExit(() => home[Symbol.dispose]());
  }

  /** Starts the nodes, gives them their first map and waits until all are ready. */
  static async start(options: KvClusterOptions): Promise<KvCluster> {
    const home = new NodeHome();
    const ports = await freePorts(options.nodes * PORTS_OF_NODE);
    const nodes = Array.from({ length: options.nodes }, (_, index) => {
      const [clientPort = 0, peerPort = 0, httpPort = 0] = ports.slice(index * PORTS_OF_NODE);
      return new KvNode({ ...options, secretFile: home.secretFile, index, clientPort, peerPort, httpPort });
    });
    const cluster = new KvCluster(nodes, home);
    try {
      await cluster.form();
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  get endpoints(): readonly string[] {
    return this.nodes.map(({ clientAddress }) => clientAddress);
  }

  get pids(): readonly number[] {
    return this.nodes.flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  status(node: KvNode): Promise<GetStatusResponse> {
    return this.admin.status(node.adminTarget, AbortSignal.timeout(2000));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.end('SIGKILL')));
    this.admin.close();
    this.home[Symbol.dispose]();
    this.cancelCleaning();
  }

  private async form(): Promise<void> {
    for (const node of this.nodes) node.start();
    await Promise.all(this.nodes.map((node) => node.listening()));
    const first = firstMap(
      this.nodes.map(({ member }) => member),
      PARTITIONS,
    );
    await this.propose(first);
    await Promise.all(this.nodes.map((node) => node.ready()));
    // From now on a blank volume is one that lost its data.
    await this.propose(sealMap({ ...first, epoch: 2, initialised: true }));
  }

  private async propose(map: ClusterMap): Promise<void> {
    for (const node of this.nodes) {
      const held = await this.admin.getMap(node.adminTarget);
      const expected = { epoch: held?.epoch ?? 0, hash: held?.hash ?? '' };
      const answer = await this.admin.proposeMap(node.adminTarget, map, expected);
      if (!answer.accepted) throw new Error(answer.message);
    }
  }
}

interface KvNodeOptions extends KvClusterOptions {
  readonly secretFile: string;
  readonly index: number;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly httpPort: number;
}

/** One node, on the same ports and directory in every life. */
export class KvNode {
  readonly nodeId: string;
  private readonly options: KvNodeOptions;
  private process: ServerProcess | undefined;

  constructor(options: KvNodeOptions) {
    this.options = options;
    this.nodeId = `sample-${options.index}`;
  }

  get pid(): number | undefined {
    return this.process?.ended === false ? this.process.pid : undefined;
  }

  get dataDir(): string {
    return join(this.options.directory, this.nodeId);
  }

  get clientAddress(): string {
    return `${HOST}:${this.options.clientPort}`;
  }

  get adminTarget(): AdminTarget {
    return { nodeId: this.nodeId, address: `${HOST}:${this.options.peerPort}` };
  }

  get member(): Member {
    const { nodeId } = this;
    const { clientPort, peerPort, httpPort } = this.options;
    return { nodeId, host: HOST, clientPort, peerPort, httpPort, zone: '', state: 'active', pod: nodeId };
  }

  start(): void {
    mkdirSync(this.dataDir, { recursive: true });
    rmSync(this.portsFile, { force: true });
    const { code, nodeOptions = [], secretFile, clientPort, peerPort, httpPort } = this.options;
    const flags = {
      'node-id': this.nodeId,
      'cluster-name': 'sample',
      'data-dir': this.dataDir,
      'secret-file': secretFile,
      partitions: PARTITIONS,
      listen: HOST,
      host: HOST,
      'client-port': clientPort,
      'peer-port': peerPort,
      'http-port': httpPort,
      'ports-file': this.portsFile,
      'log-level': 'error',
      'drain-serve-ms': 0,
    };
    const parameters = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
    this.process = new ServerProcess(
      this.nodeId,
      [process.execPath, ...nodeOptions, join(code, 'node/main.js'), ...parameters],
      { NODE_ENV: 'production' },
    );
  }

  /** Waits until all its ports are bound. */
  listening(): Promise<void> {
    return this.until(() => Promise.resolve(existsSync(this.portsFile)));
  }

  /** Waits until it says that it serves. */
  ready(): Promise<void> {
    return this.until(async () => (await this.http('/readyz')).ok);
  }

  /** Ends its process and waits for the end; nothing happens when there is none. */
  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    await this.process?.end(signal);
  }

  /** Removes everything it has stored. */
  wipe(): void {
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  private get portsFile(): string {
    return `${this.dataDir}.ports`;
  }

  private http(path: string): Promise<Response> {
    return fetch(`http://${HOST}:${this.options.httpPort}${path}`);
  }

  private async until(ready: () => Promise<boolean>): Promise<void> {
    if (this.process === undefined) throw new Error(`${this.nodeId} was not started`);
    await this.process.until(ready, 120_000);
  }
}
