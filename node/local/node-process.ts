import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, statSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { Backoff } from '../../common/backoff.ts';
import type { Clock, Scheduler, Timer } from '../../common/clock.ts';
import type { Random } from '../../common/random.ts';

export interface NodeProcessOptions {
  readonly nodeId: string;
  /** Flags of the node. */
  readonly flags: readonly string[];
  /** Where its log goes; undefined: to `print`, line by line. */
  readonly logFile: string | undefined;
  /** Tells the person at the terminal. */
  readonly print: (line: string) => void;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
}

/** A log that is larger when the runner starts is put aside. */
const MAX_LOG_BYTES = 16 * 1024 * 1024;
/** A node that ran this long did not fail to start. */
const STABLE_MS = 10_000;

/** One node's process, restarted with backoff whenever it ends, as Kubernetes would. */
export class NodeProcess {
  readonly nodeId: string;
  private readonly options: NodeProcessOptions;
  private readonly backoff: Backoff;
  private child: ChildProcess | undefined;
  private restart: Timer | undefined;
  private stopping = false;
  private onStopped: (() => void) | undefined;

  constructor(options: NodeProcessOptions) {
    this.nodeId = options.nodeId;
    this.options = options;
    this.backoff = new Backoff({ initialMs: 200, maxMs: 5000 }, options.random);
  }

  start(): void {
    const { flags, logFile, print, clock } = this.options;
    const log = logFile === undefined ? ('pipe' as const) : openLog(logFile);
    const startedMs = clock.monotonicMs();
    const here = import.meta.filename;
    // A process group of its own: Ctrl-C at the terminal reaches the runner alone, which stops the nodes in its way.
    const child = spawn(process.execPath, [join(dirname(here), `attached-node${extname(here)}`), ...flags], {
      detached: true,
      stdio: ['pipe', log, log],
    });
    if (typeof log === 'number') closeSync(log);
    else this.relay(child.stdout, child.stderr);
    this.child = child;
    child.once('error', (error) => print(`${this.nodeId} cannot be started: ${error.message}`));
    child.once('close', (code, signal) => this.ended(code, signal, clock.monotonicMs() - startedMs));
  }

  /** Asks the process to end; resolves when it has. Idempotent. */
  stop(): Promise<void> {
    this.stopping = true;
    this.restart?.cancel();
    const { child } = this;
    if (child === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      const others = this.onStopped;
      this.onStopped = () => {
        others?.();
        resolve();
      };
      child.kill('SIGTERM');
    });
  }

  /** Ends the process at once. */
  kill(): void {
    this.stopping = true;
    this.restart?.cancel();
    this.child?.kill('SIGKILL');
  }

  private ended(code: number | null, signal: string | null, ranMs: number): void {
    const { print, scheduler, logFile } = this.options;
    this.child = undefined;
    this.onStopped?.();
    if (this.stopping) return;
    if (ranMs > STABLE_MS) this.backoff.reset();
    const delayMs = this.backoff.nextMs();
    const how = signal === null ? `exited with code ${code ?? 0}` : `was ended by ${signal}`;
    const why = code === 0 || signal !== null || logFile === undefined ? '' : `: ${lastLineOf(logFile)}`;
    print(`${this.nodeId} ${how}${why}; restarting it`);
    this.restart = scheduler.after(delayMs, () => this.start());
  }

  private relay(...streams: (Readable | null)[]): void {
    for (const input of streams) {
      if (input === null) continue;
      createInterface({ input }).on('line', (line) => this.options.print(`${this.nodeId} | ${line}`));
    }
  }
}

/** What a node that gives up says last is for a person. */
function lastLineOf(path: string): string {
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  return lines.at(-1)?.slice(0, 500) ?? '';
}

function openLog(path: string): number {
  mkdirSync(dirname(path), { recursive: true });
  if (existsSync(path) && statSync(path).size > MAX_LOG_BYTES) renameSync(path, `${path}.old`);
  return openSync(path, 'a');
}
