import { type ChildProcess, fork } from 'node:child_process';
import type { Socket } from 'node:net';
import { dirname, extname, join } from 'node:path';
import { Backoff } from '../../common/backoff.ts';
import type { Clock, Scheduler, Timer } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import type { Random } from '../../common/random.ts';
import { EXIT_FENCED, EXIT_USAGE } from '../exit-codes.ts';
import { type FromWorker, STATE_EVERY_MS, type ToWorker, type WorkerState } from './messages.ts';
import type { SeenWorker } from './readiness.ts';

/** What is needed of a child process. */
export type WorkerChild = Pick<ChildProcess, 'pid' | 'connected' | 'send' | 'kill' | 'on' | 'once'>;

export interface WorkerProcessOptions {
  readonly worker: number;
  readonly nodeId: string;
  /** Flags of the node, dashes included. */
  readonly flags: readonly string[];
  /** Told when the process has ended for a reason that another start would not change. */
  readonly onHopeless: (code: number) => void;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly logger: Logger;
  /** Starts the process. @default a node of this software, with a channel to this process */
  readonly launch?: (flags: readonly string[]) => WorkerChild;
}

/** Who does not say anything for this long does not turn its event loop. */
const STALLED_MS = 10_000;
const STALLED = 'the event loop does not turn';
/** And for this long, will not any more: as after three failed probes of the kubelet. */
const HUNG_MS = 30_000;
/** A worker that replays a long log must not be killed for it. */
const STARTUP_MS = 600_000;
/** The container is to be replaced when its parent could not bring a worker back in this time. */
const BEYOND_HELP_MS = 60_000;
/** A worker that ran this long did not fail to start. */
const STABLE_MS = 10_000;
const RESTART = { initialMs: 200, maxMs: 10_000 };
const METRICS_TIMEOUT_MS = 2500;
const HOPELESS: readonly (number | null)[] = [EXIT_USAGE, EXIT_FENCED];

/** One worker's process: restarted with backoff when it ends or hangs, as the kubelet does with a container. */
export class WorkerProcess implements SeenWorker {
  readonly worker: number;
  readonly nodeId: string;
  /** Ends that nobody had asked for. */
  restarts = 0;
  /** Clients that were handed to it. */
  connections = 0;
  private readonly options: WorkerProcessOptions;
  private readonly backoff: Backoff;
  private readonly scrapes = new Map<number, (text: string) => void>();
  private child: WorkerChild | undefined;
  private said: WorkerState | undefined;
  private startedMs = 0;
  private heardMs = 0;
  private wellMs: number;
  private nextScrape = 0;
  private restart: Timer | undefined;
  private watch: Timer | undefined;
  private stopping = false;
  private onStopped: (() => void)[] = [];

  constructor(options: WorkerProcessOptions) {
    this.options = options;
    this.worker = options.worker;
    this.nodeId = options.nodeId;
    this.backoff = new Backoff(RESTART, options.random);
    this.wellMs = options.clock.monotonicMs();
  }

  /** What it said last, unless that was too long ago; undefined while no process runs. */
  get state(): WorkerState | undefined {
    if (this.said === undefined || this.silentMs <= STALLED_MS) return this.said;
    return { ...this.said, notReadyReason: STALLED };
  }

  /** Why the whole container should be replaced: this worker has been dead for long, whatever was done about it. */
  get unhealthyReason(): string | undefined {
    const problem = this.problem;
    if (problem === undefined || this.now - this.wellMs <= BEYOND_HELP_MS) return undefined;
    return `${this.nodeId}: ${problem}`;
  }

  start(): void {
    const { launch = forkNode, flags, logger } = this.options;
    this.startedMs = this.heardMs = this.now;
    const child = launch(flags);
    this.child = child;
    child.on('message', (message) => this.receive(message as FromWorker));
    child.once('error', (error) =>
      logger.error({ worker: this.nodeId, error }, 'a worker cannot be reached'),
    );
    child.once('close', (code: number | null, signal) => this.ended(code, signal));
    logger.info({ worker: this.nodeId, pid: child.pid }, 'a worker was started');
    this.look();
  }

