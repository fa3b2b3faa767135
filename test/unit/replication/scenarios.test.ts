import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import { compareVersions } from '../../../model/version.ts';
import { FatalError } from '../../../node/cluster/fatal-error.ts';
import { memberNamed } from '../../support/member.ts';
import { PARTITIONS, ReplicaCluster } from '../../support/replica-cluster.ts';
import {
  codeOf,
  haveEqualDigests,
  moveAll,
  proposeEverywhere,
  sameEverywhere,
  SOON_COLLECTED,
} from '../../support/scenario-checks.ts';

const HOUR_MS = 3_600_000;
const collecting = { settings: { collection: SOON_COLLECTED } };

describe('failure scenarios of copies, clocks and membership', () => {
  let cluster: ReplicaCluster;

  const begin = async (size: number, options: ConstructorParameters<typeof ReplicaCluster>[1] = {}) => {
    cluster = new ReplicaCluster(size, options);
    await cluster.begin();
  };
  const stored = (index: number, key: string) => cluster.store(index).get(Buffer.from(key));
  const incarnationOf = (index: number): number => cluster.replica(index).status().volume?.incarnation ?? 0;
  const nobodyHas = async (key: string): Promise<void> => {
    for (const index of cluster.nodes.keys()) {
      for (const consistency of ['ONE', 'QUORUM'] as const) {
        expect(await cluster.get(index, key, consistency), `${key} at ${index}`).to.equal(undefined);
      }
    }
  };
  const leaveOut = (index: number) => cluster.names.filter((name) => name !== `kv-${index}`).map(memberNamed);

  /** A member comes back with the volume it left with, is told so, sets it aside and begins blank. */
  const comesBackBlank = async (index: number): Promise<void> => {
    await cluster.start(index);
    await cluster.time.until('it is told', () => cluster.node(index).fatal !== undefined);
    expect(cluster.node(index).fatal).to.be.instanceOf(FatalError).with.property('kind', 'retired');
    cluster.kill(index);
    cluster.wipe(index);
    await cluster.start(index);
  };

  afterEach(() => cluster.end());

  it('1: a key deleted while a replica was down stays deleted when it returns', async () => {
    await begin(3, collecting);
    await cluster.put(0, 'gone', 'x', { consistency: 'ALL' });
    await cluster.put(0, 'stays', 'y', { consistency: 'ALL' });
    cluster.kill(2);
    await cluster.time.advance(3000);
    await cluster.delete(0, 'gone');
    await cluster.time.advance(120_000);
    for (const index of [0, 1]) {
      expect(stored(index, 'gone')?.tombstone, 'the tombstone was not collected').to.equal(true);
      expect(cluster.replica(index).status().collectionFrozenReason).to.match(/kv-2 is not connected/);
    }
    await cluster.start(2);
    await cluster.inSync();
    await nobodyHas('gone');
    await cluster.time.until('the tombstone is collected', () =>
      [0, 1, 2].every((index) => stored(index, 'gone') === undefined),
    );
    await cluster.time.advance(20_000);
    await nobodyHas('gone');
    expect(await sameEverywhere(cluster)).to.have.length(1);
  });

  it('2: a member removed from the map brings no deleted key back with its old volume', async () => {
    await begin(3, collecting);
    for (const key of ['gone', 'stays']) await cluster.put(0, key, 'x', { consistency: 'ALL' });
    const retired = [{ nodeId: 'kv-2', incarnation: incarnationOf(2) }];
    cluster.kill(2);
    const members = cluster.names.map((name) => ({
      ...memberNamed(name),
      state: name === 'kv-2' ? ('down' as const) : ('active' as const),
    }));
    await moveAll(cluster, [0, 1, 2], [0, 1], { members, replicationFactor: 2 });
    await proposeEverywhere(
      cluster,
      cluster.nextMap({
        members: leaveOut(2),
        retired,
        replicationFactor: 2,
        assignment: Array.from({ length: PARTITIONS }, () => [0, 1]),
      }),
    );
    await cluster.delete(0, 'gone');
    await cluster.time.until('the tombstone is collected', () =>
      [0, 1].every((index) => stored(index, 'gone') === undefined),
    );
    await comesBackBlank(2);
    await moveAll(cluster, [0, 1], [0, 1, 2], { retired });
    await cluster.inSync();
    expect(retired).to.not.deep.include({ nodeId: 'kv-2', incarnation: incarnationOf(2) });
    await nobodyHas('gone');
    expect(await sameEverywhere(cluster)).to.have.length(1);
  });

  it('3: a node whose clock is set an hour ahead coordinates no writes, says so, and drags nobody along', async () => {
    await begin(3);
    await cluster.put(2, 'a', 'before');
    const trueMs = (): number => cluster.replica(0).status().wallMs;
    const mintedNow = (wallMs: number): void => {
      expect(wallMs).to.be.within(trueMs() - 2000, trueMs() + 2000);
    };
    const { running } = cluster.node(2);
    if (running === undefined) throw new Error('kv-2 is not running');
    running.clock.skewMs = HOUR_MS;
    await cluster.time.advance(2000);
    expect(cluster.replica(2).status().writeRefusal).to.match(/3600.0 s ahead of the median of 3 members/);
    const seen = cluster
      .replica(0)
      .status()
      .peers.find(({ nodeId }) => nodeId === 'kv-2');
    expect(seen?.clockOffsetMs).to.be.within(HOUR_MS - 2000, HOUR_MS + 2000);
    // Another replica coordinates for it, and it goes on as a replica.
    mintedNow((await cluster.put(2, 'a', 'after', { consistency: 'ALL' })).version.wallMs);
    expect(await cluster.get(2, 'a', 'ONE')).to.equal('after');
    cluster.network.isolate('kv-2', cluster.names);
    await cluster.time.advance(3000);
    expect(await codeOf(cluster.put(2, 'b', 'x', { consistency: 'ONE' }))).to.equal('UNAVAILABLE');
    cluster.network.heal();
    await cluster.inSync();
    for (const index of [0, 1]) mintedNow((await cluster.put(index, `new at ${index}`, 'x')).version.wallMs);
    running.clock.skewMs = 0;
    await cluster.time.advance(2000);
    expect(cluster.replica(2).status().writeRefusal).to.equal('');
    mintedNow((await cluster.put(2, 'c', 'x')).version.wallMs);
    await sameEverywhere(cluster);
  });

  it('3: what a node minted alone with its clock an hour ahead is overwritten, and moves no clock of others', async () => {
    await begin(3);
    await cluster.stop(2);
    cluster.node(2).skewMs = HOUR_MS;
    cluster.network.isolate('kv-2', cluster.names);
    await cluster.start(2);
    await cluster.time.advance(3000);
    const { version: far } = await cluster.put(2, 'a', 'far', { consistency: 'ONE' });
    cluster.network.heal();
    await cluster.inSync();
    expect(await cluster.get(0, 'a')).to.equal('far');
    expect(cluster.node(0).counters.get('skewed_versions')).to.be.greaterThan(0);
    const { version: above } = await cluster.put(0, 'a', 'overwritten');
    expect(above.wallMs).to.be.within(far.wallMs, far.wallMs + 2000);
    await cluster.time.until(
      'it knows that it is the one that is off',
      () => cluster.replica(2).status().writeRefusal !== '',
      3000,
    );
    for (const index of [0, 1, 2]) {
      expect(await cluster.get(index, 'a')).to.equal('overwritten');
      const { version } = await cluster.put(index, `new at ${index}`, 'x');
      expect(version.wallMs - cluster.replica(0).status().wallMs).to.be.within(-2000, 2000);
    }
    await sameEverywhere(cluster);
  });

  it('4: a clock an hour behind over a restart mints above everything that was there', async () => {
    await begin(2);
    await cluster.put(1, 'a', 'before');
    const { version: before } = await cluster.put(1, 'b', 'before');
    await cluster.stop(1);
    cluster.node(1).skewMs = -HOUR_MS;
    await cluster.start(1);
    await cluster.inSync();
    const { version: after } = await cluster.put(1, 'a', 'after');
    expect(compareVersions(after, before)).to.be.greaterThan(0);
    const { version: fresh } = await cluster.put(1, 'never seen', 'x');
    expect(fresh.wallMs).to.be.at.least(before.wallMs);
    for (const index of [0, 1]) expect(await cluster.get(index, 'a', 'ONE')).to.equal('after');
    await sameEverywhere(cluster);
  });

  for (const returns of [true, false]) {
    const how = returns ? 'from its log when it is back' : 'by comparison while it stays away';
    it(`5: a write whose coordinator was killed after W acks reaches the third replica ${how}`, async () => {
      await begin(3);
      cluster.network.cut('kv-0', 'kv-2');
      await cluster.time.advance(3000);
      await cluster.put(0, 'a', 'acknowledged');
      cluster.kill(0);
      cluster.network.heal();
      expect(stored(2, 'a')).to.equal(undefined);
      if (returns) await cluster.start(0);
      else await cluster.time.advance(3000);
      // Nobody reads it meanwhile: a read would bring it there by itself.
      const pulled = cluster.node(2).counters.get('pulled_records') ?? 0;
      await cluster.time.until(
        'the third replica has it',
        () => stored(2, 'a')?.value.toString() === 'acknowledged',
        15_000,
      );
      if (returns) expect(cluster.node(2).counters.get('pulled_records') ?? 0).to.equal(pulled);
    });
  }

  it('5: a write whose coordinator was killed after W acks is readable at QUORUM throughout', async () => {
    await begin(3);
    cluster.network.cut('kv-0', 'kv-2');
    await cluster.time.advance(3000);
    await cluster.put(0, 'a', 'acknowledged');
    cluster.kill(0);
    cluster.network.heal();
    for (const index of [2, 1]) expect(await cluster.get(index, 'a')).to.equal('acknowledged');
    await cluster.start(0);
    for (const index of [2, 1, 0]) expect(await cluster.get(index, 'a')).to.equal('acknowledged');
  });

  for (const { consistency, found, what } of [
    { consistency: 'ONE', found: undefined, what: 'may cost what was acknowledged at ONE' },
    { consistency: 'QUORUM', found: 'acknowledged', what: 'costs nothing acknowledged at QUORUM' },
  ] as const) {
    it(`6: the lost disk of a coordinator ${what}`, async () => {
      await begin(3);
      cluster.network.cut('kv-0', 'kv-2');
      if (consistency === 'ONE') cluster.network.cut('kv-0', 'kv-1');
      await cluster.time.advance(3000);
      await cluster.put(0, 'a', 'acknowledged', { consistency });
      cluster.kill(0);
      cluster.wipe(0);
      cluster.network.heal();
      await cluster.start(0);
      await cluster.inSync();
      for (const index of [0, 1, 2]) expect(await cluster.get(index, 'a')).to.equal(found);
      await sameEverywhere(cluster);
    });
  }

  it('7: a minority refuses QUORUM and takes ONE, and all digests are equal within seconds of the healing', async () => {
    await begin(3);
    for (let number = 0; number < 20; number += 1) await cluster.put(0, `key-${number}`, 'before');
    cluster.network.isolate('kv-0', cluster.names);
    await cluster.time.advance(3000);
    expect(await codeOf(cluster.put(0, 'key-0', 'minority'))).to.equal('UNAVAILABLE');
    expect(await codeOf(cluster.get(0, 'key-0'))).to.equal('UNAVAILABLE');
    for (let number = 0; number < 10; number += 1) {
      await cluster.put(0, `key-${number}`, 'minority', { consistency: 'ONE' });
      await cluster.put(1, `key-${number + 10}`, 'majority');
    }
    expect(haveEqualDigests(cluster)).to.equal(false);
    cluster.network.heal();
    await cluster.time.until('all digests are equal', () => haveEqualDigests(cluster), 10_000);
    for (let number = 0; number < 20; number += 1) {
      expect(await cluster.get(2, `key-${number}`)).to.equal(number < 10 ? 'minority' : 'majority');
    }
  });

  it('8: five nodes of which two were just taken away serve what has a quorum left and call nothing missing', async () => {
    cluster = new ReplicaCluster(5);
    const ring = Array.from({ length: PARTITIONS }, (_, partition) =>
      [0, 1, 2].map((step) => (partition + step) % 5),
    );
    await cluster.begin({ replicationFactor: 3, assignment: ring });
    const keys = Array.from({ length: 60 }, (_, number) => `key-${number}`);
    for (const [number, key] of keys.entries()) await cluster.put(number % 5, key, key);
    for (const index of [3, 4]) cluster.kill(index);
    await cluster.time.advance(3000);
    const answers = new Set<string>();
    for (const [number, key] of keys.entries()) {
      const left = (ring[partitionOf(Buffer.from(key), PARTITIONS)] ?? []).filter(
        (index) => index < 3,
      ).length;
      const read = cluster.get(number % 3, key);
      if (left >= 2) expect(await read).to.equal(key);
      else expect(await codeOf(read)).to.equal('UNAVAILABLE');
      answers.add(left >= 2 ? 'served' : 'refused');
    }
    expect([...answers].sort()).to.deep.equal(['refused', 'served']);
    for (const { peers } of cluster.runningReplicas().map((replica) => replica.status())) {
      const away = peers.filter(({ connected }) => !connected).map(({ nodeId }) => nodeId);
      expect(away).to.deep.equal(['kv-3', 'kv-4']);
    }
    // Their volumes were kept.
    for (const index of [3, 4]) await cluster.start(index);
    await cluster.inSync();
    for (const key of keys) expect(await cluster.get(0, key)).to.equal(key);
  });

  it('9: scaling up again onto the volume of a member that had left begins blank, under a new incarnation', async () => {
    await begin(3);
    await cluster.put(0, 'gone', 'old', { consistency: 'ALL' });
    await cluster.put(0, 'kept', 'old', { consistency: 'ALL' });
    const retired = [{ nodeId: 'kv-2', incarnation: incarnationOf(2) }];
    await moveAll(cluster, [0, 1, 2], [0, 1]);
    await cluster.stop(2);
    await proposeEverywhere(
      cluster,
      cluster.nextMap({
        members: leaveOut(2),
        retired,
        assignment: Array.from({ length: PARTITIONS }, () => [0, 1]),
      }),
    );
    await cluster.delete(0, 'gone');
    await cluster.put(0, 'kept', 'new');
    await comesBackBlank(2);
    await moveAll(cluster, [0, 1], [0, 1, 2], { retired });
    await cluster.inSync();
    expect(incarnationOf(2)).to.not.equal(retired[0]?.incarnation);
    await nobodyHas('gone');
    for (const index of [0, 1, 2]) expect(await cluster.get(index, 'kept', 'ONE')).to.equal('new');
    await sameEverywhere(cluster);
  });

  it('10: a volume rolled back takes a new incarnation, no old version wins, and its first writes count', async () => {
    await begin(3);
    for (let number = 0; number < 10; number += 1) await cluster.put(2, `key-${number}`, 'old');
    const snapshot = cluster.copyOfVolumes(2);
    for (let number = 0; number < 10; number += 1) await cluster.put(2, `key-${number}`, 'new');
    await cluster.time.advance(1000);
    const before = incarnationOf(2);
    cluster.kill(2);
    await cluster.start(2, snapshot);
    await cluster.time.until('it knows', () => incarnationOf(2) !== before);
    // Nothing of its own is served before it has merged, whoever is asked.
    const early: unknown = await cluster.get(2, 'key-0', 'ONE').catch((error: unknown) => error);
    if (early !== 'new') expect(early).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
    await cluster.connected();
    expect(await cluster.get(2, 'key-0', 'ONE')).to.equal('new');
    await cluster.time.until('it serves', () => cluster.replica(2).notReadyReason === undefined);
    await cluster.put(2, 'key-0', 'first of the new incarnation');
    await cluster.put(2, 'unheard of', 'first of the new incarnation');
    await sameEverywhere(cluster);
    for (const index of [0, 1, 2]) {
      for (const key of ['key-0', 'unheard of']) {
        expect(await cluster.get(index, key, 'ONE')).to.equal('first of the new incarnation');
      }
      for (let number = 1; number < 10; number += 1) {
        expect(await cluster.get(index, `key-${number}`, 'ONE')).to.equal('new');
      }
    }
  });
});
