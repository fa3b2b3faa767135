/**
 * `node test/bench/profile.ts put|get [in flight] [nodes]`: loads a cluster by our client with V8's profiler in every
 * process, and prints where the busiest node and the load process spend their time. The profiles stay in
 * build/bench-profiles for the developer tools of a browser.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Load } from './load/load.ts';
import { work } from './load/work.ts';
import { figure, table } from './report/table.ts';
import { compile } from './systems/compiled.ts';
import { KvCluster } from './systems/kvcluster.ts';
import { Scratch } from './systems/scratch.ts';

interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

const KEYS = 10_000;
const DURATION_MS = 5000;
const SHOWN = 35;
const out = join(import.meta.dirname, '../../build/bench-profiles');

const [operation = 'put', inFlight = '1000', nodes = '3'] = process.argv.slice(2);
const readShare = operation === 'get' ? 1 : 0;
rmSync(out, { recursive: true, force: true });
const directoryOf = (name: string): string => {
  mkdirSync(join(out, name), { recursive: true });
  return join(out, name);
};
const profiled = (name: string): string[] => ['--cpu-prof', '--cpu-prof-dir', directoryOf(name)];

await measure();
for (const name of ['nodes', 'load']) for (const file of readdirSync(join(out, name))) print(name, file);

async function measure(): Promise<void> {
  using scratch = new Scratch();
  await using cluster = await KvCluster.start({
    code: compile(),
    directory: scratch.path,
    nodes: Number(nodes),
    nodeOptions: profiled('nodes'),
  });
  await using load = new Load({ kind: 'kvcluster', endpoints: cluster.endpoints }, profiled('load'));
  await load.fill({ prefix: 'k', keys: KEYS, valueBytes: 256, inFlight: 256 });
  const measurement = await load.run(
    work({
      keys: KEYS,
      readShare,
      strongReads: process.argv[5] === 'strong',
      inFlight: Number(inFlight),
      durationMs: DURATION_MS,
    }),
  );
  console.log(`${operation}, ${inFlight} in flight, ${nodes} nodes:`, measurement);
  // In order: a process that is killed writes no profile.
  await Promise.all(cluster.nodes.map((node) => node.end('SIGTERM')));
}

/** Self time by function; what is idle or native shows under the names that V8 gives it. */
function print(name: string, file: string): void {
  const profile = JSON.parse(readFileSync(join(out, name, file), 'utf8')) as Profile;
  const selfMs = new Map<number, number>();
  profile.samples.forEach((id, index) => {
    selfMs.set(id, (selfMs.get(id) ?? 0) + (profile.timeDeltas[index] ?? 0) / 1000);
  });
  const byFunction = new Map<string, number>();
  for (const { id, callFrame } of profile.nodes) {
    const place = callFrame.url.replace(/^.*?\/(build\/bench|node_modules|work)\//, '');
    const key = `${callFrame.functionName || '(anonymous)'} ${place}:${callFrame.lineNumber + 1}`;
    byFunction.set(key, (byFunction.get(key) ?? 0) + (selfMs.get(id) ?? 0));
  }
  const totalMs = [...byFunction.values()].reduce((sum, ms) => sum + ms, 0);
  const idleMs = byFunction.get('(idle) :0') ?? 0;
  byFunction.delete('(idle) :0');
  const rows = [...byFunction]
    .toSorted(([, a], [, b]) => b - a)
    .slice(0, SHOWN)
    .map(([key, ms]) => [key, figure(ms), `${((100 * ms) / (totalMs - idleMs)).toFixed(1)} %`]);
  console.log(`\n${name}/${file}: ${figure(totalMs)} ms, of which idle ${figure(idleMs)} ms`);
  console.log(table(['function', 'self ms', 'of what is not idle'], rows).join('\n'));
}
