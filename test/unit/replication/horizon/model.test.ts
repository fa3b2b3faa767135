import { expect } from 'chai';
import fc from 'fast-check';
import { SAFETY_RULES, type SafetyRules } from '../../../../node/replication/safety-rules.ts';
import { KEYS, ModelCluster, type ModelNode, START_MS, type Volume } from './collection-model.ts';

interface Step {
  readonly cluster: ModelCluster;
  readonly node: ModelNode;
  readonly peer: ModelNode;
  readonly key: string;
  /** Whatever else is to be chosen. */
  readonly choice: number;
  /** An earlier state of the node's disk. */
  readonly old: Volume | undefined;
}

/** One disk at a time: what is acknowledged at QUORUM survives no more than that. */
function lose({ cluster, node }: Step, volume: Volume | undefined): void {
  if (cluster.nodes.every(({ synced }) => synced.readable)) node.lose(volume);
}

/** What can happen, and how often. */
const HAPPENINGS: readonly (readonly [weight: number, happen: (step: Step) => void | Promise<void>])[] = [
  [10, ({ node, key, choice }) => node.write(key, choice % 2 === 0)],
  [12, ({ node, peer, choice }) => node.send(peer, 1 + (choice % 3))],
  [8, ({ node }) => node.sync()],
  [8, ({ node, peer }) => node.acknowledge(peer)],
  [10, ({ node }) => node.beat()],
  [8, ({ cluster }) => cluster.decide()],
  [8, ({ node }) => node.purge()],
  [8, ({ cluster, choice }) => void (cluster.nowMs += 500 * (1 + (choice % 6)))],
  [8, ({ node, peer }) => node.compare(peer)],
  [5, ({ node, peer, key }) => node.offer(key, peer)],
  [6, ({ cluster, choice }) => cluster.deliver(choice)],
  [6, ({ cluster, choice }) => cluster.connectAll(choice % 9)],
  [20, ({ cluster, choice }) => cluster.exchange(choice)],
  [6, ({ cluster }) => cluster.compareAll()],
  [2, ({ node, peer }) => node.disconnect(peer)],
  [2, ({ node }) => node.crash()],
  [1, ({ node }) => node.restart()],
  [1, (step) => lose(step, undefined)],
  [1, (step) => lose(step, step.old)],
  // Within the bound that others tolerate, either way, and far back.
  [1, ({ node, choice }) => void (node.skewMs = [0, 1500, -1500, -60_000][choice % 4] ?? 0)],
];
const KINDS = HAPPENINGS.flatMap(([weight, happen]) => Array<typeof happen>(weight).fill(happen));

type Choices = readonly [kind: number, node: number, peer: number, choice: number];

async function begun(rules: SafetyRules = SAFETY_RULES): Promise<ModelCluster> {
  const cluster = new ModelCluster(rules);
  cluster.connectAll();
  await cluster.compareAll();
  return cluster;
}

async function run(steps: readonly Choices[]): Promise<ModelCluster> {
  const cluster = await begun();
  let old: readonly Volume[] = [];
  for (const [number, [kind, index, other, choice]] of steps.entries()) {
    if (number % 25 === 0) old = cluster.nodes.map(({ synced }) => synced);
    await KINDS[kind % KINDS.length]?.({
      cluster,
      node: cluster.node(index),
      peer: cluster.node(index + 1 + (other % 2)),
      key: KEYS[choice % KEYS.length] ?? '',
      choice: Math.floor(choice / KEYS.length),
      old: old[index % old.length],
    });
    cluster.check();
  }
  await cluster.converge();
  cluster.check();
  cluster.checkEnd();
  return cluster;
}

const steps = fc.array(fc.tuple(fc.nat(999), fc.nat(999), fc.nat(999), fc.nat(999)), {
  minLength: 100,
  maxLength: 300,
  size: 'max',
});