  /** Asks the process to end in order; resolves when it has. Idempotent. */
  stop(): Promise<void> {
    this.stopping = true;
    this.restart?.cancel();
    const { child } = this;
    if (child === undefined) return Promise.resolve();
    const stopped = new Promise<void>((resolve) => this.onStopped.push(resolve));
    child.kill('SIGTERM');
    return stopped;
  }

  /** Ends the process at once, and for good. */
  kill(): void {
    this.stopping = true;
    this.restart?.cancel();
    this.child?.kill('SIGKILL');
  }

  /** Gives it a client, which it serves from then on. */
  hand(connection: Socket): void {
    this.connections += 1;
    this.send({ kind: 'client' }, connection, () => connection.destroy());
  }

  /** Its metrics, as text for Prometheus; empty when it does not answer. */
  metrics(): Promise<string> {
    return new Promise((resolve) => {
      const id = (this.nextScrape += 1);
      const end = (text: string): void => {
        timer.cancel();
        this.scrapes.delete(id);
        resolve(text);
      };
      const timer = this.options.scheduler.after(METRICS_TIMEOUT_MS, () => end(''));
      this.scrapes.set(id, end);
      this.send({ kind: 'metrics', id }, undefined, () => end(''));
    });
  }

  private get now(): number {
    return this.options.clock.monotonicMs();
  }

  /** Why it cannot be called alive. */
  private get problem(): string | undefined {
    if (this.child === undefined) return 'not running';
    if (this.said?.unhealthyReason !== undefined) return this.said.unhealthyReason;
    return this.silentMs > STALLED_MS ? STALLED : undefined;
  }

  /** For how long it has said nothing; none of it counts while it starts. */
  private get silentMs(): number {
    const isStarting = this.said?.listening !== true && this.now - this.startedMs < STARTUP_MS;
    return isStarting ? 0 : this.now - this.heardMs;
  }

  private look(): void {
    const { scheduler, logger } = this.options;
    this.watch?.cancel();
    if (this.problem === undefined) this.wellMs = this.now;
    if (this.child !== undefined && !this.stopping && this.silentMs > HUNG_MS) {
      logger.error(
        { worker: this.nodeId, silentMs: Math.round(this.silentMs) },
        'a worker hangs and is killed',
      );
      this.child.kill('SIGKILL');
    }
    this.watch = scheduler.after(STATE_EVERY_MS, () => this.look());
  }

  private receive(message: FromWorker): void {
    this.heardMs = this.now;
    switch (message.kind) {
      case 'state':
        this.said = message.state;
        return;
      case 'metrics':
        this.scrapes.get(message.id)?.(message.text);
    }
  }

  private send(message: ToWorker, connection: Socket | undefined, failed: () => void): void {
    if (this.child?.connected !== true) {
      failed();
      return;
    }
    this.child.send(message, connection, {}, (error) => {
      if (error !== null) failed();
    });
  }

  private ended(code: number | null, signal: NodeJS.Signals | null): void {
    const { scheduler, logger, onHopeless } = this.options;
    this.child = undefined;
    this.said = undefined;
    for (const end of [...this.scrapes.values()]) end('');
    if (this.stopping) {
      this.watch?.cancel();
      for (const stopped of this.onStopped.splice(0)) stopped();
      return;
    }
    this.restarts += 1;
    if (code !== null && HOPELESS.includes(code)) {
      logger.error(
        { worker: this.nodeId, code },
        'a worker has ended for a reason that a restart would not change',
      );
      onHopeless(code);
      return;
    }
    if (this.now - this.startedMs > STABLE_MS) this.backoff.reset();
    const delayMs = Math.round(this.backoff.nextMs());
    logger.error({ worker: this.nodeId, code, signal, delayMs }, 'a worker has ended and is started again');
    this.restart = scheduler.after(delayMs, () => this.start());
  }
}

/** In a process group of its own: what is typed at a terminal reaches the parent alone, which ends the workers in its way. */
function forkNode(flags: readonly string[]): WorkerChild {
  const here = import.meta.filename;
  return fork(join(dirname(here), '..', `main${extname(here)}`), [...flags], {
    detached: true,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
}
