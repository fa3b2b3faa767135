import { work } from '../load/work.ts';
import type { Cell } from './measure.ts';
import type { ThreeNodes } from './three-nodes.ts';

const IN_FLIGHT = 16;
const CONNECTIONS = 128;
/** Data sets of other value sizes, by the letter of their keys; fewer keys where values are large. */
const VALUE_SIZES = [
  { prefix: 'a', valueBytes: 16, keys: 10_000 },
  { prefix: 'b', valueBytes: 4096, keys: 10_000 },
  { prefix: 'c', valueBytes: 65_536, keys: 1000 },
];

const LARGE_BYTES = 65_536;

/** One factor at a time changed, from 100 in flight, 256 bytes, uniform keys. */
export async function factorCells({ bench, contenders, fill }: ThreeNodes): Promise<readonly Cell[]> {
  for (const { prefix, keys, valueBytes } of VALUE_SIZES) await fill(prefix, keys, valueBytes);
  const { keys } = bench;
  // The tools do one thing only: mixes and lists come from the clients in Node.
  const fromNode = contenders.filter(({ name }) => !name.includes('own tool'));
  const mixes = [
    { id: 'ycsb-a', title: 'YCSB A: 50 % reads, 50 % updates, zipfian', readShare: 0.5, choice: 'zipfian' },
    { id: 'ycsb-b', title: 'YCSB B: 95 % reads, 5 % updates, zipfian', readShare: 0.95, choice: 'zipfian' },
    { id: 'ycsb-c', title: 'YCSB C: reads only, zipfian', readShare: 1, choice: 'zipfian' },
    {
      id: 'hot-cold',
      title: '70 % reads, 90 % of all on 10 % of the keys',
      readShare: 0.7,
      choice: 'hot-cold',
    },
    { id: 'mixed-70-30', title: '70 % reads, 30 % updates, uniform', readShare: 0.7, choice: 'uniform' },
  ] as const;
  return [
    ...[0, 1].map((readShare) => ({
      id: `${readShare === 1 ? 'get-one' : 'put'}-3-${IN_FLIGHT}`,
      title: `${readShare === 1 ? 'get at ONE / serializable range' : 'durable put'}, 3 nodes, ${IN_FLIGHT} in flight`,
      work: work({ keys, readShare, inFlight: IN_FLIGHT }),
      contenders,
    })),
    ...VALUE_SIZES.flatMap(({ prefix, keys: loaded, valueBytes }) =>
      [0, 1].map((readShare) => ({
        id: `${readShare === 1 ? 'get' : 'put'}-${valueBytes}`,
        title: `${readShare === 1 ? 'get at ONE' : 'durable put'}, values of ${valueBytes} bytes, 100 in flight`,
        work: work({ prefix, keys: loaded, valueBytes, readShare }),
        // Everybody keeps what was overwritten for a while: at full length this would fill the disk.
        ...(valueBytes >= LARGE_BYTES ? { pace: { rounds: 3, durationMs: 1000 } } : {}),
        contenders,
      })),
    ),
    ...mixes.map(({ id, title, readShare, choice }) => ({
      id,
      title: `${title}, 100 in flight`,
      work: work({ keys, readShare, choice }),
      contenders: fromNode,
    })),
    {
      id: 'ycsb-d',
      title: 'YCSB D: 95 % reads of the latest, 5 % inserts, 100 in flight',
      work: work({ keys, readShare: 0.95, insertShare: 0.05, choice: 'latest' }),
      contenders: fromNode,
    },
    {
      id: 'list-100',
      title: 'list the 100 keys under a prefix, 16 in flight',
      work: work({ keys, list: true, readShare: 1, inFlight: 16 }),
      contenders: fromNode,
    },
    ...[0, 1].map((readShare) => ({
      id: `${readShare === 1 ? 'get' : 'put'}-connections`,
      title: `${readShare === 1 ? 'get at ONE' : 'durable put'}, ${CONNECTIONS} clients with 1 in flight each`,
      work: work({ keys, readShare, inFlight: CONNECTIONS, clients: CONNECTIONS }),
      contenders: fromNode,
    })),
  ];
}