describe('collection under every kind of fault, as a model', () => {
  it('never claims what is not acknowledged, never collects what is needed, and lets no ghost in', async () => {
    const counts = { raised: 0, collected: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(steps, async (taken) => {
        const cluster = await run(taken);
        counts.raised += cluster.counts.raised;
        counts.collected += cluster.counts.collected;
        counts.refused += cluster.counts.refused;
      }),
      { numRuns: 200 },
    );
    expect(counts.raised, 'horizons raised').to.be.greaterThan(100);
    expect(counts.collected, 'tombstones collected').to.be.greaterThan(20);
    expect(counts.refused, 'records refused').to.be.greaterThan(0);
  });

  describe('in the one order that matters', () => {
    let cluster: ModelCluster;
    let a: ModelNode;
    let b: ModelNode;
    let c: ModelNode;

    /** Everything that is connected goes on for 30 s, but for comparisons. */
    async function goOn(): Promise<void> {
      for (let second = 0; second < 30; second += 1) {
        cluster.exchange(1001);
        await cluster.decide();
        for (const node of cluster.nodes) node.purge();
        cluster.check();
      }
    }
    const horizonsMs = (): number[] => cluster.nodes.map((node) => node.horizons.effectiveMs(0));
    const records = (key = 'a'): string[] =>
      cluster.nodes.map(({ now }) => {
        const record = now.records.get(key);
        return record === undefined ? '-' : record.tombstone ? 'deleted' : 'live';
      });
    /** The key lives everywhere; then a deletes it, and only b gets to know. */
    async function deletedAtTwo(): Promise<void> {
      a.write('a', false);
      await goOn();
      a.disconnect(c);
      a.write('a', true);
      a.send(b, 1);
      b.sync();
    }

    beforeEach(async () => {
      cluster = await begun();
      a = cluster.node(0);
      b = cluster.node(1);
      c = cluster.node(2);
    });

    it('collects a tombstone when all have it', async () => {
      a.write('a', false);
      await goOn();
      b.write('a', true);
      cluster.exchange(1001);
      expect(records()).to.deep.equal(['deleted', 'deleted', 'deleted']);
      await goOn();
      expect(records()).to.deep.equal(['-', '-', '-']);
    });

    it('waits for a comparison of the others after an unclean start of the one that wrote', async () => {
      await deletedAtTwo();
      const before = horizonsMs();
      // It comes back without the tombstone; what b gives back to it is slow.
      a.crash();
      cluster.connectAll();
      await a.compare(c);
      await a.compare(b);
      expect(records()).to.deep.equal(['deleted', 'deleted', 'live']);
      await goOn();
      expect(horizonsMs(), 'c lacks the tombstone').to.deep.equal(before);
      await b.compare(c);
      await goOn();
      expect(records()).to.deep.equal(['-', '-', '-']);
    });

    it('waits for a comparison of the others after the disk of the one that wrote was lost', async () => {
      await deletedAtTwo();
      a.sync();
      const before = Math.max(...horizonsMs());
      a.lose(undefined);
      cluster.connectAll();
      await a.compare(c);
      await a.compare(b);
      expect(records()).to.deep.equal(['deleted', 'deleted', 'live']);
      await goOn();
      expect(Math.max(...horizonsMs()), 'c lacks the tombstone').to.equal(before);
      await b.compare(c);
      await goOn();
      expect(records()).to.deep.equal(['-', '-', '-']);
    });

    it('goes back below what is given back, until all have it', async () => {
      await deletedAtTwo();
      a.crash();
      cluster.connectAll();
      cluster.exchange(1001);
      await goOn();
      expect(a.lowWater.valueMs).to.be.greaterThan(a.wallMs - 10_000);
      cluster.deliver(0);
      expect(records()).to.deep.equal(['deleted', 'deleted', 'live']);
      expect(a.lowWater.valueMs).to.be.below(a.wallMs - 20_000);
      cluster.check();
      cluster.exchange(1001);
      expect(records()).to.deep.equal(['deleted', 'deleted', 'deleted']);
      expect(a.lowWater.valueMs).to.be.greaterThan(a.wallMs - 10_000);
    });

    it('applies nothing again from a log that is sent anew', async () => {
      a.write('a', false);
      await goOn();
      b.write('a', true);
      await goOn();
      expect(records()).to.deep.equal(['-', '-', '-']);
      // Rolled back to now: the same log under a new incarnation, which nobody has a cursor on.
      a.lose(a.synced);
      a.connect(b);
      a.send(b, 10);
      expect(records()).to.deep.equal(['-', '-', '-']);
    });

    it('takes no old entry for news in a partition that was filled', async () => {
      a.write('a', false);
      await goOn();
      b.write('a', true);
      await goOn();
      c.lose(undefined);
      cluster.connectAll();
      await c.compare(a);
      await c.compare(b);
      a.send(c, 10);
      expect(records()).to.deep.equal(['-', '-', '-']);
    });

    it('refuses a repair that was read before the key was deleted', async () => {
      a.write('a', false);
      await goOn();
      c.offer('a', b);
      b.write('a', true);
      await goOn();
      expect(records()).to.deep.equal(['-', '-', '-']);
      cluster.deliver(0);
      expect(records()).to.deep.equal(['-', '-', '-']);
      expect(cluster.counts.refused).to.equal(1);
    });

    it('waits until the one that wrote has synced as well, and those that received', () => {
      a.write('a', true);
      a.sync();
      a.write('a', true);
      cluster.nowMs += 20_000;
      for (const peer of [b, c]) {
        a.send(peer, 2);
        peer.acknowledge(a);
      }
      a.beat();
      expect(a.lowWater.valueMs, 'received').to.equal(0);
      for (const peer of [b, c]) {
        peer.sync();
        peer.acknowledge(a);
      }
      a.beat();
      expect(a.lowWater.valueMs, 'synced by the others').to.equal(0);
      a.sync();
      a.beat();
      expect(a.lowWater.valueMs).to.be.greaterThan(0);
      cluster.check();
    });

    it('mints nothing below what it promised, whatever becomes of its clock over a crash', () => {
      for (let beats = 0; beats < 10; beats += 1) cluster.exchange(1001);
      // What it received from b moved its clock ahead of what it had reserved.
      b.skewMs = 1500;
      b.write('a', false);
      cluster.exchange(1001);
      const promisedMs = a.lowWater.valueMs;
      expect(promisedMs).to.be.greaterThan(START_MS);
      a.crash();
      a.skewMs = -60_000;
      a.write('b', false);
      expect(a.now.records.get('b')?.version.wallMs).to.be.at.least(promisedMs);
    });
  });
});
