import { expect } from 'chai';
import { AntiEntropy } from '../../../../node/replication/anti-entropy/anti-entropy.ts';
import type { AntiEntropySettings } from '../../../../node/replication/anti-entropy/settings.ts';
import { SAFETY_RULES, type SafetyRules } from '../../../../node/replication/safety-rules.ts';
import { seededRandom } from '../../../support/seeded-random.ts';
import {
  ComparedCluster,
  type ComparedNode,
  type DirectPeer,
  keysOf,
  mapOf,
  PARTITIONS,
  SMALL_STEPS,
  type Write,
} from './compared-nodes.ts';

const ALL = Array.from({ length: PARTITIONS }, (_, partition) => partition);

const some = (prefix: string, count: number, wallMs: number): Write[] =>
  Array.from({ length: count }, (_, number) => ({ key: `${prefix}-${number}`, wallMs, value: 'v' }));

describe('anti-entropy', () => {
  let cluster: ComparedCluster;
  /** What kv-0 is connected with. */
  let peers: DirectPeer[];
  let antiEntropy: AntiEntropy;
  let first: ComparedNode;

  async function open(
    size: number,
    settings: Partial<AntiEntropySettings> = {},
    rules: Partial<SafetyRules> = {},
  ): Promise<void> {
    cluster = await ComparedCluster.open(size, { ...SMALL_STEPS, ...settings });
    first = cluster.node(0);
    first.rules = { ...SAFETY_RULES, ...rules };
    peers = Array.from({ length: size - 1 }, (_, index) => cluster.peer(0, index + 1));
    const { surroundings } = first;
    antiEntropy = new AntiEntropy({
      ...surroundings,
      rules: first.rules,
      standing: {
        ...surroundings.standing,
        markReadable: async (partitions) => {
          await surroundings.standing.markReadable(partitions);
          antiEntropy.wake();
        },
      },
      peers: () => peers,
      random: seededRandom(1),
    });
  }

  const peer = (index: number): DirectPeer => {
    const found = peers.find(({ nodeId }) => nodeId === `kv-${index}`);
    if (found === undefined) throw new Error(`kv-0 is not connected with kv-${index}`);
    return found;
  };

  const connect = (...indexes: readonly number[]): void => {
    peers = indexes.map((index) => cluster.peer(0, index));
    antiEntropy.wake();
  };

  afterEach(async () => {
    await cluster.time.run(antiEntropy.stop());
    await cluster.close();
  });

  const readable = (): boolean => first.readable.size === PARTITIONS;

  /** Its volume is lost; the others have these writes. */
  async function blank(...writes: readonly Write[]): Promise<void> {
    first.readable.clear();
    for (const node of cluster.nodes.slice(1)) await node.write(...writes);
  }

  describe('of a replica without data', () => {
    it('serves only when it has compared itself with as many as a quorum cannot do without', async () => {
      await open(3);
      await blank(...some('a', 60, 1000));
      await cluster.node(2).write({ key: 'acknowledged-by-kv-0-and-kv-2', wallMs: 2000, value: 'x' });
      connect(1);
      antiEntropy.start();
      await cluster.time.advance(30_000);
      expect(await first.contents()).to.have.length(60);
      expect(readable()).to.equal(false);
      expect(antiEntropy.reason).to.equal(
        'needs 2 intact peers to fill 4 partitions from, has 1, and waits for kv-2 with intact stores',
      );
      expect(antiEntropy.status()).to.include({ fillingPartitions: 4 });
      connect(1, 2);
      await cluster.time.until('it is readable', readable);
      expect(await first.contents()).to.have.length(61);
      expect(antiEntropy.reason).to.equal(undefined);
      await cluster.time.advance(1000);
      expect(first.gauges.get('filling_partitions')).to.equal(0);
    });

    it('serves too early where that rule is switched off', async () => {
      await open(3, {}, { compareWithEnough: false });
      await blank(...some('a', 20, 1000));
      connect(1);
      antiEntropy.start();
      await cluster.time.until('it is readable', readable);
    });

    it('waits for every source in reach, not only for enough of them', async () => {
      await open(4);
      cluster.map = mapOf(4, {
        replicationFactor: 3,
        assignment: ALL.map(() => [1, 2, 3]),
        ...moving([1, 2, 3], [0, 1, 2]),
      });
      await blank(...some('a', 20, 1000));
      await cluster.node(3).write({ key: 'only-there', wallMs: 2000, value: 'x' });
      let waiting: (() => void) | undefined;
      connect(1, 2, 3);
      peer(3).before = () => new Promise<void>((resolve) => (waiting = resolve));
      antiEntropy.start();
      await cluster.time.advance(5000);
      expect(await first.contents()).to.have.length(20);
      expect(first.readable.size).to.equal(0);
      peer(3).before = () => undefined;
      waiting?.();
      await cluster.time.until('it is readable', readable);
      expect(await first.contents()).to.have.length(21);
    });

    it('needs one source of two replicas, and says when there is none at all', async () => {
      await open(2);
      await blank(...some('a', 10, 1000));
      antiEntropy.start();
      await cluster.time.until('it is readable', readable);
      cluster.map = mapOf(2, {
        epoch: 2,
        assignment: ALL.map((partition) => (partition < 2 ? [0] : [0, 1])),
      });
      first.readable.clear();
      antiEntropy.forget(ALL);
      expect(antiEntropy.reason).to.match(
        /no other member exists to fill 2 of 4 partitions from: their data is lost/,
      );
    });

    it('takes over the horizon of what it was filled from before it serves', async () => {
      await open(3);
      await blank(...some('a', 10, 100_000));
      cluster.node(1).horizonsMs.set(0, 5000);
      cluster.node(2).horizonsMs.set(0, 7000);
      antiEntropy.start();
      await cluster.time.until('it is readable', readable);
      expect(first.surroundings.horizons.of(0)).to.equal(7000);
    });

    it('fills from two sources at once, each partition in bulk from one of them', async () => {
      await open(3, { groupPartitions: 1 });
      await blank(...some('a', 200, 1000));
      antiEntropy.start();
      await cluster.time.until('it is readable', readable);
      const [one, other] = [peer(1).pulled, peer(2).pulled];
      expect(one).to.not.be.empty;
      expect(other).to.not.be.empty;
      expect([...one, ...other].sort()).to.deep.equal(ALL);
      expect(await first.contents()).to.have.length(200);
      expect(first.counters.get('pulled_records')).to.equal(200);
    });

    it('fills in bulk although live writes have reached it first', async () => {
      await open(2);
      await blank(...some('a', 1500, 1000));
      antiEntropy.start();
      peer(1).mutual = false;
      await cluster.time.advance(1000);
      await first.write(...some('a', 1200, 2000));
      peer(1).mutual = true;
      antiEntropy.wake();
      await cluster.time.until('it is readable', readable);
      expect(peer(1).asked).to.include('pull');
      expect(await first.contents()).to.have.length(1500);
    }).timeout(20_000);

    it('begins anew when its partitions lose their standing meanwhile', async () => {
      await open(2);
      await blank(...some('a', 30, 1000));
      let pulled = 0;
      peer(1).before = async (question) => {
        if (question !== 'pull' || (pulled += 1) !== 5) return;
        // What was compared until here is gone from the volume.
        for (const partition of ALL) await first.store.removeWhere(partition, () => true);
        antiEntropy.forget(ALL);
      };
      antiEntropy.start();
      await cluster.time.until('it is readable', readable);
      expect(pulled).to.be.greaterThan(5);
      expect(await first.contents()).to.have.length(30);
    });

    it('compares again what loses its standing while its mark is prepared', async () => {
      await open(2);
      await blank(...some('a', 10, 1000));
      const { horizons, standing } = first.surroundings;
      const inherit = horizons.inherit.bind(horizons);
      const markReadable = standing.markReadable.bind(standing);
      let forgotten: number | undefined;
      let comparedAtMark: boolean | undefined;
      horizons.inherit = (list) => {
        if (forgotten === undefined) {
          forgotten = list[0]?.[0] ?? 0;
          antiEntropy.forget([forgotten]);
        }
        return inherit(list);
      };
      standing.markReadable = (partitions) => {
        const marked = [...partitions];
        if (forgotten !== undefined && marked.includes(forgotten)) {
          comparedAtMark = antiEntropy.settlement.isFilledFrom('kv-1', forgotten);
        }
        return markReadable(marked);
      };
      antiEntropy.start();
      await cluster.time.until('it is readable', readable);
      expect(comparedAtMark).to.equal(true);
    });

    it('tries again, and not all the time, when its mark cannot be written', async () => {
      await open(2);
      await blank(...some('a', 10, 1000));
      const { standing } = first.surroundings;
      const markReadable = standing.markReadable.bind(standing);
      let tries = 0;
      let broken = true;
      standing.markReadable = (partitions) => {
        tries += 1;
        return broken ? Promise.reject(new Error('broken')) : markReadable(partitions);
      };
      antiEntropy.start();
      await cluster.time.advance(60_000);
      expect(tries).to.be.within(5, 30);
      expect(readable()).to.equal(false);
      broken = false;
      await cluster.time.until('it is readable', readable);
    });

    it('does nothing, and harms nobody, when its store has failed', async () => {
      await open(2);
      await blank(...some('a', 10, 1000));
      const { store } = first;
      store.digest = () => {
        throw new Error('the store has failed');
      };
      antiEntropy.start();
      await cluster.time.advance(5000);
      Reflect.deleteProperty(store, 'digest');
      expect(readable()).to.equal(false);
    });

    it('does not wait for an answer that is of no use any more', async () => {
      await open(2);
      await blank(...some('a', 30, 1000));
      let hanging = 0;
      peer(1).before = () => {
        hanging += 1;
        return hanging === 1 ? new Promise<void>(() => undefined) : undefined;
      };
      antiEntropy.start();
      await cluster.time.until('it waits', () => hanging === 1);
      antiEntropy.forget(ALL);
      await cluster.time.until('it is readable', readable);
    });

    it('does not try all the time where a source has a damaged record', async () => {
      await open(2);
      const [key = ''] = keysOf(1, 1);
      await blank({ key, wallMs: 1000, value: 'x' });
      await cluster.damage(1, key);
      antiEntropy.start();
      await cluster.time.advance(120_000);
      expect([...first.readable]).to.deep.equal([0, 2, 3]);
      expect(peer(1).asked.filter((question) => question === 'leaves').length).to.be.within(10, 40);
    });

    it('does not begin before the stream to a source is up both ways', async () => {
      await open(2);
      await blank(...some('a', 3, 1000));
      peer(1).mutual = false;
      antiEntropy.start();
      await cluster.time.advance(20_000);
      expect(peer(1).asked).to.deep.equal([]);
      peer(1).mutual = true;
      antiEntropy.wake();
      await cluster.time.until('it is readable', readable);
    });
  });

  describe('of a replica that fell off a log', () => {
    it('compares everything at once, and closes the gap with the head from before', async () => {
      await open(2, { backgroundMs: 1_000_000 });
      await cluster.node(1).write(...some('a', 30, 1000));
      antiEntropy.start();
      await cluster.time.advance(2000);
      first.fellOffOf.add('kv-1');
      cluster.node(1).head = 33;
      await cluster.node(1).write(...some('b', 30, 2000));
      peer(1).before = (question) => {
        if (question === 'leaves') cluster.node(1).head = 99;
      };
      antiEntropy.wake();
      await cluster.time.until('the gap is closed', () => first.fellOffOf.size === 0);
      expect(first.promoted.get('kv-1')).to.equal(33);
      expect(await first.contents()).to.have.length(60);
      expect(first.readable.size).to.equal(PARTITIONS);
    });

    it('does not close the gap before every shared partition was compared', async () => {
      await open(2, { backgroundMs: 1000 });
      first.fellOffOf.add('kv-1');
      cluster.node(1).readable.delete(2);
      const [key = ''] = keysOf(2, 1);
      await cluster.node(1).write({ key, wallMs: 1, value: 'x' });
      antiEntropy.start();
      await cluster.time.advance(10_000);
      expect(peer(1).asked).to.not.be.empty;
      expect(first.promoted.size).to.equal(0);
      cluster.node(1).readable.add(2);
      antiEntropy.wake();
      await cluster.time.until('the gap is closed', () => first.promoted.size > 0);
      expect(await first.contents()).to.have.length(1);
    });

    it('closes the gap before the log of a peer with whom it shares nothing', async () => {
      await open(3);
      cluster.map = mapOf(3, { assignment: ALL.map((partition) => (partition < 2 ? [0, 2] : [1, 2])) });
      first.fellOffOf.add('kv-1');
      antiEntropy.start();
      await cluster.time.until('the gap is closed', () => first.promoted.size > 0);
      expect(first.promoted.get('kv-1')).to.equal(7);
      await cluster.time.advance(20_000);
      expect(peer(1).asked).to.have.length(1);
    });

    it('compares also what a newer map has added meanwhile, before the gap is closed', async () => {
      await open(2, { backgroundMs: 1_000_000, pauseMs: 100 });
      cluster.map = mapOf(2, { assignment: ALL.map((partition) => (partition === 3 ? [1] : [0, 1])) });
      first.fellOffOf.add('kv-1');
      const [early = ''] = keysOf(0, 1);
      const [late = ''] = keysOf(3, 1);
      for (const key of [early, late]) await cluster.node(1).write({ key, wallMs: 1, value: 'x' });
      peer(1).before = (question) => {
        if (question === 'pull') cluster.map = mapOf(2, { epoch: 2 });
      };
      antiEntropy.start();
      await cluster.time.until('the gap is closed', () => first.promoted.size > 0);
      expect(await first.contents()).to.have.length(2);
    });
  });

  describe('in the background', () => {
    it('compares roots about every ten seconds, and counts what is equal', async () => {
      await open(3);
      for (const node of cluster.nodes) await node.write(...some('a', 20, 1000));
      antiEntropy.start();
      await cluster.time.advance(60_000);
      for (const index of [1, 2]) {
        expect(new Set(peer(index).asked)).to.deep.equal(new Set(['digests']));
        expect(peer(index).asked.length).to.be.within(5, 10);
      }
      expect(antiEntropy.status()).to.include({
        equalPartitions: 4,
        differingPartitions: 0,
        fillingPartitions: 0,
      });
      expect(antiEntropy.status().lastFullMs.size).to.equal(2);
    });

    it('finds and heals a difference that no log brings', async () => {
      await open(2);
      await cluster.node(1).write(...some('a', 5, 1000));
      await first.write(...some('b', 5, 1000));
      antiEntropy.start();
      await cluster.time.advance(15_000);
      expect(await first.contents()).to.have.length(10);
      expect(await cluster.node(1).contents()).to.deep.equal(await first.contents());
      expect(antiEntropy.status()).to.include({ equalPartitions: 4 });
    });

    it('says what differs where a record is damaged, and does not try all the time', async () => {
      await open(2);
      const [key = ''] = keysOf(1, 1);
      await cluster.node(1).write({ key, wallMs: 1000, value: 'x' });
      await cluster.damage(1, key);
      antiEntropy.start();
      await cluster.time.advance(60_000);
      expect(antiEntropy.status()).to.include({ equalPartitions: 3, differingPartitions: 1 });
      expect(peer(1).asked.filter((question) => question === 'leaves').length).to.be.within(2, 20);
    });

    it('leaves to a log that catches up what it brings, for a while', async () => {
      await open(2);
      await cluster.node(1).write(...some('a', 5, 1000));
      peer(1).lag = 50_000;
      antiEntropy.start();
      await cluster.time.advance(50_000);
      expect(peer(1).asked).to.deep.equal([]);
      await cluster.time.advance(20_000);
      expect(await first.contents()).to.have.length(5);
    });

    it('moves records at a bounded rate, unless they become urgent', async () => {
      await open(2, { backgroundBytesPerSecond: 100 });
      await cluster.node(1).write(...some('a', 60, 1000));
      antiEntropy.start();
      await cluster.time.advance(5_000);
      const slowly = (await first.contents()).length;
      expect(slowly).to.be.within(5, 40);
      first.label = 'a label';
      antiEntropy.wake();
      await cluster.time.advance(5_000);
      expect(await first.contents()).to.have.length(60);
    });

    it('keeps room for what is urgent while it dawdles', async () => {
      await open(4, { backgroundBytesPerSecond: 20 });
      for (const index of [1, 2]) await cluster.node(index).write(...some(`from-${index}`, 60, 1000));
      antiEntropy.start();
      await cluster.time.advance(5_000);
      first.fellOffOf.add('kv-3');
      antiEntropy.wake();
      await cluster.time.advance(3_000);
      expect([...first.promoted.keys()]).to.deep.equal(['kv-3']);
      expect((await first.contents()).length).to.be.lessThan(60);
    });

    it('waits longer and longer for a peer that fails, and goes on with the others', async () => {
      await open(3);
      for (const index of [1, 2]) await cluster.node(index).write(...some('a', 5, 1000));
      peer(1).before = () => {
        throw new Error('broken');
      };
      antiEntropy.start();
      await cluster.time.advance(60_000);
      expect(await first.contents()).to.have.length(5);
      expect(peer(1).asked.length).to.be.within(4, 25);
      expect(first.counters.get('failed_comparisons')).to.equal(peer(1).asked.length);
    });
  });

  describe('for the horizon', () => {
    it('settles partitions that were compared with all others under the present label', async () => {
      await open(3, { backgroundMs: 1_000_000 });
      first.label = 'one';
      connect(1);
      antiEntropy.start();
      await cluster.time.advance(3000);
      expect([...antiEntropy.settlement.settled()]).to.deep.equal([]);
      connect(1, 2);
      await cluster.time.advance(3000);
      expect([...antiEntropy.settlement.settled()]).to.deep.equal(ALL);
      first.label = 'two';
      expect([...antiEntropy.settlement.settled()]).to.deep.equal([]);
      antiEntropy.wake();
      await cluster.time.advance(3000);
      expect([...antiEntropy.settlement.settled()]).to.deep.equal(ALL);
      first.readable.delete(1);
      expect([...antiEntropy.settlement.settled()]).to.deep.equal([0, 2, 3]);
      first.label = '';
      expect([...antiEntropy.settlement.settled()]).to.deep.equal([]);
    });

    it('does not count a comparison that had begun before', async () => {
      await open(2, { backgroundMs: 1_000_000 });
      first.label = 'one';
      let changed = false;
      peer(1).after = () => {
        if (!changed) first.label = 'two';
        changed = true;
      };
      antiEntropy.start();
      await cluster.time.until(
        'it was compared',
        () => first.counters.get('compared_partitions') === PARTITIONS,
      );
      expect([...antiEntropy.settlement.settled()]).to.deep.equal([]);
      await cluster.time.advance(3000);
      expect([...antiEntropy.settlement.settled()]).to.deep.equal(ALL);
    });
  });

  describe('for a move', () => {
    async function move(oldReplicas: number[], newReplicas: number[]): Promise<void> {
      await open(4, { backgroundMs: 1_000_000 });
      cluster.map = mapOf(4, {
        epoch: 5,
        assignment: ALL.map(() => oldReplicas),
        ...moving(oldReplicas, newReplicas),
      });
      for (const index of oldReplicas) await cluster.node(index).write(...some('a', 20, 1000));
    }

    it('settles an incoming replica that was filled before every member knew of the move only by comparing again', async () => {
      await move([1, 2, 3], [0, 1, 2]);
      first.readable.clear();
      first.barrierEpoch = 4;
      antiEntropy.start();
      await cluster.time.until('it is filled', readable);
      await cluster.time.advance(5000);
      expect(antiEntropy.settlement.settledEpoch()).to.equal(0);
      first.barrierEpoch = 5;
      antiEntropy.wake();
      await cluster.time.advance(5000);
      expect(antiEntropy.settlement.settledEpoch()).to.equal(5);
      expect(await first.contents()).to.have.length(20);
    });

    it('settles it without the barrier where that rule is switched off', async () => {
      await move([1, 2, 3], [0, 1, 2]);
      await cluster.time.run(antiEntropy.stop());
      await cluster.close();
      await open(4, { backgroundMs: 1_000_000 }, { awaitBarrier: false });
      cluster.map = mapOf(4, {
        epoch: 5,
        assignment: ALL.map(() => [1, 2, 3]),
        ...moving([1, 2, 3], [0, 1, 2]),
      });
      first.readable.clear();
      first.barrierEpoch = 4;
      antiEntropy.start();
      await cluster.time.until('it is filled', readable);
      expect(antiEntropy.settlement.settledEpoch()).to.equal(5);
    });

    it('counts an owner that stays for one of the old owners', async () => {
      await move([0, 1, 2], [0, 1, 3]);
      first.barrierEpoch = 5;
      connect();
      antiEntropy.start();
      await cluster.time.advance(3000);
      expect(antiEntropy.settlement.settledEpoch()).to.equal(0);
      connect(3);
      await cluster.time.advance(3000);
      expect(antiEntropy.settlement.settledEpoch()).to.equal(0);
      connect(2);
      await cluster.time.advance(3000);
      expect(antiEntropy.settlement.settledEpoch()).to.equal(5);
    });

    it('asks nothing of an owner that leaves', async () => {
      await move([0, 1, 2], [1, 2, 3]);
      first.barrierEpoch = 5;
      antiEntropy.start();
      await cluster.time.advance(3000);
      expect(antiEntropy.settlement.settledEpoch()).to.equal(0);
    });
  });

  it('stops in the middle of a comparison, and asks nothing afterwards', async () => {
    await open(2);
    await blank(...some('a', 100, 1000));
    antiEntropy.start();
    let hangs = false;
    peer(1).before = (question) => {
      hangs = question === 'pull';
      return hangs ? new Promise<void>(() => undefined) : undefined;
    };
    await cluster.time.until('it pulls', () => hangs);
    await cluster.time.run(antiEntropy.stop());
    const asked = peer(1).asked.length;
    antiEntropy.wake();
    await cluster.time.advance(30_000);
    expect(peer(1).asked.length).to.equal(asked);
    expect(readable()).to.equal(false);
  });
});

function moving(oldReplicas: readonly number[], newReplicas: readonly number[]): Parameters<typeof mapOf>[1] {
  return {
    moving: { phase: 1, partitions: ALL.map((partition) => ({ partition, oldReplicas, newReplicas })) },
  };
}
