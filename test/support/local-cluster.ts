import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { type AdminClient, type AdminTarget, createAdminClient } from '../../client/admin-client.ts';
import { runKvctl } from '../../client/kvctl/kvctl.ts';
import { LOCAL_SECRET_FILE, type LocalCluster, readLocalCluster } from '../../client/local-cluster.ts';
import { systemClock, systemScheduler } from '../../common/clock.ts';
import { systemRandom } from '../../common/random.ts';
import type { GetStatusResponse } from '../../proto/gen/admin.ts';
import { StoreState } from '../../proto/gen/peer.ts';
import { waitFor } from './wait.ts';

const root = join(import.meta.dirname, '../..');
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 20_000;

const RUNNER = [process.execPath, join(root, 'node/local/main.ts')] as const;
/** The runner as a child of npm. */
export const NPM_START = ['npm', 'start', '--'] as const;

/** The one-machine runner as a process of its own. */
export class LocalRunner {
  readonly process: ChildProcess;
  private printed = '';
  private readonly closed: Promise<unknown>;

  constructor(flags: readonly string[], [file, ...before]: readonly [string, ...string[]] = RUNNER) {
    this.process = spawn(file, [...before, ...flags], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    const keep = (data: Buffer): string => (this.printed += data.toString());
    this.process.stdout?.on('data', keep);
    this.process.stderr?.on('data', keep);
    this.closed = once(this.process, 'close');
  }

  /** Everything printed so far, standard error included. */
  get output(): string {
    return this.printed;
  }

  /** Undefined while it runs, then the exit code; -1 after a signal. */
  get exitCode(): number | undefined {
    const { exitCode, signalCode } = this.process;
    return signalCode === null ? (exitCode ?? undefined) : -1;
  }

  /** Waits for a line that contains `text`. */
  async untilPrinted(text: string): Promise<void> {
    await waitFor(
      { what: `the runner to print "${text}"`, timeoutMs: START_TIMEOUT_MS, intervalMs: 50 },
      (see) => {
        see(this.printed);
        if (this.printed.includes(text)) return true;
        // Nothing more will come: a wait would only hide the reason.
        if (this.exitCode !== undefined) throw new Error(`it ended with ${this.exitCode}: ${this.printed}`);
        return false;
      },
    );
  }

  /** Waits for its end; the result is the exit code. */
  async ended(): Promise<number> {
    const timeout = AbortSignal.timeout(STOP_TIMEOUT_MS);
    await Promise.race([this.closed, once(timeout, 'abort')]);
    if (this.exitCode === undefined) throw new Error(`the runner still runs: ${this.printed}`);
    return this.exitCode;
  }

  /** Node ids of the processes below this one and their process ids. */
  nodePids(): ReadonlyMap<string, number> {
    return this.pidsBelow((command) => !looksAfterWorkers(command));
  }

  /** Process ids of those that look after several nodes, by the names of their pods. */
  podPids(): ReadonlyMap<string, number> {
    return this.pidsBelow(looksAfterWorkers);
  }

  private pidsBelow(isWanted: (command: readonly string[]) => boolean): ReadonlyMap<string, number> {
    const pids = new Map<string, number>();
    for (const pid of descendantsOf(this.process.pid ?? -1)) {
      const command = commandOf(pid);
      const nodeId = command[command.indexOf('--node-id') + 1];
      if (!command.includes('--node-id') || nodeId === undefined) continue;
      if (isWanted(command)) pids.set(nodeId, pid);
    }
    return pids;
  }

  /** Ends it as Ctrl-C would, at once if it does not; for the end of a test. */
  async dispose(): Promise<void> {
    if (this.exitCode !== undefined) return;
    const nodes = [...this.podPids().values(), ...this.nodePids().values()];
    this.process.kill('SIGINT');
    try {
      await this.ended();
    } catch {
      this.process.kill('SIGKILL');
      for (const pid of nodes) kill(pid);
    }
  }
}

/** A running local cluster in a temporary directory, with ports of its own. */
export class LocalTestCluster {
  readonly directory: string;
  readonly dataDir: string;
  runner: LocalRunner;
  private readonly flags: readonly string[];
  private openAdmin: AdminClient | undefined;

  private constructor(directory: string, flags: readonly string[]) {
    this.directory = directory;
    this.dataDir = join(directory, 'data');
    this.flags = ['--data-dir', this.dataDir, '--base-port', '0', ...flags];
    this.runner = new LocalRunner(this.flags);
  }

  static async start(flags: readonly string[] = []): Promise<LocalTestCluster> {
    const cluster = new LocalTestCluster(mkdtempSync(join(tmpdir(), 'kvcluster-local-')), flags);
    try {
      await cluster.runner.untilPrinted('is ready');
      return cluster;
    } catch (error) {
      await cluster.dispose();
      throw error;
    }
  }

  /** Starts the runner again, after it has ended. */
  async restart(moreFlags: readonly string[] = []): Promise<void> {
    this.runner = new LocalRunner([...this.flags, ...moreFlags]);
    await this.runner.untilPrinted('is ready');
  }

  get layout(): LocalCluster {
    return readLocalCluster(this.dataDir);
  }

