import { KEY_BYTES, keyName, type Measurement, type Work } from '../load/work.ts';
import { OperationCount } from './operation-count.ts';
import { runTool } from './tool-process.ts';

/** Clients that share a connection: of 1, 10, 100 and all, this let etcd do most on two cores. */
export const CLIENTS_PER_CONNECTION = 100;

/** etcd's own load generator, which does a number of operations and not a length of time. */
export class EtcdBenchmark {
  private readonly tool: string;
  private readonly endpoint: string;
  private readonly count = new OperationCount();

  constructor(tool: string, endpoint: string) {
    this.tool = tool;
    this.endpoint = endpoint;
  }

  run(work: Work): Promise<Measurement> {
    const cell = `${work.readShare} ${work.strongReads} ${work.inFlight} ${work.valueBytes}`;
    return this.count.measure(cell, work, async (total) => {
      const common = [
        `--endpoints=${this.endpoint}`,
        `--clients=${work.inFlight}`,
        `--conns=${Math.ceil(work.inFlight / CLIENTS_PER_CONNECTION)}`,
        '--precise',
      ];
      return parseEtcdBenchmark(await runTool([this.tool, ...common, ...operation(work, total)]));
    });
  }
}

/** Its reads are all of one key, which is one that was loaded. */
function operation(work: Work, total: number): readonly string[] {
  if (work.readShare === 1) {
    const consistency = work.strongReads ? 'l' : 's';
    return ['range', keyName(work.prefix, 0), `--consistency=${consistency}`, `--total=${total}`];
  }
  return [
    'put',
    `--key-size=${KEY_BYTES}`,
    `--val-size=${work.valueBytes}`,
    `--key-space-size=${work.keys}`,
    `--total=${total}`,
  ];
}

/**
 * What the tool printed with --precise; times are in seconds there.
 *
 * @throws Error when it printed no figures.
 */
export function parseEtcdBenchmark(output: string): Measurement {
  const number = (pattern: RegExp): number => {
    const text = pattern.exec(output)?.[1];
    if (text === undefined) throw new Error(`the benchmark tool printed no figures: ${output.slice(-500)}`);
    return Number(text);
  };
  const ms = (percent: string): number =>
    1000 * number(new RegExp(`^ *${percent}% in ([\\d.e+-]+) secs`, 'm'));
  const opsPerSecond = number(/Requests\/sec:\s+([\d.e+-]+)/);
  const [, errors] = output.split('Error distribution:');
  return {
    operations: Math.round(opsPerSecond * number(/Total:\s+([\d.e+-]+)/)),
    opsPerSecond,
    p50Ms: ms('50'),
    p90Ms: ms('90'),
    p99Ms: ms('99'),
    // Not told of fewer than a thousand.
    p999Ms: output.includes('99.9% in') ? ms('99.9') : NaN,
    maxMs: 1000 * number(/Slowest:\s+([\d.e+-]+)/),
    errors: errors === undefined ? 0 : 1,
    firstError: errors?.trim(),
    misses: 0,
    longestPauseMs: undefined,
  };
}
