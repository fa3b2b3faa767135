import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { plaintext } from '../../client/grpc.ts';
import { createAdminClient, type AdminClient, type AdminTarget } from '../../client/admin-client.ts';
import { systemClock } from '../../common/clock.ts';
import { systemRandom } from '../../common/random.ts';
import { sealMap, type ClusterMap, type Member } from '../../model/cluster-map.ts';
import { place } from '../../model/placement.ts';
import type { BoundPorts } from '../../node/node.ts';
import { KeyValueStoreClient } from '../../proto/gen/kvstore.ts';
import { waitFor } from './wait.ts';

const root = join(import.meta.dirname, '../..');
const HOST = '127.0.0.1';
const START_TIMEOUT_MS = 30_000;
/** Type stripping is most of a node's start; its result is kept between processes. */
const compileCache = join(tmpdir(), 'kvcluster-test-compile-cache');

/** A temporary directory with a secret, for one or more nodes. */
export class NodeHome implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'kvcluster-node-'));
  readonly secret = systemRandom.bytes(32);
  readonly secretFile = join(this.directory, 'secret');

  constructor() {
    writeFileSync(this.secretFile, this.secret, { mode: 0o600 });
  }

  /** Data directory of a node. */
  dataDir(nodeId: string): string {
    return join(this.directory, nodeId);
  }

  /** A client of the admin service with this home's secret; close it. */
  admin(): AdminClient {
    return createAdminClient({
      secret: this.secret,
      sender: 'test',
      clock: systemClock,
      random: systemRandom,
    });
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export interface StartOptions {
  readonly home: NodeHome;
  /** @default sample-0 */
  readonly nodeId?: string;
  /** Further flags, without the dashes; they override. */
  readonly flags?: Readonly<Record<string, string>>;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A node in a process of its own, started from node/main.ts as the image starts it. */
export class NodeProcess implements AsyncDisposable {
  readonly nodeId: string;
  readonly exited: Promise<Exit>;
  /** JSON lines of its log so far. */
  readonly log: Record<string, unknown>[] = [];
  private readonly home: NodeHome;
  private readonly child: ChildProcess;
  private readonly portsFile: string;
  private errors = '';
  private bound: BoundPorts | undefined;

  private constructor({ home, nodeId = 'sample-0', flags = {} }: StartOptions) {
    this.nodeId = nodeId;
    this.home = home;
    this.portsFile = join(home.directory, `${nodeId}.ports`);
    mkdirSync(home.dataDir(nodeId), { recursive: true });
    rmSync(this.portsFile, { force: true });
    const all = {
      'node-id': nodeId,
      'cluster-name': 'sample',
      'data-dir': home.dataDir(nodeId),
      'secret-file': home.secretFile,
      listen: HOST,
      host: HOST,
      partitions: '16',
      'client-port': '0',
      'peer-port': '0',
      'http-port': '0',
      'drain-serve-ms': '0',
      'ports-file': this.portsFile,
      ...flags,
    };
    const parameters = Object.entries(all).flatMap(([flag, value]) => [`--${flag}`, value]);
    this.child = spawn(process.execPath, [join(root, 'node/main.ts'), ...parameters], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NODE_COMPILE_CACHE: compileCache },
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.errors += text));
    if (this.child.stdout !== null) {
      createInterface(this.child.stdout).on('line', (line) => this.log.push(parsed(line)));
    }
    this.exited = new Promise((resolve) => {
      this.child.once('close', (code, signal) => resolve({ code, signal }));
    });
  }

  /** Starts a process without waiting for anything. */
  static spawn(options: StartOptions): NodeProcess {
    return new NodeProcess(options);
  }

  /** Starts a node and waits until it listens. */
  static async start(options: StartOptions): Promise<NodeProcess> {
    const node = new NodeProcess(options);
    try {
      await node.listening();
      return node;
    } catch (error) {
      await node.kill('SIGKILL');
      throw error;
    }
  }

  /** Starts a node that serves: alone in its cluster, with a first map. */
  static async startAlone(options: StartOptions): Promise<NodeProcess> {
    const node = await NodeProcess.start(options);
    try {
      await node.joinAlone();
      return node;
    } catch (error) {
      await node.kill('SIGKILL');
      throw error;
    }
  }

  /** Starts the nodes of a cluster, each in its own process, and waits until all of them serve. */
  static async startTogether(home: NodeHome, nodeIds: readonly string[]): Promise<readonly NodeProcess[]> {
    const starting = nodeIds.map((nodeId) => NodeProcess.start({ home, nodeId }));
    try {
      const nodes = await Promise.all(starting);
      const map = firstMap(nodes.map(({ member }) => member));
      for (const node of nodes) await node.propose(map);
      await Promise.all(nodes.map((node) => node.ready()));
      return nodes;
    } catch (error) {
      for (const started of await Promise.allSettled(starting)) {
        if (started.status === 'fulfilled') await started.value.kill('SIGKILL');
      }
      throw error;
    }
  }

  get ports(): BoundPorts {
    if (this.bound === undefined) throw new Error(`${this.nodeId} does not listen yet`);
    return this.bound;
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('the process was not started');
    return this.child.pid;
  }

  /** What it wrote to standard error. */
  get stderr(): string {
    return this.errors;
  }

  get clientAddress(): string {
    return `${HOST}:${this.ports.clientPort}`;
  }

  get adminTarget(): AdminTarget {
    return { nodeId: this.nodeId, address: `${HOST}:${this.ports.peerPort}` };
  }

  /** How the map lists it. */
  get member(): Member {
    const { nodeId } = this;
    return { nodeId, host: HOST, ...this.ports, zone: '', state: 'active', pod: nodeId };
  }

  /** A bare client of the public API; close it. */
  client(): KeyValueStoreClient {
    return new KeyValueStoreClient(this.clientAddress, plaintext(), {
      'grpc.enable_http_proxy': 0,
      'grpc.use_local_subchannel_pool': 1,
    });
  }

  /** Fetches a path of the HTTP port. */
  async http(path: string): Promise<{ status: number; body: string }> {
    const response = await fetch(`http://${HOST}:${this.ports.httpPort}${path}`);
    return { status: response.status, body: await response.text() };
  }

  async listening(): Promise<void> {
    this.bound = await waitFor(
      { what: `${this.nodeId} to listen`, timeoutMs: START_TIMEOUT_MS, intervalMs: 10 },
      (see) => {
        if (this.child.exitCode !== null) see(`it exited with ${this.child.exitCode}: ${this.errors}`);
        if (!existsSync(this.portsFile)) return undefined;
        return JSON.parse(readFileSync(this.portsFile, 'utf8')) as BoundPorts;
      },
    );
  }

  /** Gives the node a map of itself alone, and waits until it is ready. */
  async joinAlone(): Promise<void> {
    await this.propose(firstMap([this.member]));
    await this.ready();
  }

  /** Gives the node its first map. */
  async propose(map: ClusterMap): Promise<void> {
    const admin = this.home.admin();
    try {
      const answer = await admin.proposeMap(this.adminTarget, map, { epoch: 0, hash: '' });
      if (!answer.accepted) throw new Error(answer.message);
    } finally {
      admin.close();
    }
  }

  async ready(): Promise<void> {
    await waitFor(
      { what: `${this.nodeId} to be ready`, timeoutMs: START_TIMEOUT_MS, intervalMs: 10 },
      async (see) => {
        const { status, body } = await this.http('/readyz');
        see(body);
        return status === 200;
      },
    );
  }

  /** Sends a signal and waits for the end. */
  kill(signal: NodeJS.Signals): Promise<Exit> {
    this.child.kill(signal);
    return this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill('SIGKILL');
  }
}

/** The first map of a cluster in which everybody holds everything. */
export function firstMap(members: readonly Member[], partitions = 16): ClusterMap {
  return sealMap({
    clusterId: systemRandom.bytes(16).toString('hex'),
    namespace: 'default',
    name: 'sample',
    epoch: 1,
    partitions,
    replicationFactor: 3,
    initialised: false,
    members,
    retired: [],
    assignment: place({ members, partitions, replicationFactor: 3 }),
  });
}

function parsed(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return { notJson: line };
  }
}
