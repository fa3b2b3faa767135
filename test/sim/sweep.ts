import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { Progress, type SeedReport } from './progress.ts';
import type { PlantedRule } from './planted-bugs.ts';

export interface SweepOptions {
  readonly from: number;
  readonly seeds: number;
  readonly workers: number;
  /** Where a next run goes on. */
  readonly progressFile?: string | undefined;
  /** The rule of PROTOCOL.md that is broken on purpose. */
  readonly broken?: PlantedRule | undefined;
  /** Ends at the first seed that fails. */
  readonly stopAtFailure?: boolean;
  readonly onReport?: (report: SeedReport) => void;
}

/** What a worker is sent, and answers with a `SeedReport`. */
export interface SeedRequest {
  readonly seed: number;
  readonly broken: PlantedRule | undefined;
}

/** A seed that takes longer hangs. */
const SEED_LIMIT_MS = 180_000;
const SAVE_EVERY_MS = 2_000;

interface Worker {
  readonly child: ChildProcess;
  seed: number | undefined;
  watchdog: NodeJS.Timeout | undefined;
}

/** Runs many seeds in a few processes of their own, each seed by itself; seeds that failed are in the progress. */
export class Sweep {
  private readonly options: SweepOptions;
  private readonly progress: Progress;
  private readonly workers = new Set<Worker>();
  private readonly done = Promise.withResolvers<Progress>();
  private stopping = false;
  private savedAtMs = 0;

  private constructor(options: SweepOptions) {
    this.options = options;
    this.progress = Progress.load(options);
  }

  static run(options: SweepOptions): Promise<Progress> {
    const sweep = new Sweep(options);
    for (let count = 0; count < options.workers; count += 1) sweep.startWorker();
    return sweep.done.promise;
  }

  private startWorker(): void {
    const child = fork(join(import.meta.dirname, 'worker.ts'), {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const worker: Worker = { child, seed: undefined, watchdog: undefined };
    this.workers.add(worker);
    child.on('message', (report) => this.onReport(worker, report as SeedReport));
    child.on('exit', (code, signal) =>
      this.onExit(worker, `its process ended (${signal ?? code ?? 'unknown'})`),
    );
    this.giveNext(worker);
  }

  private giveNext(worker: Worker): void {
    const seed = this.stopping ? undefined : this.progress.take();
    worker.seed = seed;
    if (seed === undefined) {
      worker.child.disconnect();
      return;
    }
    worker.watchdog = setTimeout(() => worker.child.kill('SIGKILL'), SEED_LIMIT_MS);
    worker.child.send({ seed, broken: this.options.broken } satisfies SeedRequest);
  }

  private onReport(worker: Worker, report: SeedReport): void {
    clearTimeout(worker.watchdog);
    this.note(report);
    this.giveNext(worker);
  }

  private onExit(worker: Worker, why: string): void {
    clearTimeout(worker.watchdog);
    this.workers.delete(worker);
    if (worker.seed !== undefined) {
      const violation = { invariant: 'the seed comes to an end', what: why };
      this.note({
        seed: worker.seed,
        hash: '',
        violations: [violation],
        rows: [],
        seen: [],
        operations: 0,
        events: 0,
        simulatedMs: 0,
        cpuMs: 0,
      });
      this.startWorker();
      return;
    }
    if (this.workers.size > 0) return;
    this.progress.save();
    this.done.resolve(this.progress);
  }

  private note(report: SeedReport): void {
    this.progress.add(report);
    this.options.onReport?.(report);
    if (this.options.stopAtFailure === true && report.violations.length > 0) this.stopping = true;
    const nowMs = performance.now();
    if (nowMs - this.savedAtMs < SAVE_EVERY_MS) return;
    this.savedAtMs = nowMs;
    this.progress.save();
  }
}
