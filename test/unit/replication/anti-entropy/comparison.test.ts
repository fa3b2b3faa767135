import { expect } from 'chai';
import { Comparison, type PartitionOutcome } from '../../../../node/replication/anti-entropy/comparison.ts';
import { partitionOf } from '../../../../model/key-hash.ts';
import { digestKey, leafOf } from '../../../../node/storage/digest.ts';
import {
  ComparedCluster,
  type DirectPeer,
  keysOf,
  mapOf,
  PARTITIONS,
  recordOf,
  SMALL_STEPS,
  type Write,
} from './compared-nodes.ts';

const ALL = Array.from({ length: PARTITIONS }, (_, partition) => partition);

interface Compared {
  readonly outcomes: ReadonlyMap<number, PartitionOutcome>;
  readonly head: number;
}

/** A whole comparison of kv-0 with the peer. */
async function compare(
  cluster: ComparedCluster,
  peer: DirectPeer,
  options: {
    readonly signal?: AbortSignal;
    readonly blank?: Set<number>;
    readonly partitions?: readonly number[];
  } = {},
): Promise<Compared> {
  const comparison = new Comparison(cluster.node(0).surroundings, {
    peer,
    signal: options.signal ?? new AbortController().signal,
    blank: options.blank ?? new Set<number>(),
    spend: () => Promise.resolve(),
  });
  const run = async (): Promise<Compared> => {
    const { outcomes, differing } = await comparison.roots(options.partitions ?? ALL);
    const resolved = await comparison.resolve(differing);
    return { outcomes: new Map([...outcomes, ...resolved]), head: comparison.head };
  };
  return cluster.time.run(run());
}

const kinds = ({ outcomes }: Compared): string[] => [
  ...new Set([...outcomes.values()].map(({ kind }) => kind)),
];

async function bothEqual(cluster: ComparedCluster): Promise<readonly string[]> {
  const contents = await cluster.node(0).contents();
  expect(await cluster.node(1).contents()).to.deep.equal(contents);
  for (const partition of ALL) {
    expect(cluster.node(0).store.digest(partition)).to.deep.equal(cluster.node(1).store.digest(partition));
  }
  return contents;
}

const some = (prefix: string, count: number, wallMs: number, value = 'v'): Write[] =>
  Array.from({ length: count }, (_, number) => ({
    key: `${prefix}-${number}`,
    wallMs: wallMs + number,
    value,
  }));

