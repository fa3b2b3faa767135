import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { AdminTarget } from '../../client/admin-client.ts';
import type { Member } from '../../model/cluster-map.ts';
import type { BoundPorts } from '../../node/node.ts';
import { cleanAtExit } from './exit-cleanup.ts';
import { type NodeHome, NodeProcess } from './node-process.ts';
import { waitFor } from './wait.ts';

const HOST = '127.0.0.1';
const RESTART_AFTER_MS = 300;
const LOOK_EVERY_MS = 20;
const READY_TIMEOUT_MS = 60_000;
/** Outputs of processes that were ended are kept for as many. */
const KEPT_ENDS = 20;

export interface SupervisedNodeOptions {
  readonly nodeId: string;
  readonly home: NodeHome;
  readonly dataDir: string;
  /** It listens on these in every life. */
  readonly ports: BoundPorts;
  /** Further flags of the node. */
  readonly flags: Readonly<Record<string, string>>;
}

/** A node whose process is started again whenever it has ended, as Kubernetes would, unless it is held down. */
export class SupervisedNode {
  readonly nodeId: string;
  /** How processes ended that nobody had asked to, the latest ones. */
  readonly unaskedEnds: string[] = [];
  private readonly options: SupervisedNodeOptions;
  private readonly cancelCleaning: () => void;
  private process: NodeProcess | undefined;
  private ending = false;
  private held = false;
  private closed = false;
  private supervision: Promise<void> = Promise.resolve();

  constructor(options: SupervisedNodeOptions) {
    this.nodeId = options.nodeId;
    this.options = options;
    this.cancelCleaning = cleanAtExit(() => this.signal('SIGKILL'));
  }

  get ports(): BoundPorts {
    return this.options.ports;
  }

  /** Of its process; undefined while there is none. */
  get pid(): number | undefined {
    return this.process?.pid;
  }

  get clientAddress(): string {
    return `${HOST}:${this.options.ports.clientPort}`;
  }

  get adminTarget(): AdminTarget {
    return { nodeId: this.nodeId, address: `${HOST}:${this.options.ports.peerPort}` };
  }

  get dataDir(): string {
    return this.options.dataDir;
  }

  /** How a map lists it, found by its peers at another port. */
  memberAt(peerPort: number): Member {
    const { nodeId } = this;
    return { nodeId, host: HOST, ...this.options.ports, peerPort, zone: '', state: 'active', pod: nodeId };
  }

  /** Starts it and keeps it running. */
  start(): void {
    this.supervision = this.supervise();
    // A defect of the supervision itself surfaces in `close`.
    this.supervision.catch(() => undefined);
  }

  async ready(): Promise<void> {
    await waitFor({ what: `${this.nodeId} to be ready`, timeoutMs: READY_TIMEOUT_MS }, async (see) => {
      see(this.unaskedEnds.at(-1) ?? 'no answer');
      const response = await fetch(`http://${HOST}:${this.options.ports.httpPort}/readyz`);
      see(await response.text());
      return response.status === 200;
    });
  }

  /** The value of a metric, named as in the text that the node gives, labels included; undefined when it has none. */
  async metric(name: string): Promise<number | undefined> {
    return (await this.metrics(name)).find((sample) => sample.name === name)?.value;
  }

  /** All metrics whose name, labels included, begins like this. */
  async metrics(prefix: string): Promise<readonly { readonly name: string; readonly value: number }[]> {
    const response = await fetch(`http://${HOST}:${this.options.ports.httpPort}/metrics`);
    return (await response.text()).split('\n').flatMap((line) => {
      const [, name = '', value] = /^(\S+(?:\{.*\})?) (\S+)$/.exec(line) ?? [];
      return name.startsWith(prefix) ? [{ name, value: Number(value) }] : [];
    });
  }

  /** Ends its process by a signal, waits for the end, and holds it down until `release`. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    this.held = true;
    this.ending = true;
    const { process } = this;
    this.signal(signal);
    await process?.exited;
  }

  /** Lets it run again. */
  release(): void {
    this.held = false;
  }

  /** Sends a signal to whatever process there is. */
  signal(signal: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL' | 'SIGTERM'): void {
    const pid = this.process?.pid;
    if (pid === undefined) return;
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended by itself.
    }
  }

  /** Removes everything it has stored; it must be held down. */
  wipe(): void {
    for (const name of readdirSync(this.dataDir)) {
      // A volume of its own has this directory, which is no data.
      if (name !== 'lost+found') rmSync(join(this.dataDir, name), { recursive: true, force: true });
    }
  }

  /** Ends it for good. Idempotent. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.end('SIGKILL');
    this.cancelCleaning();
    await this.supervision;
  }

  private async supervise(): Promise<void> {
    while (!this.closed) {
      if (this.held) await delay(LOOK_EVERY_MS);
      else await this.live();
    }
  }

  private async live(): Promise<void> {
    const { nodeId, home, ports, flags } = this.options;
    this.ending = false;
    const node = NodeProcess.spawn({
      home,
      nodeId,
      flags: {
        'client-port': String(ports.clientPort),
        'peer-port': String(ports.peerPort),
        'http-port': String(ports.httpPort),
        'data-dir': this.dataDir,
        'log-level': 'error',
        ...flags,
      },
    });
    this.process = node;
    const { code, signal } = await node.exited;
    this.process = undefined;
    if (this.isEnding()) return;
    this.unaskedEnds.push(`${nodeId} ended with ${signal ?? `code ${code}`}: ${node.stderr}`);
    if (this.unaskedEnds.length > KEPT_ENDS) this.unaskedEnds.shift();
    await delay(RESTART_AFTER_MS);
  }

  /** Asked anew: it changes while the process runs. */
  private isEnding(): boolean {
    return this.ending;
  }
}
