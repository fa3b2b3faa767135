import { expect } from 'chai';
import fc from 'fast-check';
import { partitionOf } from '../../../../model/key-hash.ts';
import { Comparison } from '../../../../node/replication/anti-entropy/comparison.ts';
import {
  ComparedCluster,
  type ComparedNode,
  type DirectPeer,
  PARTITIONS,
  recordOf,
  SMALL_STEPS,
} from './compared-nodes.ts';

/** Everything that was ever written to one key, oldest first. */
interface KeyHistory {
  readonly versions: readonly { readonly wallMs: number; readonly value: string | undefined }[];
  /** How far each node has followed: index into `versions`, -1: not at all. */
  readonly at: readonly number[];
}

interface Scenario {
  readonly keys: readonly KeyHistory[];
  /** Horizon of each node; the last node fills, and its own counts for nothing. */
  readonly horizonsMs: readonly number[];
  /** Questions that fail, counted over all comparisons. */
  readonly cuts: readonly number[];
  /** Questions during which something is written. */
  readonly writes: readonly {
    readonly at: number;
    readonly node: number;
    readonly key: number;
    readonly live: boolean;
  }[];
  /** The order in which nodes compare, as pairs. */
  readonly order: readonly (readonly [number, number])[];
}

const NODES = 3;
const FILLING = NODES - 1;
const KEYS = 10;
const ALL = Array.from({ length: PARTITIONS }, (_, partition) => partition);
const keyName = (key: number): string => `key-${key}`;

const history: fc.Arbitrary<KeyHistory> = fc.record({
  versions: fc.uniqueArray(fc.integer({ min: 1, max: 20 }), { minLength: 0, maxLength: 4 }).chain((walls) =>
    fc.array(fc.boolean(), { minLength: walls.length, maxLength: walls.length }).map((live) =>
      walls
        .toSorted((a, b) => a - b)
        .map((wall, index) => ({
          wallMs: wall * 10,
          value: live[index] === true ? `v${wall}` : undefined,
        })),
    ),
  ),
  at: fc.array(fc.integer({ min: -1, max: 3 }), { minLength: NODES, maxLength: NODES }),
});

const scenario: fc.Arbitrary<Scenario> = fc.record({
  keys: fc.array(history, { minLength: KEYS, maxLength: KEYS }),
  horizonsMs: fc.array(fc.constantFrom(0, 55, 105, 155), { minLength: NODES, maxLength: NODES }),
  cuts: fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 3 }),
  writes: fc.uniqueArray(
    fc.record({
      at: fc.integer({ min: 1, max: 60 }),
      node: fc.integer({ min: 0, max: NODES - 1 }),
      key: fc.integer({ min: 0, max: KEYS - 1 }),
      live: fc.boolean(),
    }),
    { maxLength: 6, selector: ({ at }) => at },
  ),
  order: fc.shuffledSubarray(
    [
      [0, 1],
      [1, 0],
      [0, 2],
      [2, 0],
      [1, 2],
      [2, 1],
    ] as const,
    { minLength: 0, maxLength: 6 },
  ),
});

/** Below a horizon every readable replica knows the newest: nothing else is a history that can come about. */
function indexAt({ versions, at }: KeyHistory, node: number, provenMs: number): number {
  const chosen = Math.min(at[node] ?? -1, versions.length - 1);
  if (node === FILLING) return chosen;
  return Math.max(
    chosen,
    versions.findLastIndex(({ wallMs }) => wallMs < provenMs),
  );
}

describe('comparisons between replicas with any histories', () => {
  it('end with the newest of every key everywhere, and bring back nothing that is purged', async function () {
    this.timeout(60_000);
    await fc.assert(
      fc.asyncProperty(scenario, async (chosen) => {
        const cluster = await ComparedCluster.open(NODES, { ...SMALL_STEPS, looks: 2, lookMs: 10 });
        try {
          await play(cluster, chosen);
        } finally {
          await cluster.close();
        }
      }),
      { numRuns: 120 },
    );
  });
});