describe('a comparison', () => {
  let cluster: ComparedCluster;
  let peer: DirectPeer;

  beforeEach(async () => {
    cluster = await ComparedCluster.open(2, SMALL_STEPS);
    peer = cluster.peer(0, 1);
  });

  afterEach(() => cluster.close());

  it('of equal replicas asks for roots once and reads nothing', async () => {
    for (const node of cluster.nodes) await node.write(...some('a', 30, 100));
    // Shadows the method of the class.
    for (const { store } of cluster.nodes) store.scan = () => Promise.reject(new Error('the disk was read'));
    const compared = await compare(cluster, peer);
    expect(kinds(compared)).to.deep.equal(['complete']);
    expect(compared.head).to.equal(7);
    expect(peer.asked).to.deep.equal(['digests']);
    for (const { store } of cluster.nodes) Reflect.deleteProperty(store, 'scan');
  });

  const CASES: Record<
    string,
    { readonly mine: readonly Write[]; readonly theirs: readonly Write[]; readonly both: readonly string[] }
  > = {
    'takes what only the peer has': {
      mine: [{ key: 'a', wallMs: 1, value: '1' }],
      theirs: [
        { key: 'a', wallMs: 1, value: '1' },
        { key: 'b', wallMs: 2, value: '2' },
      ],
      both: ['a@1=1', 'b@2=2'],
    },
    'brings what only this node has': {
      mine: [
        { key: 'a', wallMs: 1, value: '1' },
        { key: 'b', wallMs: 2, value: '2' },
      ],
      theirs: [{ key: 'a', wallMs: 1, value: '1' }],
      both: ['a@1=1', 'b@2=2'],
    },
    'leaves the newer version on both sides, whoever has it': {
      mine: [
        { key: 'a', wallMs: 5, value: 'new' },
        { key: 'b', wallMs: 2, value: 'old' },
      ],
      theirs: [
        { key: 'a', wallMs: 4, value: 'old' },
        { key: 'b', wallMs: 3, value: 'new' },
      ],
      both: ['a@5=new', 'b@3=new'],
    },
    'takes tombstones like values': {
      mine: [
        { key: 'a', wallMs: 5, value: 'x' },
        { key: 'b', wallMs: 6 },
      ],
      theirs: [
        { key: 'a', wallMs: 7 },
        { key: 'b', wallMs: 5, value: 'x' },
        { key: 'c', wallMs: 8 },
      ],
      both: ['a@7', 'b@6', 'c@8'],
    },
  };

  for (const [name, { mine, theirs, both }] of Object.entries(CASES)) {
    it(name, async () => {
      await cluster.node(0).write(...mine);
      await cluster.node(1).write(...theirs);
      expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
      expect(await bothEqual(cluster)).to.deep.equal(both);
    });
  }

  it('settles one version with two contents the same way on both sides', async () => {
    await cluster.node(0).write({ key: 'a', wallMs: 1, value: 'x' });
    await cluster.node(1).write({ key: 'a', wallMs: 1, value: 'y' });
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
    await bothEqual(cluster);
  });

  it('pages through partitions of many keys, and through keys of a few leaves among many', async () => {
    const shared = some('shared', 300, 1000);
    for (const node of cluster.nodes) await node.write(...shared);
    await cluster.node(0).write(...some('mine', 40, 5000), { key: 'shared-7', wallMs: 9000, value: 'newer' });
    await cluster
      .node(1)
      .write(...some('theirs', 40, 6000), { key: 'shared-8', wallMs: 9001, value: 'newer' });
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
    expect(await bothEqual(cluster)).to.have.length(380);
    expect(cluster.node(0).counters.get('pulled_records')).to.equal(41);
    expect(cluster.node(0).counters.get('pushed_records')).to.equal(41);
  });

  it('takes the record stream when next to nothing is here, and then compares what is left', async () => {
    await cluster.node(1).write(...some('a', 200, 1000));
    await cluster.node(0).write({ key: 'mine', wallMs: 5000, value: 'x' });
    let streamed = 0;
    peer.before = async (question) => {
      // The record stream has passed this key by now: the leaves tell of it.
      if (question === 'pull' && (streamed += 1) === 20) {
        await cluster
          .node(1)
          .store.apply([{ key: Buffer.from('a-0'), record: recordFrom('a-0', 7000), own: false }]).durable;
      }
    };
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
    expect(streamed).to.be.greaterThan(20);
    expect(await bothEqual(cluster)).to.have.length(201);
  });

  it('takes nothing past the log into a readable partition: a watch would never hear of it', async () => {
    const names = (partition: number): Write[] =>
      keysOf(partition, 50).map((key, index) => ({ key, wallMs: 1000 + index, value: 'v' }));
    await cluster.node(1).write(...ALL.flatMap(names));
    const { store, readable } = cluster.node(0);
    const load = store.load.bind(store);
    const loaded = new Set<number>();
    // Shadows the method of the class.
    store.load = (records) => {
      for (const { key } of records) loaded.add(partitionOf(key, PARTITIONS));
      return load(records);
    };
    readable.delete(2);
    expect(kinds(await compare(cluster, peer, { blank: new Set(ALL) }))).to.deep.equal(['complete']);
    expect(await bothEqual(cluster)).to.have.length(50 * PARTITIONS);
    expect([...loaded]).to.deep.equal([2]);
  });

  it('resumes a record stream that breaks, where it was, and gives up when it never goes on', async () => {
    await cluster.node(1).write(...some('a', 200, 1000));
    let streamed = 0;
    peer.before = (question) => {
      if (question === 'pull' && (streamed += 1) % 10 === 0) throw new Error('cut');
    };
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
    expect(await bothEqual(cluster)).to.have.length(200);
    expect(streamed).to.be.lessThan(300);

    await cluster.node(1).write(...some('b', 900, 5000));
    cluster.node(0).readable.clear();
    peer.before = (question) => {
      if (question === 'pull') throw new Error('cut');
    };
    const failed: unknown = await compare(cluster, peer, { blank: new Set(ALL) }).catch(
      (error: unknown) => error,
    );
    expect(failed)
      .to.be.instanceOf(Error)
      .with.property('message')
      .that.matches(/breaks again and again/);
  });

  it('does not list what differs for a moment only, because it is being written', async () => {
    const [first = '', second = ''] = keysOf(0, 2);
    expect(leafOf(digestKey(Buffer.from(first)))).not.to.equal(leafOf(digestKey(Buffer.from(second))));
    for (const node of cluster.nodes) await node.write(...some('a', 50, 100));
    const write = (node: number, key: string): Promise<void> =>
      cluster.node(node).store.apply([{ key: Buffer.from(key), record: recordFrom(key, 900), own: false }])
        .durable;
    await cluster.node(1).write({ key: first, wallMs: 900, value: 'v' });
    let looks = 0;
    peer.before = async (question) => {
      looks += question === 'digests' ? 1 : 0;
      // On its way at the first look at the leaves, here at the second one, when the next write is on its way.
      if (looks === 3) await Promise.all([write(0, first), write(1, second)]);
    };
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
    expect(peer.asked).to.deep.equal(['digests', 'digests', 'digests']);
  });

  it('is complete for what the peer held when it began, while writes go on at both', async () => {
    await cluster.node(0).write(...some('a', 40, 1000));
    await cluster.node(1).write(...some('a', 40, 1020), ...some('b', 40, 1000));
    const before = await cluster.node(1).contents();
    let asked = 0;
    peer.before = async () => {
      asked += 1;
      const key = `a-${asked % 40}`;
      const written = cluster.node(asked % 2);
      await written.store.apply([
        { key: Buffer.from(key), record: recordFrom(key, 5000 + asked), own: false },
      ]).durable;
    };
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
    const held = new Map(
      (await cluster.node(0).contents()).map((line) => [line.split('@')[0], versionOf(line)]),
    );
    for (const line of before) expect(held.get(line.split('@')[0])).to.be.at.least(versionOf(line));
    peer.before = () => undefined;
    await compare(cluster, peer);
    await bothEqual(cluster);
  });

  it('does not call two looks different for what is refused by a peer that left the partition', async () => {
    cluster.map = mapOf(2, { assignment: [[0, 1], [0], [1], [0, 1]] });
    for (const partition of ALL) {
      const [key = ''] = keysOf(partition, 1, 'only');
      await cluster.node(1).write({ key, wallMs: 1, value: 'x' });
    }
    const { outcomes } = await compare(cluster, peer);
    expect(ALL.map((partition) => outcomes.get(partition)?.kind)).to.deep.equal([
      'complete',
      'refused',
      'refused',
      'complete',
    ]);
    expect(await cluster.node(0).contents()).to.have.length(2);
  });

  it('concludes nothing from a partition that moves away while it is listed', async () => {
    await cluster.node(0).write(...some('a', 40, 1000));
    cluster.node(0).readable.clear();
    for (const partition of ALL) cluster.node(1).horizonsMs.set(partition, 5000);
    await cluster.node(1).write({ key: 'a-0', wallMs: 2000, value: 'x' });
    peer.before = (question) => {
      if (question === 'leaves') cluster.map = mapOf(2, { epoch: 2, assignment: ALL.map(() => [0]) });
    };
    const { outcomes } = await compare(cluster, peer);
    expect(kinds({ outcomes, head: 0 })).to.deep.equal(['refused']);
    expect(await cluster.node(0).contents()).to.have.length(40);
    expect(cluster.node(0).counters.get('pushed_records')).to.equal(undefined);
  });

  it('is not begun with a peer that has yet to fill the partition', async () => {
    await cluster.node(1).write(...some('a', 20, 1000));
    cluster.node(1).readable.clear();
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['unready']);
    cluster.node(0).readable.clear();
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['unready']);
    expect(await cluster.node(0).contents()).to.deep.equal([]);
  });

  for (const step of Array.from({ length: 24 }, (_, index) => index)) {
    it(`cut off at question ${step + 1} leaves nothing wrong, and the next one finishes`, async () => {
      await cluster.node(0).write(...some('a', 25, 1000), ...some('c', 20, 1000));
      await cluster.node(1).write(...some('a', 25, 1010), ...some('b', 20, 1000));
      const cutAt = step % 2 === 0 ? 'before' : 'after';
      let asked = 0;
      peer[cutAt] = () => {
        asked += 1;
        if (asked === step + 1) throw new Error('cut');
      };
      const cut: unknown = await compare(cluster, peer).catch((error: unknown) => error);
      expect(cut).to.be.instanceOf(Error).with.property('message', 'cut');
      for (const node of cluster.nodes) {
        const lines = await node.contents();
        // Nothing is older than it was on either side, nothing is invented.
        for (const line of lines) expect(line).to.match(/^[abc]-\d+@10[0-9]{2}=v$/);
      }
      peer[cutAt] = () => undefined;
      expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
      expect(await bothEqual(cluster)).to.have.length(65);
    });
  }

  it('ends when the peer turns out to be another incarnation, or when it is aborted', async () => {
    await cluster.node(1).write(...some('a', 40, 1000));
    await cluster.node(0).write(...some('a', 40, 900));
    peer.before = (question) => {
      if (question === 'leaves') cluster.node(1).incarnation = 2;
    };
    const other: unknown = await compare(cluster, peer).catch((error: unknown) => error);
    expect(other)
      .to.be.instanceOf(Error)
      .with.property('message')
      .that.matches(/another incarnation/);
    expect(cluster.node(0).counters.get('pulled_records')).to.equal(undefined);

    const controller = new AbortController();
    peer.before = (question) => {
      if (question === 'fetch') controller.abort(new Error('enough'));
    };
    const aborted: unknown = await compare(cluster, peer, { signal: controller.signal }).catch(
      (error: unknown) => error,
    );
    expect(aborted).to.be.instanceOf(Error).with.property('message', 'enough');
    expect(cluster.node(0).counters.get('pulled_records')).to.equal(undefined);
  });

  it('takes no record stream of another incarnation', async () => {
    await cluster.node(1).write(...some('a', 100, 1000));
    let chunks = 0;
    const pull = peer.pull.bind(peer);
    peer.pull = async function* (...asked) {
      for await (const chunk of pull(...asked)) yield { ...chunk, incarnation: (chunks += 1) > 5 ? 2 : 1 };
    };
    const failed: unknown = await compare(cluster, peer).catch((error: unknown) => error);
    expect(failed)
      .to.be.instanceOf(Error)
      .with.property('message')
      .that.matches(/another incarnation/);
    expect((await cluster.node(0).contents()).length).to.be.lessThan(100);
  });

  it('refuses pages of keys out of order, which would make records look missing', async () => {
    await cluster.node(0).write(...some('a', 20, 1000));
    await cluster.node(1).write(...some('a', 20, 2000));
    const leaves = peer.leaves.bind(peer);
    peer.leaves = async (request) => {
      const page = await leaves(request);
      return { ...page, items: page.items.toReversed() };
    };
    const failed: unknown = await compare(cluster, peer).catch((error: unknown) => error);
    expect(failed)
      .to.be.instanceOf(Error)
      .with.property('message')
      .that.matches(/out of order/);
    expect(cluster.node(0).counters.get('pushed_records')).to.equal(undefined);
  });
});

