import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';

/** What one seed came to, as it travels between processes. */
export interface SeedReport {
  readonly seed: number;
  readonly hash: string;
  readonly violations: readonly { readonly invariant: string; readonly what: string }[];
  /** Rows of the coverage table that happened. */
  readonly rows: readonly string[];
  /** Everything that was counted in it. */
  readonly seen: readonly string[];
  readonly operations: number;
  readonly events: number;
  readonly simulatedMs: number;
  readonly cpuMs: number;
}

interface Stored {
  readonly from: number;
  readonly seeds: number;
  /** Every seed below is finished. */
  readonly through: number;
  readonly beyond: readonly number[];
  readonly failures: readonly Failure[];
  readonly rowSeeds: Readonly<Record<string, number>>;
  readonly seenSeeds: Readonly<Record<string, number>>;
  readonly totals: Totals;
}

interface Totals {
  seeds: number;
  operations: number;
  events: number;
  simulatedMs: number;
  cpuMs: number;
}

export interface Failure {
  readonly seed: number;
  readonly invariant: string;
  readonly what: string;
}

/** How far a sweep is and what it has found; kept in a file, so that a later run goes on where this one ended. */
export class Progress {
  readonly failures: Failure[] = [];
  /** In how many seeds each row of the coverage happened, and everything else that was counted. */
  readonly rowSeeds = new Map<string, number>();
  readonly seenSeeds = new Map<string, number>();
  readonly totals: Totals = { seeds: 0, operations: 0, events: 0, simulatedMs: 0, cpuMs: 0 };
  private readonly file: string | undefined;
  private readonly from: number;
  private readonly seeds: number;
  private through: number;
  private next: number;
  private readonly beyond = new Set<number>();

  private constructor(options: { from: number; seeds: number; progressFile?: string | undefined }) {
    this.file = options.progressFile;
    this.from = options.from;
    this.seeds = options.seeds;
    this.through = this.next = options.from;
  }

  /** What the file says, when it is about the same seeds. */
  static load(options: { from: number; seeds: number; progressFile?: string | undefined }): Progress {
    const progress = new Progress(options);
    const { progressFile: file } = options;
    if (file === undefined || !existsSync(file)) return progress;
    const stored = JSON.parse(readFileSync(file, 'utf8')) as Stored;
    if (stored.from !== options.from) {
      throw new Error(`${file} is about seeds from ${stored.from}: remove it, or name another file`);
    }
    progress.take(stored);
    return progress;
  }

  get isComplete(): boolean {
    return this.through >= this.from + this.seeds;
  }

  /** The next seed to run. */
  take(stored?: Stored): number | undefined {
    if (stored !== undefined) {
      this.restore(stored);
      return undefined;
    }
    while (this.beyond.has(this.next)) this.next += 1;
    if (this.next >= this.from + this.seeds) return undefined;
    this.next += 1;
    return this.next - 1;
  }

  add(report: SeedReport): void {
    this.beyond.add(report.seed);
    while (this.beyond.delete(this.through)) this.through += 1;
    const { totals } = this;
    totals.seeds += 1;
    totals.operations += report.operations;
    totals.events += report.events;
    totals.simulatedMs += report.simulatedMs;
    totals.cpuMs += report.cpuMs;
    for (const name of report.rows) this.rowSeeds.set(name, (this.rowSeeds.get(name) ?? 0) + 1);
    for (const name of report.seen) this.seenSeeds.set(name, (this.seenSeeds.get(name) ?? 0) + 1);
    const [first] = report.violations;
    if (first !== undefined) this.failures.push({ seed: report.seed, ...first });
  }

  save(): void {
    if (this.file === undefined) return;
    const stored: Stored = {
      from: this.from,
      seeds: this.seeds,
      through: this.through,
      beyond: [...this.beyond],
      failures: this.failures,
      rowSeeds: Object.fromEntries(this.rowSeeds),
      seenSeeds: Object.fromEntries(this.seenSeeds),
      totals: this.totals,
    };
    writeFileSync(`${this.file}.new`, `${JSON.stringify(stored, undefined, 1)}\n`);
    renameSync(`${this.file}.new`, this.file);
  }

  private restore(stored: Stored): void {
    this.through = this.next = stored.through;
    for (const seed of stored.beyond) this.beyond.add(seed);
    this.failures.push(...stored.failures);
    for (const [name, count] of Object.entries(stored.rowSeeds)) this.rowSeeds.set(name, count);
    for (const [name, count] of Object.entries(stored.seenSeeds)) this.seenSeeds.set(name, count);
    Object.assign(this.totals, stored.totals);
  }
}
