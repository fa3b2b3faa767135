import { join } from 'node:path';
import { type Bench, CONTENDERS, IN_FLIGHT_OF_GOALS } from '../bench.ts';
import { Load } from '../load/load.ts';
import { type Work, work } from '../load/work.ts';
import { Etcd, type EtcdMember } from '../systems/etcd.ts';
import { KvCluster } from '../systems/kvcluster.ts';
import { EtcdBenchmark } from '../tools/etcd-benchmark.ts';
import { Ghz } from '../tools/ghz.ts';
import { clusterFigures, idleMemory } from './cluster-figures.ts';
import { factorCells } from './factors.ts';
import { type Cell, type Contender, runCells } from './measure.ts';
import { nodeKilled } from './node-killed.ts';
import { ghzTargets } from './targets.ts';

const FILL_IN_FLIGHT = 256;

/** Both systems with three nodes, up at the same time and measured in turn. */
export interface ThreeNodes {
  readonly bench: Bench;
  readonly kv: KvCluster;
  readonly kvLoad: Load;
  /** KVCluster by its own client, etcd from Node and by its own tool. */
  readonly contenders: readonly Contender[];
  /** Puts a data set into all of them. */
  readonly fill: (prefix: string, keys: number, valueBytes: number) => Promise<void>;
}

export async function threeNodes(bench: Bench): Promise<void> {
  bench.log('starting KVCluster and etcd with three nodes each');
  await using kv = await KvCluster.start({
    code: bench.code,
    directory: join(bench.scratch, 'kv-3'),
    nodes: 3,
  });
  await idleMemory(bench, kv);
  await using kvLoad = new Load({ kind: 'kvcluster', endpoints: kv.endpoints });
  const etcd = bench.hasEtcd ? await Etcd.start(join(bench.scratch, 'etcd-3'), 3) : undefined;
  // All clients of etcd talk to the leader, which was faster than all members in turn, for reads as well.
  const leader = await etcd?.leader();
  await using etcdLoad =
    leader === undefined ? undefined : new Load({ kind: 'etcd', endpoints: [leader.endpoint] });
  try {
    const contenders = [
      { name: CONTENDERS.kv3, servers: () => kv.pids, run: (given: Work) => kvLoad.run(given) },
      ...(etcd === undefined || leader === undefined || etcdLoad === undefined
        ? []
        : etcdContenders(bench, etcd, leader, etcdLoad)),
    ];
    const fill = async (prefix: string, keys: number, valueBytes: number): Promise<void> => {
      const data = { prefix, keys, valueBytes, inFlight: FILL_IN_FLIGHT };
      await kvLoad.fill(data);
      await etcdLoad?.fill(data);
    };
    const stand: ThreeNodes = { bench, kv, kvLoad, contenders, fill };
    await fill('k', bench.keys, 256);
    await warmUp(stand);
    await runCells(bench, goalCells(stand));
    await runCells(bench, unaryCells(bench, kv, leader?.endpoint));
    if (bench.full) await runCells(bench, await factorCells(stand));
    await nodeKilled(stand);
    await clusterFigures(stand);
  } finally {
    await etcd?.[Symbol.asyncDispose]();
  }
}

function etcdContenders(bench: Bench, etcd: Etcd, leader: EtcdMember, load: Load): readonly Contender[] {
  const servers = (): readonly number[] => etcd.pids;
  const contenders: Contender[] = [{ name: CONTENDERS.etcd3Node, servers, run: (given) => load.run(given) }];
  if (bench.etcdTool !== undefined) {
    const tool = new EtcdBenchmark(bench.etcdTool, leader.endpoint);
    contenders.push({ name: CONTENDERS.etcd3Tool, servers, run: (given) => tool.run(given) });
  }
  return contenders;
}

/** Compiled code and connections are not what is measured. */
async function warmUp({ contenders, bench }: ThreeNodes): Promise<void> {
  const briefly = { keys: bench.keys, durationMs: 500 };
  for (const { run } of contenders) {
    await run(work({ ...briefly, inFlight: 100 }));
    await run(work({ ...briefly, inFlight: 100, readShare: 1 }));
  }
}

function goalCells({ bench, contenders }: ThreeNodes): readonly Cell[] {
  const { keys } = bench;
  return [
    ...IN_FLIGHT_OF_GOALS.map((inFlight) => ({
      id: `put-3-${inFlight}`,
      title: `durable put, 3 nodes, ${inFlight} in flight`,
      work: work({ keys, inFlight }),
      contenders,
    })),
    ...IN_FLIGHT_OF_GOALS.map((inFlight) => ({
      id: `get-one-3-${inFlight}`,
      title: `get at ONE / serializable range, 3 nodes, ${inFlight} in flight`,
      work: work({ keys, inFlight, readShare: 1 }),
      contenders,
    })),
    ...[100, 1000].map((inFlight) => ({
      id: `get-quorum-3-${inFlight}`,
      title: `get at QUORUM / linearizable range, 3 nodes, ${inFlight} in flight`,
      work: work({ keys, inFlight, readShare: 1, strongReads: true }),
      contenders,
    })),
  ];
}

function unaryCells(bench: Bench, kv: KvCluster, etcdLeader: string | undefined): readonly Cell[] {
  if (bench.ghz === undefined) return [];
  const ghz = new Ghz(bench.ghz, bench.scratch);
  const [endpoint = ''] = kv.endpoints;
  const contendersFor = (isRead: boolean): Contender[] => {
    const kvTarget = isRead ? ghzTargets.kvGet(endpoint) : ghzTargets.kvPut(endpoint);
    const contenders: Contender[] = [
      { name: CONTENDERS.kv3Ghz, servers: () => kv.pids, run: (given) => ghz.run(kvTarget, given) },
    ];
    if (etcdLeader !== undefined) {
      const target = isRead ? ghzTargets.etcdRange(etcdLeader) : ghzTargets.etcdPut(etcdLeader);
      contenders.push({
        name: CONTENDERS.etcd3Ghz,
        servers: () => [],
        run: (given) => ghz.run(target, given),
      });
    }
    return contenders;
  };
  return (['put', 'get'] as const).flatMap((operation) =>
    IN_FLIGHT_OF_GOALS.map((inFlight) => ({
      id: `unary-${operation}-3-${inFlight}`,
      title: `unary ${operation} by ghz, 3 nodes, ${inFlight} in flight`,
      work: work({ keys: bench.keys, inFlight, readShare: operation === 'get' ? 1 : 0 }),
      contenders: contendersFor(operation === 'get'),
    })),
  );
}
