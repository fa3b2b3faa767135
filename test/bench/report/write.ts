import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { format } from 'prettier';
import type { Bench } from '../bench.ts';
import type { Goal } from '../cells/goals.ts';
import { growthPlot, throughputLatencyPlot } from './plots.ts';
import { markdown } from './text.ts';

export interface Run {
  readonly bench: Bench;
  readonly goals: readonly Goal[];
  readonly minutes: number;
  /** Load of the machine before anything was started. */
  readonly loadBefore: number;
}

/** Writes results.json, results.md and the plots that there are figures for. */
export async function writeResults(directory: string, run: Run): Promise<void> {
  const { results, pace, keys } = run.bench;
  const { cells, figures, growth, skipped } = results;
  mkdirSync(directory, { recursive: true });
  const write = (name: string, text: string): void => writeFileSync(join(directory, name), text);
  const about = aboutOf(run);
  const json = { about, pace, keys, goals: run.goals, cells, figures, growth, skipped };
  write('results.json', await format(JSON.stringify(json, shortened), { parser: 'json', printWidth: 110 }));
  const text = markdown(results, run.goals, about);
  write('results.md', await format(text, { parser: 'markdown', printWidth: 110 }));
  for (const operation of ['put', 'get'] as const) {
    const plot = throughputLatencyPlot(results, operation);
    if (plot !== undefined) write(`throughput-latency-${operation}.svg`, plot);
  }
  const grown = growthPlot(results.growth);
  if (grown !== undefined) write('growth.svg', grown);
}

/** Nobody measured more digits than these. */
function shortened(_name: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value;
}

function aboutOf({ bench, minutes, loadBefore }: Run): readonly string[] {
  const model = cpus()[0]?.model.trim() ?? 'unknown processors';
  const gib = Math.round(totalmem() / 1024 ** 3);
  return [
    `${cpus().length} x ${model}, ${gib} GiB, Linux ${release()}, Node ${process.versions.node}`,
    `load generators and servers share these processors; load of the machine before: ${loadBefore.toFixed(2)}`,
    `medians of ${bench.pace.rounds} rounds of ${bench.pace.durationMs} ms, contenders in turn; ${bench.keys} keys of 16 bytes, values of 256 bytes unless said otherwise`,
    `took ${minutes.toFixed(1)} minutes`,
  ];
}
