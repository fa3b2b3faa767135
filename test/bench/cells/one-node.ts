import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Bench, CONTENDERS, IN_FLIGHT_OF_GOALS } from '../bench.ts';
import { Load } from '../load/load.ts';
import { type Work, work } from '../load/work.ts';
import { Echo } from '../systems/echo.ts';
import { Etcd } from '../systems/etcd.ts';
import { KvCluster } from '../systems/kvcluster.ts';
import { Redis, redisInstalled } from '../systems/redis.ts';
import { EtcdBenchmark } from '../tools/etcd-benchmark.ts';
import { Ghz } from '../tools/ghz.ts';
import { RedisBenchmark } from '../tools/redis-benchmark.ts';
import { type Cell, type Contender, runCells } from './measure.ts';
import { ghzTargets } from './targets.ts';

const FILL_IN_FLIGHT = 256;
const SEED_IN_FLIGHT = 50;

/** Everybody with one node: the goal cells, and in a full run what a put and a get cost elsewhere. */
export async function oneNode(bench: Bench): Promise<void> {
  bench.log('starting systems of one node');
  await using systems = new AsyncDisposableStack();
  const directory = (name: string): string => join(bench.scratch, name);
  const kv = systems.use(await KvCluster.start({ code: bench.code, directory: directory('kv-1'), nodes: 1 }));
  const contenders = [await loaded(systems, bench, { kind: 'kvcluster', name: CONTENDERS.kv1 }, kv)];
  if (bench.hasEtcd) {
    const etcd = systems.use(await Etcd.start(directory('etcd-1'), 1));
    contenders.push(await loaded(systems, bench, { kind: 'etcd', name: CONTENDERS.etcd1Node }, etcd));
    if (bench.etcdTool !== undefined) {
      const tool = new EtcdBenchmark(bench.etcdTool, etcd.endpoints[0] ?? '');
      const run: Contender['run'] = (given) => tool.run(given);
      contenders.push({ name: CONTENDERS.etcd1Tool, servers: () => etcd.pids, run });
    }
  }
  if (!bench.full) await runCells(bench, cellsOf(bench, contenders, ['put'], [100, 1000]));
  const echo = systems.use(await Echo.start());
  await runCells(bench, unaryCells(bench, kv, echo));
  if (!bench.full) return;
  const others = await otherSystems(systems, bench, echo);
  await runCells(bench, cellsOf(bench, [...contenders, ...others], ['put', 'get'], [1, 16, 100, 1000]));
}

/** A contender driven from Node, with the keys loaded and the code warm. */
async function loaded(
  systems: AsyncDisposableStack,
  bench: Bench,
  { kind, name }: { kind: 'kvcluster' | 'etcd' | 'lmdb'; name: string },
  system: { readonly endpoints: readonly string[]; readonly pids: readonly number[] },
): Promise<Contender> {
  const load = systems.use(new Load({ kind, endpoints: system.endpoints }));
  await load.fill({ prefix: 'k', keys: bench.keys, valueBytes: 256, inFlight: FILL_IN_FLIGHT });
  for (const readShare of [0, 1]) await load.run(work({ keys: bench.keys, readShare, durationMs: 500 }));
  return { name, servers: () => system.pids, run: (given: Work) => load.run(given) };
}

async function otherSystems(
  systems: AsyncDisposableStack,
  bench: Bench,
  echo: Echo,
): Promise<readonly Contender[]> {
  const contenders: Contender[] = [];
  const echoLoad = systems.use(new Load({ kind: 'echo', endpoints: [echo.endpoint] }));
  await echoLoad.run(work({ durationMs: 500 }));
  contenders.push({
    name: CONTENDERS.echoNode,
    servers: () => echo.pids,
    run: (given) => echoLoad.run(given),
  });
  const lmdb = join(bench.scratch, 'lmdb');
  mkdirSync(lmdb);
  contenders.push(
    await loaded(systems, bench, { kind: 'lmdb', name: CONTENDERS.lmdb }, { endpoints: [lmdb], pids: [] }),
  );
  if (!redisInstalled()) {
    bench.results.skip('Redis', 'apt-get install redis-server');
    return contenders;
  }
  const redis = systems.use(await Redis.start(join(bench.scratch, 'redis')));
  await redis.fill(bench.keys, 256);
  const single = new RedisBenchmark(redis.port);
  const pipelined = new RedisBenchmark(redis.port, 16);
  const servers = (): readonly number[] => redis.pids;
  contenders.push(
    { name: CONTENDERS.redis, servers, run: (given) => single.run(given) },
    { name: CONTENDERS.redisPipelined, servers, run: (given) => pipelined.run(given) },
  );
  return contenders;
}

function cellsOf(
  bench: Bench,
  contenders: readonly Contender[],
  operations: readonly ('put' | 'get')[],
  inFlights: readonly number[],
): readonly Cell[] {
  return operations.flatMap((operation) =>
    inFlights.map((inFlight) => ({
      id: `${operation}-1-${inFlight}`,
      title: `${operation === 'put' ? 'durable put' : 'get'}, 1 node, ${inFlight} in flight`,
      work: work({ keys: bench.keys, inFlight, readShare: operation === 'get' ? 1 : 0 }),
      // Fewer operations in flight than one pipeline holds are none.
      contenders: contenders.filter(({ name }) => name !== CONTENDERS.redisPipelined || inFlight >= 16),
    })),
  );
}

/** Unary calls by the generic client, beside what gRPC in Node can do at all, and at the concurrency of the seed's figures. */
function unaryCells(bench: Bench, kv: KvCluster, echo: Echo): readonly Cell[] {
  if (bench.ghz === undefined) return [];
  const ghz = new Ghz(bench.ghz, bench.scratch);
  const [endpoint = ''] = kv.endpoints;
  const { keys } = bench;
  const by = (name: string, target: ReturnType<typeof ghzTargets.kvPut>, pids: () => readonly number[]) => ({
    name,
    servers: pids,
    run: (given: Work) => ghz.run(target, given),
  });
  const put = by(CONTENDERS.kv1Put, ghzTargets.kvPut(endpoint), () => kv.pids);
  const get = by(CONTENDERS.kv1Get, ghzTargets.kvGet(endpoint), () => kv.pids);
  const echoed = by(CONTENDERS.echoGhz, ghzTargets.echo(echo.endpoint), () => echo.pids);
  return [
    ...IN_FLIGHT_OF_GOALS.map((inFlight) => ({
      id: `unary-1-${inFlight}`,
      title: `unary calls by ghz, 1 node, ${inFlight} in flight`,
      work: work({ keys, inFlight }),
      contenders: [put, get, echoed],
    })),
    {
      id: `unary-1-${SEED_IN_FLIGHT}`,
      title: `unary calls by ghz, 1 node, ${SEED_IN_FLIGHT} in flight`,
      work: work({ keys, inFlight: SEED_IN_FLIGHT }),
      contenders: [put, get],
    },
  ];
}