  get endpoints(): readonly string[] {
    return this.layout.nodes.map(({ client }) => client);
  }

  get targets(): readonly AdminTarget[] {
    return this.layout.nodes.map(({ nodeId, peer }) => ({ nodeId, address: peer }));
  }

  get admin(): AdminClient {
    this.openAdmin ??= createAdminClient({
      secret: readFileSync(join(this.dataDir, LOCAL_SECRET_FILE)),
      sender: 'test',
      clock: systemClock,
      random: systemRandom,
    });
    return this.openAdmin;
  }

  /** kill -9 of a node. */
  killNode(nodeId: string): void {
    kill(this.pidOf(nodeId));
  }

  /** kill -9 of a node, whose data are gone when the runner restarts it. */
  wipeNode(nodeId: string): Promise<void> {
    const pid = this.pidOf(nodeId);
    return this.withoutRestarts(async () => {
      kill(pid);
      await waitFor({ what: `the end of ${nodeId}`, timeoutMs: 5000, intervalMs: 5 }, () => !isRunning(pid));
      renameSync(join(this.dataDir, nodeId), join(this.directory, `${nodeId}-wiped`));
    });
  }

  /** While `work` runs, nodes that end stay down: the runner is stopped. */
  async withoutRestarts(work: () => Promise<void>): Promise<void> {
    this.runner.process.kill('SIGSTOP');
    try {
      await work();
    } finally {
      this.runner.process.kill('SIGCONT');
    }
  }

  /** Waits until every node is readable, ready and in sync. */
  async untilInSync(timeoutMs = 30_000): Promise<readonly GetStatusResponse[]> {
    return waitFor({ what: 'all nodes in sync', timeoutMs, intervalMs: 50 }, async (see) => {
      const statuses = await Promise.all(this.targets.map((target) => this.admin.status(target)));
      see(
        statuses
          .map(({ nodeId, state, inSync }) => `${nodeId}: state ${state}, in sync ${inSync}`)
          .join('; '),
      );
      const good = statuses.every(
        ({ state, ready, inSync }) => state === StoreState.READABLE && ready && inSync,
      );
      return good && statuses;
    });
  }

  /** Runs kvctl in this process, in the cluster's directory. */
  kvctl(args: readonly string[], input: Buffer | string = ''): Promise<KvctlResult> {
    const needsDataDir = !['list', 'verify'].includes(args[1] ?? '') || args[0] !== 'backup';
    return kvctl([...args, ...(needsDataDir ? ['--data-dir', this.dataDir] : [])], {
      input,
      directory: this.directory,
    });
  }

  async dispose(): Promise<void> {
    this.openAdmin?.close();
    await this.runner.dispose();
    rmSync(this.directory, { recursive: true, force: true });
  }

  private pidOf(nodeId: string): number {
    const pid = this.runner.nodePids().get(nodeId);
    if (pid === undefined) throw new Error(`no process of ${nodeId}`);
    return pid;
  }
}

export interface KvctlResult {
  readonly code: number;
  readonly stdout: Buffer;
  /** Standard output as text. */
  readonly text: string;
  readonly stderr: string;
}

/** Runs one kvctl command line in this process. */
export async function kvctl(
  args: readonly string[],
  options: { readonly input?: Buffer | string; readonly directory?: string } = {},
): Promise<KvctlResult> {
  const [stdout, stderr] = [new Collector(), new Collector()];
  const stdin = new PassThrough();
  stdin.end(options.input ?? '');
  const code = await runKvctl(args, {
    stdin,
    stdout: stdout.stream,
    stderr: stderr.stream,
    directory: options.directory ?? tmpdir(),
    clock: systemClock,
    scheduler: systemScheduler,
    random: systemRandom,
    signal: AbortSignal.timeout(60_000),
  });
  return { code, stdout: stdout.bytes(), text: stdout.bytes().toString(), stderr: stderr.bytes().toString() };
}

class Collector {
  readonly stream = new PassThrough();
  private readonly chunks: Buffer[] = [];

  constructor() {
    this.stream.on('data', (chunk: Buffer) => this.chunks.push(chunk));
  }

  bytes(): Buffer {
    for (
      let rest = this.stream.read() as Buffer | null;
      rest !== null;
      rest = this.stream.read() as Buffer | null
    ) {
      this.chunks.push(rest);
    }
    return Buffer.concat(this.chunks);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended already.
  }
}

/** Whether a process exists and has not ended (a zombie has). */
export function isRunning(pid: number): boolean {
  const state = stateOf(pid);
  return state !== undefined && state !== 'Z';
}

function stateOf(pid: number): string | undefined {
  try {
    return /\) (\w) /.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1];
  } catch {
    return undefined;
  }
}

function looksAfterWorkers(command: readonly string[]): boolean {
  const workers = command[command.indexOf('--workers') + 1];
  return command.includes('--workers') && workers !== '1';
}

function descendantsOf(pid: number): readonly number[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendantsOf(child)]);
}

function childrenOf(pid: number): readonly number[] {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    return threads.flatMap((thread) =>
      readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
    );
  } catch {
    // It, or one of its threads, has ended.
    return [];
  }
}

function commandOf(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}
