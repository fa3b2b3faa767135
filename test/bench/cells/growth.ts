import { join } from 'node:path';
import type { Bench } from '../bench.ts';
import { Load } from '../load/load.ts';
import { type Work, work } from '../load/work.ts';
import { Etcd } from '../systems/etcd.ts';
import { KvCluster } from '../systems/kvcluster.ts';
import { diskBytes } from '../systems/scratch.ts';
import { anonymousBytes } from '../systems/server-process.ts';
import { type Contender, measure, median, type Summary } from './measure.ts';

/** Loading is bulk work: the more at once, the sooner both sides are done. */
const FILL_IN_FLIGHT = 4000;
const STARTS = 3;
const SMALL = 10_000;
const LARGE = 1_000_000;

/** A system of one node with so many keys. */
interface Grown {
  readonly system: 'KVCluster' | 'etcd';
  readonly keys: number;
  readonly fillSeconds: number;
  readonly contender: Contender;
  readonly dataDir: string;
  readonly pid: () => number;
  /** Ends it and starts it anew; gives the seconds from there until it is ready. */
  readonly restart: ((end: 'SIGTERM' | 'SIGKILL') => Promise<number>) | undefined;
}

/** What more keys do to one node: all sizes are up at the same time and measured in turn. */
export async function growth(bench: Bench): Promise<void> {
  await using systems = new AsyncDisposableStack();
  const grown: Grown[] = [];
  for (const keys of bench.full ? [SMALL, 100_000, LARGE] : [SMALL, LARGE]) {
    bench.log(`loading ${keys} keys into one node`);
    grown.push(await grownKvCluster(systems, bench, keys));
    if (bench.full && bench.hasEtcd) grown.push(await grownEtcd(systems, bench, keys));
  }
  const contenders = grown.map(({ contender }) => contender);
  const cell = (readShare: number) => ({
    id: readShare === 1 ? 'growth-get' : 'growth-put',
    title: `${readShare === 1 ? 'get at ONE' : 'durable put'} by number of keys, 1 node, 100 in flight`,
    work: work({ readShare }),
    contenders,
  });
  const puts = await measure(cell(0), bench.pace);
  const gets = await measure(cell(1), bench.pace);
  for (const result of [puts, gets]) bench.results.addCell(result);
  for (const one of grown) await addPoint(bench, one, summaryOf(puts, one), summaryOf(gets, one));
  compareSizes(bench, 'put', (point) => point.putP99Ms);
  compareSizes(bench, 'get', (point) => point.getP99Ms);
}

const nameOf = (system: string, keys: number): string => `${system}, ${keys} keys`;

async function grownKvCluster(systems: AsyncDisposableStack, bench: Bench, keys: number): Promise<Grown> {
  const directory = join(bench.scratch, `kv-${keys}`);
  const kv = systems.use(await KvCluster.start({ code: bench.code, directory, nodes: 1 }));
  const [node] = kv.nodes;
  if (node === undefined) throw new Error('the cluster has no node');
  const load = systems.use(new Load({ kind: 'kvcluster', endpoints: kv.endpoints }));
  const fillSeconds = await load.fill({ prefix: 'k', keys, valueBytes: 256, inFlight: FILL_IN_FLIGHT });
  return {
    system: 'KVCluster',
    keys,
    fillSeconds,
    contender: contenderOf(nameOf('KVCluster', keys), keys, load, () => kv.pids),
    dataDir: node.dataDir,
    pid: () => node.pid ?? -1,
    restart: async (signal) => {
      await node.end(signal);
      const startMs = performance.now();
      node.start();
      await node.ready();
      return (performance.now() - startMs) / 1000;
    },
  };
}

async function grownEtcd(systems: AsyncDisposableStack, bench: Bench, keys: number): Promise<Grown> {
  const etcd = systems.use(await Etcd.start(join(bench.scratch, `etcd-${keys}`), 1));
  const load = systems.use(new Load({ kind: 'etcd', endpoints: etcd.endpoints }));
  const fillSeconds = await load.fill({ prefix: 'k', keys, valueBytes: 256, inFlight: FILL_IN_FLIGHT });
  return {
    system: 'etcd',
    keys,
    fillSeconds,
    contender: contenderOf(nameOf('etcd', keys), keys, load, () => etcd.pids),
    dataDir: etcd.dataDirs[0] ?? '',
    pid: () => etcd.pids[0] ?? -1,
    restart: undefined,
  };
}

/** The cell's work, on as many keys as this one has. */
function contenderOf(name: string, keys: number, load: Load, servers: () => readonly number[]): Contender {
  return { name, servers, run: (given: Work) => load.run({ ...given, keys }) };
}

function summaryOf({ summaries }: { summaries: readonly Summary[] }, { contender }: Grown): Summary {
  const found = summaries.find((summary) => summary.contender === contender.name);
  if (found === undefined) throw new Error(`${contender.name} was not measured`);
  return found;
}

async function addPoint(bench: Bench, one: Grown, put: Summary, get: Summary): Promise<void> {
  const memoryBytes = anonymousBytes(one.pid());
  const bytes = diskBytes(one.dataDir);
  const starts: number[] = [];
  if (one.restart !== undefined) {
    for (let index = 0; index < STARTS; index += 1) starts.push(await one.restart('SIGTERM'));
  }
  const startSeconds = starts.length === 0 ? undefined : median(starts);
  const { system, keys, fillSeconds } = one;
  const times = { putP99Ms: put.p99Ms, getP99Ms: get.p99Ms, startSeconds };
  bench.results.growth.push({ system, keys, fillSeconds, ...times, diskBytes: bytes, memoryBytes });
  if (system === 'KVCluster' && keys === LARGE && startSeconds !== undefined) {
    bench.results.addFigure({
      id: 'start-large',
      title: `start of a node with ${keys} keys until ready, stopped in order before (median of ${STARTS})`,
      value: startSeconds,
      unit: 's',
    });
    bench.results.addFigure({
      id: 'start-large-killed',
      title: `the same after kill -9 (once)`,
      value: (await one.restart?.('SIGKILL')) ?? NaN,
      unit: 's',
    });
  }
}

function compareSizes(
  { results }: Bench,
  operation: 'put' | 'get',
  of: (point: { putP99Ms: number; getP99Ms: number }) => number,
): void {
  const at = (keys: number) =>
    results.growth.find((point) => point.system === 'KVCluster' && point.keys === keys);
  const [small, large] = [at(SMALL), at(LARGE)];
  if (small === undefined || large === undefined) return;
  results.addFigure({
    id: `growth-${operation}`,
    title: `${operation} p99 with ${LARGE} keys against ${SMALL}`,
    value: of(large) / of(small),
    unit: 'times',
  });
}
