import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { valuesOf } from '../load/run-work.ts';
import { keyName, type Measurement, type Work } from '../load/work.ts';
import { CLIENTS_PER_CONNECTION } from './etcd-benchmark.ts';
import { runTool } from './tool-process.ts';

/** Different requests in turn: enough that no key is hot, few enough to be read before the time starts. */
const REQUESTS = 5000;

/** A unary method as ghz calls it. */
export interface GhzTarget {
  readonly endpoint: string;
  /** Directory and name of the .proto file. */
  readonly proto: readonly [directory: string, file: string];
  /** package.Service/Method */
  readonly method: string;
  /** One request; bytes are given as base64. */
  readonly request: (key: string, value: string) => object;
}

interface GhzReport {
  readonly count: number;
  readonly rps: number;
  /** Nanoseconds. */
  readonly slowest: number;
  readonly latencyDistribution: readonly { readonly percentage: number; readonly latency: number }[] | null;
  readonly errorDistribution?: Readonly<Record<string, number>>;
}

/** ghz: a generic gRPC client in Go, which knows nothing of what it calls. */
export class Ghz {
  private readonly tool: string;
  private readonly directory: string;
  private files = 0;
  private readonly data = new Map<string, string>();

  constructor(tool: string, directory: string) {
    this.tool = tool;
    this.directory = directory;
  }

  async run(target: GhzTarget, work: Work): Promise<Measurement> {
    const output = await runTool([
      this.tool,
      '--insecure',
      `--import-paths=${target.proto[0]}`,
      `--proto=${target.proto[1]}`,
      `--call=${target.method}`,
      `--concurrency=${work.inFlight}`,
      `--connections=${Math.ceil(work.inFlight / CLIENTS_PER_CONNECTION)}`,
      `--duration=${Math.round(work.durationMs)}ms`,
      '--duration-stop=wait',
      '--timeout=30s',
      '--disable-template-functions',
      '--disable-template-data',
      `--data-file=${this.dataFile(target, work)}`,
      '--format=json',
      target.endpoint,
    ]);
    return measurementOf(JSON.parse(output) as GhzReport);
  }

  private dataFile({ method, request }: GhzTarget, work: Work): string {
    const cell = JSON.stringify([method, work.prefix, work.keys, work.valueBytes, request('', '')]);
    const made = this.data.get(cell);
    if (made !== undefined) return made;
    const [value = Buffer.alloc(0)] = valuesOf(work.valueBytes);
    const requests = Array.from({ length: REQUESTS }, () => {
      const key = Buffer.from(keyName(work.prefix, Math.floor(Math.random() * work.keys)));
      return request(key.toString('base64'), value.toString('base64'));
    });
    const file = join(this.directory, `ghz-${this.files++}.json`);
    writeFileSync(file, JSON.stringify(requests));
    this.data.set(cell, file);
    return file;
  }
}

function measurementOf(report: GhzReport): Measurement {
  const ms = (percentage: number): number =>
    (report.latencyDistribution?.find((row) => row.percentage === percentage)?.latency ?? NaN) / 1e6;
  const errors = Object.entries(report.errorDistribution ?? {});
  return {
    operations: report.count,
    opsPerSecond: report.rps,
    p50Ms: ms(50),
    p90Ms: ms(90),
    p99Ms: ms(99),
    p999Ms: NaN,
    maxMs: report.slowest / 1e6,
    errors: errors.reduce((sum, [, count]) => sum + count, 0),
    firstError: errors[0]?.[0],
    misses: 0,
    longestPauseMs: undefined,
  };
}