describe('a comparison and horizons', () => {
  let cluster: ComparedCluster;
  let peer: DirectPeer;
  const [K = '', L = '', M = ''] = keysOf(0, 3);

  beforeEach(async () => {
    cluster = await ComparedCluster.open(2, SMALL_STEPS);
    peer = cluster.peer(0, 1);
  });

  afterEach(() => cluster.close());

  it('raises the lower one before leaves are compared, on either side', async () => {
    for (const node of cluster.nodes)
      await node.write({ key: K, wallMs: 10 }, { key: L, wallMs: 20, value: 'x' });
    for (const ahead of [1, 0]) {
      await cluster.time.run(cluster.node(ahead).purge(0, ahead === 1 ? 15 : 25));
      await cluster.node(0).write({ key: M, wallMs: 200 - ahead, value: 'y' });
      expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
      expect(await bothEqual(cluster)).to.have.length(2);
      expect(cluster.node(1 - ahead).horizonsMs.get(0)).to.equal(ahead === 1 ? 15 : 25);
    }
  });

  it('believes no horizon in the future', async () => {
    await cluster.node(0).write({ key: K, wallMs: 10 });
    cluster.node(1).horizonsMs.set(0, 2 ** 47);
    await compare(cluster, peer);
    expect(cluster.node(0).horizonsMs.get(0)).to.equal(undefined);
    expect(await cluster.node(0).contents()).to.deep.equal([`${K}@10`]);
  });

  it('does not take back from a peer with a lower horizon what is purged here', async () => {
    await cluster.node(1).write({ key: K, wallMs: 10, value: 'ghost' }, { key: L, wallMs: 90, value: 'new' });
    cluster.node(0).horizonsMs.set(0, 50);
    // A peer that does not follow, as one that cannot vouch for what it held.
    peer.digests = (
      (digests) => (request) =>
        digests({ ...request, horizonsMs: [] })
    )(peer.digests.bind(peer));
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
    expect(await cluster.node(0).contents()).to.deep.equal([`${L}@90=new`]);
    expect(cluster.node(0).counters.get('refused_records')).to.be.at.least(1);
  });

  it('takes it where the rule is switched off', async () => {
    await cluster.node(1).write({ key: K, wallMs: 10, value: 'ghost' }, { key: L, wallMs: 90, value: 'new' });
    cluster.node(0).horizonsMs.set(0, 50);
    cluster.node(0).rules = { ...cluster.node(0).rules, judgeByHorizon: false };
    peer.digests = (
      (digests) => (request) =>
        digests({ ...request, horizonsMs: [] })
    )(peer.digests.bind(peer));
    await compare(cluster, peer);
    expect(await cluster.node(0).contents()).to.have.length(2);
  });

  it('sends a record with the horizon from before it was read', async () => {
    // Purged at the peer, and about to be purged here: what is read here just before must not bring it back there.
    await cluster.node(0).write({ key: K, wallMs: 10, value: 'ghost' }, { key: L, wallMs: 60, value: 'x' });
    await cluster.node(1).write({ key: M, wallMs: 70, value: 'y' });
    cluster.node(1).horizonsMs.set(0, 50);
    cluster.node(0).surroundings.horizons.follow = () => Promise.resolve();
    const { store } = cluster.node(0);
    const scan = store.scan.bind(store);
    store.scan = async (partition, range) => {
      const records = await scan(partition, range);
      cluster.node(0).horizonsMs.set(partition, 50);
      return records;
    };
    await compare(cluster, peer);
    Reflect.deleteProperty(store, 'scan');
    expect(await cluster.node(1).contents()).to.deep.equal([`${L}@60=x`, `${M}@70=y`].sort());
  });

  it('of a filling replica removes what its source has purged, and brings what is newer', async () => {
    const filling = cluster.node(0);
    filling.readable.clear();
    await filling.write(
      { key: K, wallMs: 10, value: 'ghost' },
      { key: L, wallMs: 60, value: 'acknowledged here' },
      { key: M, wallMs: 20, value: 'old' },
    );
    await cluster.node(1).write({ key: M, wallMs: 30, value: 'new' });
    cluster.node(1).horizonsMs.set(0, 50);
    const { outcomes } = await compare(cluster, peer);
    expect(outcomes.get(0)).to.deep.equal({ kind: 'complete', equal: true, horizonMs: 50 });
    expect(await bothEqual(cluster)).to.deep.equal([`${L}@60=acknowledged here`, `${M}@30=new`].sort());
    expect(filling.counters.get('removed_ghosts')).to.equal(1);
  });

  it('of a filling replica judges each page by the horizon from before that page was read', async () => {
    const filling = cluster.node(0);
    filling.readable.clear();
    const keys = keysOf(0, 6).toSorted();
    const [one = '', two = '', three = '', four = ''] = keys;
    await filling.write({ key: two, wallMs: 50, value: 'not known to be purged' });
    await filling.write({ key: one, wallMs: 10, value: 'x' }, { key: four, wallMs: 10, value: 'x' });
    await cluster.node(1).write({ key: one, wallMs: 10, value: 'x' }, { key: four, wallMs: 20, value: 'y' });
    const leaves = peer.leaves.bind(peer);
    peer.leaves = async (request) => {
      const { items } = await leaves({ ...request, startAfter: Buffer.alloc(0), limit: 3 });
      const before = (key: Buffer): boolean => key.toString() <= three;
      return request.startAfter.length === 0
        ? { items: items.filter(({ key }) => before(key)), through: Buffer.from(three), horizonMs: 40 }
        : { items: items.filter(({ key }) => !before(key)), through: undefined, horizonMs: 60 };
    };
    await compare(cluster, peer);
    expect(await bothEqual(cluster)).to.deep.equal(
      [`${one}@10=x`, `${two}@50=not known to be purged`, `${four}@20=y`].sort(),
    );
  });

  it('of a readable replica removes nothing that the peer lacks', async () => {
    await cluster.node(0).write({ key: K, wallMs: 10, value: 'x' }, { key: L, wallMs: 11, value: 'y' });
    await cluster.node(1).write({ key: M, wallMs: 60, value: 'z' });
    cluster.node(1).horizonsMs.set(0, 50);
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
    expect(await bothEqual(cluster)).to.have.length(3);
  });
});

