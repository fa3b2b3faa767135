/**
 * What a second worker in a pod is worth on this machine, and what follows for machines with more cores:
 *
 *   node test/bench/workers.ts [--seconds S] [--rounds N]
 *
 * One pod alone, with one worker and with two, in turn: by the client library, which routes by key over one stream to each
 * worker, and by ghz, a generic client with unary calls to the pod's port. Prints the table and the model as Markdown.
 */
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { type Contender, measure, type Summary } from './cells/measure.ts';
import { ghzTargets } from './cells/targets.ts';
import { Load } from './load/load.ts';
import { work } from './load/work.ts';
import { compile } from './systems/compiled.ts';
import { KvPod } from './systems/kvcluster-pod.ts';
import { Scratch } from './systems/scratch.ts';
import { cpuSeconds } from './systems/server-process.ts';
import { Ghz } from './tools/ghz.ts';
import { ghzTool } from './tools/go-tools.ts';

const KEYS = 10_000;
/** For each worker: with fewer its batches are smaller, and each operation costs more. */
const IN_FLIGHT = 100;
/** Cores of the machines that the model is about, each with as many workers. */
const MACHINES = [2, 4, 8, 16];

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '4' }, rounds: { type: 'string', default: '5' } },
});
const pace = { durationMs: Number(values.seconds) * 1000, rounds: Number(values.rounds) };
const log = (line: string): void => console.error(line);
const ghz = await ghzTool(log);
log('compiling the nodes');
const code = compile();
console.log(`load before: ${loadavg()[0]?.toFixed(1)}; ${pace.rounds} rounds of ${pace.durationMs} ms\n`);
using scratch = new Scratch();
await using systems = new AsyncDisposableStack();
const pods = new Map<number, KvPod>();
for (const workers of [1, 2]) {
  const pod = systems.use(await KvPod.start({ code, directory: scratch.path, workers }));
  pods.set(workers, pod);
  const load = systems.use(new Load({ kind: 'kvcluster', endpoints: pod.endpoints }));
  await load.fill({ prefix: 'k', keys: KEYS, valueBytes: 256, inFlight: 256 });
}

console.log(
  '| operation | by | workers | in flight | operations/s | of one | p99 ms | server CPU µs | client CPU µs | CPUs of servers |',
);
console.log('| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |');
const models = [
  `| operation | by | ${MACHINES.map((cores) => `${cores} cores`).join(' | ')} |`,
  `| --- | --- | ${MACHINES.map(() => '---:').join(' | ')} |`,
];
for (const operation of ['put', 'get'] as const) {
  await byLibrary(operation);
  if (ghz !== undefined) await byGhz(operation, ghz);
}
console.log(`\n${models.join('\n')}`);

async function byLibrary(operation: 'put' | 'get'): Promise<void> {
  const clientCpu = new Map<string, number[]>();
  const loads = [...pods].map(([workers, pod]) => {
    const load = systems.use(new Load({ kind: 'kvcluster', endpoints: pod.endpoints }));
    return { load, pod, name: String(workers) };
  });
  const contenders = loads.map(({ load, pod, name }): Contender => ({
    name,
    servers: () => pod.pids,
    run: async (given) => {
      const before = cpuSeconds(load.pid);
      const measurement = await load.run(given);
      // The warm-up, a quarter, takes its share.
      const perOperation = (cpuSeconds(load.pid) - before) / (measurement.operations * 1.25);
      clientCpu.set(name, [...(clientCpu.get(name) ?? []), perOperation]);
      return measurement;
    },
  }));
  const summaries = await summariesOf(operation, contenders);
  const client = (name: string): number => medianOf(clientCpu.get(name) ?? []) * 1e6;
  for (const summary of summaries)
    printRow(operation, 'library', summary, summaries[0], client(summary.contender));
  const [, two] = summaries;
  // Who routes by key asks the right worker: what an operation costs does not depend on how many there are.
  if (two !== undefined) addModel(operation, 'library', () => serverMicros(two));
}

async function byGhz(operation: 'put' | 'get', tool: string): Promise<void> {
  const runner = new Ghz(tool, scratch.path);
  const contenders = [...pods].map(([workers, pod]): Contender => {
    const target = operation === 'put' ? ghzTargets.kvPut(pod.anyWorker) : ghzTargets.kvGet(pod.anyWorker);
    return { name: String(workers), servers: () => pod.pids, run: (given) => runner.run(target, given) };
  });
  const summaries = await summariesOf(operation, contenders);
  for (const summary of summaries) printRow(operation, 'ghz', summary, summaries[0]);
  const [one, two] = summaries.map(serverMicros);
  if (one === undefined || two === undefined) return;
  // Of n workers all but one in n are the wrong one, and forward: with two, half of the operations cost that in addition.
  const forwarding = 2 * (two - one);
  addModel(operation, 'ghz', (workers) => one + (1 - 1 / workers) * forwarding);
}

async function summariesOf(
  operation: 'put' | 'get',
  contenders: readonly Contender[],
): Promise<readonly Summary[]> {
  const given = work({ keys: KEYS, readShare: operation === 'get' ? 1 : 0 });
  const scaled = contenders.map(({ name, servers, run }): Contender => ({
    name,
    servers,
    run: (of) => run({ ...of, inFlight: IN_FLIGHT * Number(name) }),
  }));
  for (const { run } of scaled) await run({ ...given, durationMs: 1000 });
  const cell = { id: operation, title: operation, work: given, contenders: scaled };
  const { summaries } = await measure(cell, pace);
  for (const { errors, misses, firstError } of summaries) {
    if (errors + misses > 0) throw new Error(`${errors} errors, ${misses} misses: ${firstError}`);
  }
  return summaries;
}

function printRow(
  operation: string,
  by: string,
  summary: Summary,
  one: Summary | undefined,
  clientMicros?: number,
): void {
  const ratio = summary.opsPerSecond / (one?.opsPerSecond ?? NaN);
  const cells = [
    operation,
    by,
    summary.contender,
    IN_FLIGHT * Number(summary.contender),
    Math.round(summary.opsPerSecond),
    ratio.toFixed(2),
    summary.p99Ms.toFixed(1),
    serverMicros(summary).toFixed(1),
    clientMicros?.toFixed(1) ?? '',
    summary.serverCpus.toFixed(2),
  ];
  console.log(`| ${cells.join(' | ')} |`);
}

/** Processor time of the servers for one operation. */
function serverMicros({ serverCpus, opsPerSecond }: Summary): number {
  return (serverCpus / opsPerSecond) * 1e6;
}

/** Operations per second that so many workers can do on as many cores, by the processor time that each operation costs. */
function addModel(operation: string, by: string, microsOf: (workers: number) => number): void {
  const thousands = MACHINES.map((cores) => Math.round((cores * 1000) / microsOf(cores)));
  models.push(`| ${operation} | ${by} | ${thousands.map((count) => `${count},000`).join(' | ')} |`);
}

function medianOf(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN;
}