async function play(cluster: ComparedCluster, chosen: Scenario): Promise<void> {
  const provenMs = Math.max(...chosen.horizonsMs.slice(0, FILLING));
  await raise(cluster, chosen, provenMs);
  /** The newest of each key that any node has: what must be left. */
  const newest = new Map<string, { readonly wallMs: number; readonly value: string | undefined }>();
  for (const [key, history] of chosen.keys.entries()) {
    const top = Math.max(...[0, 1, 2].map((node) => indexAt(history, node, provenMs)));
    const version = history.versions[top];
    if (version !== undefined) newest.set(keyName(key), version);
  }
  const filling = cluster.node(FILLING);
  let asked = 0;
  const meanwhile = async (): Promise<void> => {
    asked += 1;
    for (const { at, node, key, live } of chosen.writes) {
      if (at !== asked) continue;
      const write = { key: keyName(key), wallMs: 1000 + asked, ...(live ? { value: `w${asked}` } : {}) };
      newest.set(write.key, { wallMs: write.wallMs, value: live ? write.value : undefined });
      const mutation = { key: Buffer.from(write.key), record: recordOf(write), own: false };
      await cluster.node(node).store.apply([mutation]).durable;
    }
    if (chosen.cuts.includes(asked)) throw new Error('cut');
  };
  for (const [from, to] of chosen.order) await attempt(cluster, from, to, meanwhile);
  // The filling replica has now its sources compared completely, one after the other, and is read from then on.
  const sourceHorizonsMs = [];
  for (const source of [0, 1]) sourceHorizonsMs.push(...(await finish(cluster, FILLING, source, meanwhile)));
  for (const [partition, ms] of sourceHorizonsMs) {
    await filling.surroundings.horizons.inherit([[partition, ms]]);
    filling.readable.add(partition);
  }
  for (const [from, to] of [
    [0, 1],
    [1, 2],
    [2, 0],
    [0, 1],
  ] as const) {
    await finish(cluster, from, to, meanwhile);
  }
  // Once faults and writes have stopped, the union travels around.
  for (const [from, to] of [
    [0, 1],
    [1, 2],
    [2, 0],
  ] as const) {
    await finish(cluster, from, to, () => Promise.resolve());
  }
  for (const node of cluster.nodes) {
    for (const partition of ALL) await cluster.time.run(node.purge(partition, provenMs));
  }
  const expected = [...newest]
    .filter(([, { wallMs, value }]) => value !== undefined || wallMs >= provenMs)
    .map(([key, { wallMs, value }]) => `${key}@${wallMs}${value === undefined ? '' : `=${value}`}`)
    .sort();
  for (const node of cluster.nodes) expect(await node.contents()).to.deep.equal(expected);
}

async function raise(cluster: ComparedCluster, chosen: Scenario, provenMs: number): Promise<void> {
  for (const [index, node] of cluster.nodes.entries()) {
    const writes = chosen.keys.flatMap((history, key) => {
      const version = history.versions[indexAt(history, index, provenMs)];
      if (version === undefined) return [];
      const { wallMs, value } = version;
      return { key: keyName(key), wallMs, ...(value === undefined ? {} : { value }) };
    });
    await node.write(...writes);
    if (index === FILLING) node.readable.clear();
    else
      for (const partition of ALL)
        await cluster.time.run(node.purge(partition, chosen.horizonsMs[index] ?? 0));
  }
}

/** One comparison, which may be cut short. */
async function attempt(
  cluster: ComparedCluster,
  from: number,
  to: number,
  meanwhile: () => Promise<void>,
): Promise<ReadonlyMap<number, number> | undefined> {
  const peer: DirectPeer = cluster.peer(from, to);
  peer.before = meanwhile;
  const node: ComparedNode = cluster.node(from);
  const comparison = new Comparison(node.surroundings, {
    peer,
    signal: new AbortController().signal,
    blank: new Set(),
    spend: () => Promise.resolve(),
  });
  const run = async (): Promise<ReadonlyMap<number, number>> => {
    const { outcomes, differing } = await comparison.roots(ALL);
    const all = new Map([...outcomes, ...(await comparison.resolve(differing))]);
    return new Map(
      [...all].flatMap(([partition, outcome]) =>
        outcome.kind === 'complete' ? [[partition, outcome.horizonMs]] : [],
      ),
    );
  };
  return cluster.time.run(
    run().catch((error: unknown) => {
      if (error instanceof Error && error.message === 'cut') return undefined;
      throw error;
    }),
  );
}

/** Compares until one comparison was complete. */
async function finish(
  cluster: ComparedCluster,
  from: number,
  to: number,
  meanwhile: () => Promise<void>,
): Promise<ReadonlyMap<number, number>> {
  for (;;) {
    const complete = await attempt(cluster, from, to, meanwhile);
    if (complete?.size === PARTITIONS) return complete;
  }
}

it('keys of the scenarios are spread over all partitions', () => {
  const partitions = new Set(
    Array.from({ length: KEYS }, (_, key) => partitionOf(Buffer.from(keyName(key)), PARTITIONS)),
  );
  expect(partitions.size).to.equal(PARTITIONS);
});
