/**
 * The simulation: `npm run test:sim` runs what CI runs; `-- --seeds N --from M` runs those seeds, with `--progress FILE` a later call goes
 * on where this one ended; `SEED=n` replays one seed and tells its history, `HISTORY=file` writes all of it.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { COVERAGE, FEWEST_SEEDS, missing } from './coverage.ts';
import { PLANTED_RULES, type PlantedRule } from './planted-bugs.ts';
import type { Progress } from './progress.ts';
import { replay } from './replay.ts';
import { Sweep } from './sweep.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    from: { type: 'string', default: '1' },
    progress: { type: 'string' },
    workers: { type: 'string', default: '2' },
    /** Breaks a rule on purpose, and ends at the first seed that notices. */
    plant: { type: 'string' },
    /** Also prints in how many seeds each thing was seen. */
    seen: { type: 'boolean', default: false },
  },
});
const seed = process.env['SEED'];
const broken = plantedRule(values.plant);

if (seed !== undefined) {
  const held = await replay({ seed: integer('SEED', seed), broken, historyFile: process.env['HISTORY'] });
  process.exitCode = held ? 0 : 1;
} else if (values.seeds === undefined) {
  const { status } = spawnSync(
    process.execPath,
    [join(import.meta.dirname, '../../scripts/test.ts'), 'sim'],
    {
      stdio: 'inherit',
    },
  );
  process.exitCode = status ?? 1;
} else {
  await sweep(integer('--seeds', values.seeds));
}

async function sweep(seeds: number): Promise<void> {
  const startedMs = performance.now();
  const progress = await Sweep.run({
    from: integer('--from', values.from),
    seeds,
    workers: integer('--workers', values.workers),
    progressFile: values.progress,
    broken,
    stopAtFailure: broken !== undefined,
    onReport: ({ seed: failed, violations: [first] }) => {
      if (first !== undefined) console.log(`seed ${failed}: ${first.invariant}: ${first.what}`);
    },
  });
  report(progress, (performance.now() - startedMs) / 1000);
}

function report({ totals, failures, rowSeeds, seenSeeds, isComplete }: Progress, seconds: number): void {
  const percent = (count: number): string =>
    `${((100 * count) / Math.max(1, totals.seeds)).toFixed(1).padStart(6)} %`;
  console.log('\nhappened in');
  for (const { name } of COVERAGE) console.log(`${percent(rowSeeds.get(name) ?? 0)}  ${name}`);
  if (values.seen)
    for (const [name, count] of [...seenSeeds].sort()) console.log(`${percent(count)}  ${name}`);
  const cpuSeconds = totals.cpuMs / 1000;
  console.log(
    `\n${totals.seeds} seeds, ${totals.operations} operations, ${totals.events} events, ${(totals.simulatedMs / 3_600_000).toFixed(1)} h of simulated time`,
  );
  console.log(
    `${seconds.toFixed(0)} s this time; ${(cpuSeconds / Math.max(1, totals.seeds)).toFixed(2)} s of CPU a seed, ${(totals.operations / cpuSeconds).toFixed(0)} operations and ${(totals.events / cpuSeconds).toFixed(0)} events per second of it`,
  );
  for (const { seed: failed, invariant, what } of failures)
    console.log(`FAILED seed ${failed}: ${invariant}: ${what}`);
  const demands = totals.seeds >= FEWEST_SEEDS && broken === undefined;
  const rare = demands ? missing(rowSeeds, totals.seeds) : [];
  for (const { row, seeds } of rare) console.log(`TOO RARE, in ${seeds} seeds: ${row.name}`);
  const failed = failures.length > 0 || rare.length > 0;
  console.log(failed ? `${failures.length} seeds failed` : `no seed failed${isComplete ? '' : ' so far'}`);
  process.exitCode = failed ? 1 : 0;
}

function integer(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${name} must be a number, not ${text}`);
  return value;
}

function plantedRule(name: string | undefined): PlantedRule | undefined {
  if (name === undefined) return undefined;
  const rule = PLANTED_RULES.find((each) => each === name);
  if (rule === undefined) throw new Error(`--plant takes one of ${PLANTED_RULES.join(', ')}`);
  return rule;
}