describe('a comparison and damaged records', () => {
  let cluster: ComparedCluster;
  let peer: DirectPeer;
  const [K = '', L = ''] = keysOf(0, 2);

  beforeEach(async () => {
    cluster = await ComparedCluster.open(2, SMALL_STEPS);
    peer = cluster.peer(0, 1);
  });

  afterEach(() => cluster.close());

  it('of the peer brings it what is here, and never counts it as purged there', async () => {
    const filling = cluster.node(0);
    filling.readable.clear();
    cluster.node(1).horizonsMs.set(0, 50);
    for (const node of cluster.nodes) await node.write({ key: K, wallMs: 10, value: 'good' });
    // Equal digests are believed: only what is listed is found damaged, the rest is for the scrub.
    const leaf = leafOf(digestKey(Buffer.from(K)));
    const beside =
      keysOf(0, 2000, 'beside').find((key) => leafOf(digestKey(Buffer.from(key))) === leaf) ?? '';
    await cluster.node(1).write({ key: beside, wallMs: 60, value: 'other' });
    await cluster.damage(1, K);
    expect(kinds(await compare(cluster, peer))).to.deep.equal(['complete']);
    expect(await filling.contents()).to.deep.equal([`${K}@10=good`, `${beside}@60=other`].sort());
    expect(await cluster.node(1).contents()).to.deep.equal(await filling.contents());
    expect(cluster.node(1).damaged).to.include(K);
  });

  it('of the peer that are not here leave a difference', async () => {
    await cluster.node(1).write({ key: K, wallMs: 10, value: 'x' }, { key: L, wallMs: 60, value: 'y' });
    await cluster.damage(1, K);
    const { outcomes } = await compare(cluster, peer);
    expect(outcomes.get(0)).to.deep.equal({ kind: 'differs', unresolved: 1 });
    expect(await cluster.node(0).contents()).to.deep.equal([`${L}@60=y`]);
  });

  it('of a readable replica are reported and not replaced by what one peer has', async () => {
    await cluster.node(0).write({ key: K, wallMs: 20, value: 'newer' });
    await cluster.node(1).write({ key: K, wallMs: 10, value: 'older' });
    await cluster.damage(0, K);
    const { outcomes } = await compare(cluster, peer);
    expect(outcomes.get(0)).to.deep.equal({ kind: 'differs', unresolved: 1 });
    expect(await cluster.node(0).contents()).to.deep.equal([`${K} damaged`]);
    expect(cluster.node(0).damaged).to.include(K);
  });

  it('of a filling replica are replaced', async () => {
    cluster.node(0).readable.clear();
    await cluster.node(0).write({ key: K, wallMs: 10, value: 'x' });
    for (const node of cluster.nodes) await node.write({ key: L, wallMs: 30, value: 'y' });
    await cluster.node(1).write({ key: K, wallMs: 20, value: 'newer' });
    await cluster.damage(0, K);
    await compare(cluster, peer);
    expect(await cluster.node(0).contents()).to.deep.equal([`${K}@20=newer`, `${L}@30=y`].sort());
  });
});

function recordFrom(key: string, wallMs: number): ReturnType<typeof recordOf> {
  return recordOf({ key, wallMs, value: 'v' });
}

function versionOf(line: string): number {
  return Number(/@(\d+)/.exec(line)?.[1]);
}
