import { expect } from 'chai';
import { decodeLeaves, LeafSet } from '../../../../node/replication/anti-entropy/leaf-set.ts';
import { PartitionPages } from '../../../../node/replication/anti-entropy/partition-pages.ts';
import { digestKey, digestOfRecords, leafOf } from '../../../../node/storage/digest.ts';
import type { LeafReply } from '../../../../proto/gen/peer.ts';
import {
  ComparedCluster,
  type ComparedNode,
  keysOf,
  mapOf,
  PARTITIONS,
  recordOf,
  type Write,
} from './compared-nodes.ts';

const every = new LeafSet();
for (let leaf = 0; leaf < 256; leaf += 1) every.add(leaf);
const NOTHING = Buffer.alloc(0);

describe('answers to a comparing peer', () => {
  let cluster: ComparedCluster;
  let node: ComparedNode;

  beforeEach(async () => {
    cluster = await ComparedCluster.open(2, { pageKeys: 5, pageScans: 12, batchBytes: 300 });
    node = cluster.node(0);
  });

  afterEach(() => cluster.close());

  const digests = (
    partitions: number[],
    withLeaves = false,
    horizonsMs: number[] = [],
  ): ReturnType<ComparedNode['answers']['digests']> =>
    cluster.time.run(node.answers.digests({ partitions, withLeaves, horizonsMs }));

  async function listed(leaves: LeafSet, partition = 0): Promise<readonly Omit<LeafReply, 'id'>[]> {
    const pages: Omit<LeafReply, 'id'>[] = [];
    let startAfter = NOTHING;
    for (;;) {
      const request = { partition, leaves: leaves.toBytes(), startAfter, limit: 1000 };
      const page = await cluster.time.run(node.answers.leaves(request));
      pages.push(page);
      if (page.through === undefined) return pages;
      startAfter = Buffer.from(page.through);
    }
  }

  it('give roots, and leaves when they are asked for, of what is stored', async () => {
    const writes: Write[] = keysOf(1, 30).map((key, wallMs) => ({ key, wallMs, value: 'v' }));
    await node.write(...writes);
    const { root, leaves } = digestOfRecords(
      writes.map((write) => ({ key: Buffer.from(write.key), record: recordOf(write) })),
    );
    const { durableHead, digests: found } = await digests([1, 0], true);
    expect(durableHead).to.equal(7);
    expect(found.map(({ partition }) => partition)).to.deep.equal([1, 0]);
    expect(found[0]).to.include({ root, horizonMs: 0, readable: true, wrongReplica: false });
    expect(decodeLeaves(found[0]?.leaves ?? NOTHING)).to.deep.equal(leaves);
    expect(decodeLeaves(found[1]?.leaves ?? NOTHING)).to.deep.equal(new Array(256).fill(0));
    expect((await digests([1])).digests[0]?.leaves).to.have.length(0);
  });

  it('say which partitions are not kept here, or do not exist, or are not readable', async () => {
    cluster.map = mapOf(2, { assignment: [[0, 1], [1], [0], [0, 1]] });
    node.readable.delete(2);
    const { digests: found } = await digests([0, 1, 2, 9]);
    expect(found.map(({ wrongReplica, readable }) => [wrongReplica, readable])).to.deep.equal([
      [false, true],
      [true, false],
      [false, false],
      [true, false],
    ]);
    expect((await listed(every, 1)).length).to.equal(1);
  });

  it('follow the asker to a larger horizon first, where they are readable', async () => {
    const [a = '', b = ''] = keysOf(0, 2);
    const [c = ''] = keysOf(3, 1);
    await node.write({ key: a, wallMs: 10 }, { key: b, wallMs: 20, value: 'x' }, { key: c, wallMs: 10 });
    node.readable.delete(3);
    const { digests: found } = await digests([0, 3], true, [15, 15]);
    expect(found.map(({ horizonMs }) => horizonMs)).to.deep.equal([15, 0]);
    expect(await node.contents()).to.deep.equal([`${b}@20=x`, `${c}@10`].sort());
    expect(found[0]?.root).to.equal(node.store.digest(0).root);
  });

  it('list the keys of some leaves in pages that are bounded in keys and in what is looked at', async () => {
    const keys = keysOf(0, 200);
    await node.write(...keys.map((key, wallMs) => ({ key, wallMs, value: 'v' })));
    const some = new LeafSet();
    for (let leaf = 0; leaf < 40; leaf += 1) some.add(leaf);
    for (const leaves of [every, some, new LeafSet()]) {
      const pages = await listed(leaves);
      const items = pages.flatMap((page) => page.items);
      const wanted = keys.filter((key) => leaves.has(leafOf(digestKey(Buffer.from(key))))).sort();
      expect(items.map(({ key }) => key.toString())).to.deep.equal(wanted);
      expect(pages.length).to.be.at.least(200 / 12);
      for (const page of pages) expect(page.items.length).to.be.at.most(5);
    }
  });

  it('list damaged records without a version, wherever a page ends, and report them', async () => {
    const keys = keysOf(0, 60);
    await node.write(...keys.map((key, wallMs) => ({ key, wallMs, value: 'v' })));
    const damaged = keys.filter((_key, index) => index % 7 === 0);
    for (const key of damaged) await cluster.damage(0, key);
    const items = (await listed(every)).flatMap((page) => page.items);
    expect(items.map(({ key }) => key.toString())).to.deep.equal(keys.toSorted());
    const without = items.filter(({ version }) => version === undefined).map(({ key }) => key.toString());
    expect(without).to.deep.equal(damaged.toSorted());
    expect(new Set(node.damaged)).to.deep.equal(new Set(damaged));
  });

  it('give no leaves of more partitions at once than fit into a frame', async () => {
    const { digests: found } = await digests(new Array<number>(600).fill(0), true);
    expect(found.length).to.be.at.most(PARTITIONS);
  });
});

describe('pages of a partition', () => {
  it('leave out nothing between the last record of a full page and a damaged one beyond it', async () => {
    // A store may have looked further than what it gives.
    const keys = Array.from({ length: 60 }, (_, number) => `key-${String(number).padStart(2, '0')}`);
    const record = recordOf({ key: 'any', wallMs: 1, value: 'v' });
    const pages = new PartitionPages(
      {
        scan: (_partition, { after, limit, onDamaged }) => {
          const left = keys.filter((key) => after === undefined || key > after.toString());
          if (left.includes('key-50')) onDamaged?.(Buffer.from('key-50'));
          const sound = left.filter((key) => key !== 'key-50').slice(0, limit);
          return Promise.resolve(sound.map((key) => ({ key: Buffer.from(key), record })));
        },
      },
      0,
      { after: undefined, pageBytes: 1 },
    );
    const seen: string[] = [];
    for (let rows = await pages.next(); rows !== undefined; rows = await pages.next()) {
      seen.push(...rows.map(({ key }) => key.toString()));
      if (seen.length > 100) break;
    }
    expect(seen).to.deep.equal(keys);
  });
});
