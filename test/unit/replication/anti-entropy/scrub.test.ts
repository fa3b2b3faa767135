import { expect } from 'chai';
import { Scrub } from '../../../../node/replication/anti-entropy/scrub.ts';
import type { AntiEntropySettings } from '../../../../node/replication/anti-entropy/settings.ts';
import { seededRandom } from '../../../support/seeded-random.ts';
import {
  ComparedCluster,
  type ComparedNode,
  type DirectPeer,
  keysOf,
  mapOf,
  PARTITIONS,
  type Write,
} from './compared-nodes.ts';

const some = (prefix: string, count: number, wallMs: number): Write[] =>
  Array.from({ length: count }, (_, number) => ({ key: `${prefix}-${number}`, wallMs, value: 'v' }));

describe('scrubbing', () => {
  let cluster: ComparedCluster;
  let first: ComparedNode;
  let peers: DirectPeer[];
  let scrub: Scrub;
  let tooMany: number[];
  const [K = ''] = keysOf(0, 1);

  async function open(size: number, settings: Partial<AntiEntropySettings> = {}): Promise<void> {
    cluster = await ComparedCluster.open(size, { scrubPauseMs: 3_600_000, ...settings });
    first = cluster.node(0);
    peers = Array.from({ length: size - 1 }, (_, index) => cluster.peer(0, index + 1));
    tooMany = [];
    scrub = new Scrub({
      ...first.surroundings,
      peers: () => peers,
      random: seededRandom(1),
      onTooManyDamaged: (count) => tooMany.push(count),
    });
  }

  afterEach(async () => {
    await cluster.time.run(scrub.stop());
    await cluster.close();
  });

  it('reads every record once in a pass, at its rate, and begins again after the pause', async () => {
    await open(1, { scrubRecordsPerSecond: 100 });
    await first.write(...some('a', 300, 1000));
    await cluster.time.run(first.store.checkpoint());
    scrub.start();
    await cluster.time.advance(1500);
    expect(first.counters.get('scrubbed_records')).to.be.within(100, 250);
    await cluster.time.advance(5000);
    expect(first.counters.get('scrubbed_records')).to.equal(300);
    expect(scrub.completedPasses).to.equal(1);
    await cluster.time.advance(3_600_000 + 5000);
    expect(scrub.completedPasses).to.equal(2);
    expect(scrub.damagedKeys).to.equal(0);
  });

  for (const newest of [1, 2]) {
    it(`replaces a damaged record by the newest that the others have, which is that of kv-${newest}`, async () => {
      await open(3);
      for (const node of cluster.nodes) {
        await node.write(...some('a', 20, 1000), { key: K, wallMs: 5, value: 'old' });
      }
      await cluster.node(newest).write({ key: K, wallMs: 7, value: 'newest' });
      await cluster.damage(0, K);
      scrub.start();
      await cluster.time.advance(2000);
      expect(first.counters.get('damaged_records')).to.equal(1);
      expect(first.counters.get('healed_records')).to.equal(1);
      expect(scrub.damagedKeys).to.equal(0);
      expect(await first.contents()).to.include(`${K}@7=newest`);
      expect(first.gauges.get('damaged_keys')).to.equal(0);
    });
  }

  it('waits until enough replicas have answered: the damaged record may be half of a quorum', async () => {
    await open(3, { healMs: 1000 });
    for (const node of cluster.nodes) await node.write({ key: K, wallMs: 5, value: 'old' });
    for (const index of [0, 2]) await cluster.node(index).write({ key: K, wallMs: 7, value: 'acknowledged' });
    await cluster.damage(0, K);
    const all = peers;
    peers = all.slice(0, 1);
    scrub.start();
    await cluster.time.advance(10_000);
    expect(await first.contents()).to.deep.equal([`${K} damaged`]);
    cluster.node(2).readable.clear();
    peers = all;
    await cluster.time.advance(10_000);
    expect(scrub.damagedKeys).to.equal(1);
    cluster.node(2).readable.add(0);
    await cluster.time.advance(2000);
    expect(await first.contents()).to.deep.equal([`${K}@7=acknowledged`]);
  });

  it('does not count a replica whose record is damaged as well', async () => {
    await open(3, { healMs: 1000 });
    for (const node of cluster.nodes) await node.write({ key: K, wallMs: 5, value: 'old' });
    for (const index of [0, 2]) await cluster.damage(index, K);
    scrub.start();
    await cluster.time.advance(10_000);
    expect(scrub.damagedKeys).to.equal(1);
    expect(await first.contents()).to.deep.equal([`${K} damaged`]);
  });

  it('removes what no other replica has anything of', async () => {
    await open(3);
    await first.write({ key: K, wallMs: 5 }, ...some('a', 5, 10));
    await cluster.damage(0, K);
    scrub.start();
    await cluster.time.advance(2000);
    expect(scrub.damagedKeys).to.equal(0);
    expect(await first.contents()).to.have.length(5);
  });

  it('asks at once for what is reported, and counts it once', async () => {
    await open(3, { scrubRecordsPerSecond: 1 });
    for (const node of cluster.nodes) await node.write({ key: K, wallMs: 5, value: 'x' });
    await cluster.damage(0, K);
    scrub.start();
    for (let times = 0; times < 3; times += 1) scrub.report(Buffer.from(K));
    await cluster.time.advance(100);
    expect(scrub.damagedKeys).to.equal(0);
    expect(first.counters.get('damaged_records')).to.equal(1);
    expect(await first.contents()).to.deep.equal([`${K}@5=x`]);
  });

  it('forgets what was given away', async () => {
    await open(3, { healMs: 1000 });
    await first.write({ key: K, wallMs: 5, value: 'x' });
    await cluster.damage(0, K);
    peers = [];
    scrub.start();
    await cluster.time.advance(3000);
    expect(scrub.damagedKeys).to.equal(1);
    cluster.map = mapOf(3, { epoch: 2, assignment: Array.from({ length: PARTITIONS }, () => [1, 2]) });
    await cluster.time.advance(3000);
    expect(scrub.damagedKeys).to.equal(0);
  });

  it('goes on with other replicas when one of them fails', async () => {
    await open(4);
    for (const node of cluster.nodes) await node.write({ key: K, wallMs: 5, value: 'x' });
    await cluster.damage(0, K);
    const broken = Promise.reject(new Error('broken'));
    broken.catch(() => undefined);
    peers[0]!.before = () => broken;
    cluster.map = mapOf(4);
    scrub.start();
    await cluster.time.advance(2000);
    // Of four replicas two are needed.
    expect(await first.contents()).to.deep.equal([`${K}@5=x`]);
  });

  it('gives the store up when too much of it is damaged', async () => {
    await open(1, { maxDamaged: 3 });
    for (let number = 0; number < 10; number += 1) scrub.report(Buffer.from(`key-${number}`));
    scrub.report(Buffer.from('key-0'));
    expect(tooMany).to.deep.equal([4]);
  });
});
