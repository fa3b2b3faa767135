import type { Measurement, Work } from '../load/work.ts';
import { OperationCount } from './operation-count.ts';
import { runTool } from './tool-process.ts';

/** Redis's own load generator; its keys are `key:` and twelve digits, 16 bytes as everywhere. */
export class RedisBenchmark {
  private readonly port: number;
  /** Commands that one connection sends at once. */
  private readonly pipeline: number;
  private readonly count = new OperationCount();

  constructor(port: number, pipeline = 1) {
    this.port = port;
    this.pipeline = pipeline;
  }

  run(work: Work): Promise<Measurement> {
    const command = work.readShare === 1 ? 'get' : 'set';
    const connections = Math.max(1, Math.round(work.inFlight / this.pipeline));
    return this.count.measure(`${command} ${work.inFlight} ${work.valueBytes}`, work, async (total) => {
      const output = await runTool([
        'redis-benchmark',
        ...['-h', '127.0.0.1', '-p', String(this.port), '-t', command, '-c', String(connections)],
        ...['-P', String(this.pipeline), '-d', String(work.valueBytes), '-r', String(work.keys)],
        ...['-n', String(total), '--csv', '--precision', '3'],
      ]);
      return parseRedisBenchmark(output, total);
    });
  }
}

/** "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms" */
export function parseRedisBenchmark(output: string, operations: number): Measurement {
  const row = output.trim().split('\n').at(-1)?.split(',') ?? [];
  const [, opsPerSecond = NaN, , , p50Ms = NaN, , p99Ms = NaN, maxMs = NaN] = row.map((cell) =>
    Number(cell.replaceAll('"', '')),
  );
  if (Number.isNaN(opsPerSecond)) throw new Error(`redis-benchmark printed no figures: ${output}`);
  const untold = { p90Ms: NaN, p999Ms: NaN, longestPauseMs: undefined };
  return {
    operations,
    opsPerSecond,
    p50Ms,
    p99Ms,
    maxMs,
    ...untold,
    errors: 0,
    firstError: undefined,
    misses: 0,
  };
}
