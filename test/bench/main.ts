/** `npm run bench [-- --quick]`: measures KVCluster beside etcd and others in one run; --help says more. */
import { existsSync } from 'node:fs';
import { loadavg } from 'node:os';
import type { Bench } from './bench.ts';
import { goalsOf } from './cells/goals.ts';
import { growth } from './cells/growth.ts';
import { mapSize } from './cells/map-size.ts';
import { oneNode } from './cells/one-node.ts';
import { operatorMemory } from './cells/operator-memory.ts';
import { threeNodes } from './cells/three-nodes.ts';
import { binaries } from '../cluster/layout.ts';
import { parseOptions, USAGE, type Options, type PARTS } from './options.ts';
import { goalLines } from './report/text.ts';
import { writeResults } from './report/write.ts';
import { Results } from './results.ts';
import { compile } from './systems/compiled.ts';
import { Scratch } from './systems/scratch.ts';
import { etcdBenchmarkTool, ghzTool } from './tools/go-tools.ts';

const FULL = { pace: { rounds: 5, durationMs: 2000 }, keys: 100_000 };
const QUICK = { pace: { rounds: 3, durationMs: 700 }, keys: 10_000 };

const startMs = performance.now();
const log = (line: string): void => {
  const seconds = Math.round((performance.now() - startMs) / 1000);
  console.error(
    `${String(Math.floor(seconds / 60)).padStart(2)}:${String(seconds % 60).padStart(2, '0')}  ${line}`,
  );
};

const parts: Record<(typeof PARTS)[number], (bench: Bench) => Promise<void>> = {
  'one-node': oneNode,
  'three-nodes': threeNodes,
  growth,
  operator: operatorMemory,
};

async function run(options: Options): Promise<void> {
  const results = new Results(log);
  const hasEtcd = existsSync(binaries.kube);
  if (!hasEtcd) results.skip('etcd and the operator', 'npm run kube:up builds it, npm run kube:down ends it');
  const ghz = await ghzTool(log);
  if (ghz === undefined) results.skip('ghz', 'install Go 1.26 or newer');
  const etcdTool = hasEtcd ? await etcdBenchmarkTool(log) : undefined;
  if (etcdTool === undefined) results.skip("etcd's own tool", 'install Go 1.26 or newer');
  log('compiling the nodes');
  const code = compile();
  const loadBefore = loadavg()[0] ?? 0;
  if (loadBefore > 0.5)
    log(`the machine has a load of ${loadBefore.toFixed(1)} already: figures will be noisy`);
  using scratch = new Scratch();
  const size = options.quick ? QUICK : FULL;
  const { rounds = size.pace.rounds, durationMs = size.pace.durationMs } = options;
  const bench = {
    code,
    scratch: scratch.path,
    results,
    log,
    full: !options.quick,
    pace: { rounds, durationMs },
    keys: size.keys,
    hasEtcd,
    etcdTool,
    ghz,
  };
  for (const [name, part] of Object.entries(parts)) {
    if (options.only.length > 0 && !options.only.includes(name)) continue;
    try {
      await part(bench);
    } catch (error) {
      // What the other parts measure is worth having all the same.
      log(`${name} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
      results.skip(name, `it failed: ${error instanceof Error ? error.message : String(error)}`);
      process.exitCode = 1;
    }
    results.addFigure({
      id: `disk-${name}`,
      title: `on disk at the end of the part ${name}, everybody together`,
      value: scratch.empty() / 1024 ** 3,
      unit: 'GiB',
    });
  }
  mapSize(bench);
  const goals = goalsOf(results);
  const minutes = (performance.now() - startMs) / 60_000;
  await writeResults(options.out, { bench, goals, minutes, loadBefore });
  console.log(`\n${goalLines(goals).join('\n')}\n`);
  const reached = goals.filter(({ isReached }) => isReached).length;
  console.log(`${reached} of ${goals.length} goals reached; everything measured is in ${options.out}`);
}

try {
  const options = parseOptions(process.argv.slice(2));
  if (options === 'help') console.log(USAGE);
  else await run(options);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
