import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import { FatalError } from '../../../node/cluster/fatal-error.ts';
import { StoreState } from '../../../proto/gen/peer.ts';
import { ReplicaCluster } from '../../support/replica-cluster.ts';

/** Segments of a few kilobytes and a log of a few of them: peers fall off soon. */
const SHORT_LOG = { segmentBytes: 2048, logBytes: 6144, checkpointMs: 20, logKeepMs: 0 };

async function allEqual(cluster: ReplicaCluster): Promise<readonly string[]> {
  await cluster.time.advance(1000);
  await cluster.inSync();
  const contents = await cluster.contents(0);
  for (const index of cluster.nodes.keys()) expect(await cluster.contents(index)).to.deep.equal(contents);
  return contents;
}

async function writeMany(
  cluster: ReplicaCluster,
  index: number,
  count: number,
  prefix: string,
): Promise<void> {
  for (let number = 0; number < count; number += 1) {
    await cluster.put(index, `${prefix}-${number % 40}`, `${prefix}-value-${number}`.padEnd(100, '.'));
  }
}

describe('a member that comes back', () => {
  let cluster: ReplicaCluster;

  afterEach(() => cluster.end());

  it('serves from its own volume when nobody else comes for the time of a failure detection', async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
    await cluster.put(0, 'a', '1', { consistency: 'ALL' });
    for (const index of [0, 1, 2]) cluster.kill(index);
    await cluster.start(1);
    expect(cluster.replica(1).notReadyReason).to.match(/waits for its peers to accept its volume/);
    const early: unknown = await cluster.get(1, 'a', 'ONE').catch((error: unknown) => error);
    expect(early).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
    await cluster.time.advance(2000);
    expect(cluster.replica(1).notReadyReason).to.equal(undefined);
    expect(await cluster.get(1, 'a', 'ONE')).to.equal('1');
  });

  it('catches up from the logs of the others, and they drop what everybody has', async () => {
    cluster = new ReplicaCluster(3, { limits: { segmentBytes: 2048, checkpointMs: 20, logKeepMs: 0 } });
    await cluster.begin();
    await cluster.stop(2);
    await writeMany(cluster, 0, 60, 'a');
    expect(cluster.store(0).logStart).to.equal(0);
    await cluster.start(2);
    expect(await allEqual(cluster)).to.have.length(40);
    expect(
      cluster
        .replica(0)
        .status()
        .peers.map(({ ahead }) => ahead),
    ).to.deep.equal([0, 0]);
    expect(cluster.node(2).counters.get('pulled_records') ?? 0).to.equal(0);
    await cluster.time.until('the log is trimmed', () => cluster.store(0).logStart > 0);
    // Having been trimmed past by acknowledgement is not having fallen off.
    await cluster.stop(2);
    await cluster.start(2);
    await cluster.inSync();
    expect(cluster.node(2).counters.get('pulled_records') ?? 0).to.equal(0);
  });

  it('goes on serving when it fell off the log, and gets by comparison what the log no longer has', async () => {
    cluster = new ReplicaCluster(3, { limits: SHORT_LOG });
    await cluster.begin();
    await cluster.put(0, 'only-early', 'x', { consistency: 'ALL' });
    await cluster.stop(2);
    await writeMany(cluster, 0, 200, 'a');
    expect(cluster.store(0).logStart).to.be.greaterThan(0);
    await cluster.start(2);
    // Everything it ever acknowledged is here.
    await cluster.connected();
    await cluster.time.advance(100);
    expect(cluster.replica(2).notReadyReason).to.equal(undefined);
    expect(await cluster.get(2, 'only-early', 'ONE')).to.equal('x');
    expect(await allEqual(cluster)).to.have.length(41);
    expect(cluster.node(2).counters.get('pulled_records')).to.be.at.least(40);
  });

  it('with a blank volume never says "not found", takes writes, and serves when it has merged', async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
    await writeMany(cluster, 0, 60, 'a');
    cluster.kill(2);
    cluster.wipe(2);
    // One source is not enough: which of the two took part in a QUORUM write is not known.
    cluster.network.cut('kv-2', 'kv-1');
    await cluster.start(2);
    await cluster.time.until(
      'it has the map',
      () => cluster.replica(2).status().state === StoreState.REBUILDING,
    );
    await cluster.time.advance(5000);
    const reason = cluster.replica(2).notReadyReason;
    expect(reason)
      .to.match(/needs 2 intact peers/)
      .and.to.match(/waits for kv-1/);
    // It answers by the replica in reach, or not at all.
    expect(await cluster.get(2, 'a-1', 'ONE')).to.match(/^a-value-41/);
    const refused: unknown = await cluster.get(2, 'a-1', 'ALL').catch((error: unknown) => error);
    expect(refused).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
    // Its disk counts when all are asked for; but what was acknowledged before it cannot know, so of a quorum two others
    // must be readable, or a write could end below an earlier one.
    await cluster.put(0, 'during', 'rebuild', { consistency: 'ALL' });
    cluster.kill(1);
    await cluster.time.advance(3000);
    const write: unknown = await cluster.put(0, 'never', 'x').catch((error: unknown) => error);
    expect(write).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
    const read: unknown = await cluster.get(0, 'a-1').catch((error: unknown) => error);
    expect(read).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
    cluster.network.heal();
    await cluster.start(1);
    expect(await allEqual(cluster)).to.have.length(41);
    expect(await cluster.get(2, 'during', 'ONE')).to.equal('rebuild');
  });

  it('with a blank volume does not serve by a first map that a peer was left with', async () => {
    cluster = new ReplicaCluster(3);
    for (const index of [0, 1, 2]) await cluster.start(index);
    const first = cluster.nextMap({ initialised: false });
    for (const index of [0, 1, 2]) await cluster.propose(index, first);
    await cluster.connected();
    cluster.network.cut('kv-0', 'kv-1');
    cluster.network.cut('kv-0', 'kv-2');
    const second = cluster.nextMap();
    for (const index of [1, 2]) await cluster.propose(index, second);
    await cluster.put(1, 'acknowledged', 'by kv-1 and kv-2');
    cluster.kill(2);
    cluster.wipe(2);
    cluster.network.cut('kv-2', 'kv-1');
    cluster.network.join('kv-2', 'kv-0');
    await cluster.start(2);
    await cluster.time.until('it has the map of kv-0', () => cluster.replica(2).map?.epoch === first.epoch);
    await cluster.time.advance(5000);
    for (const index of [0, 2]) {
      const read: unknown = await cluster.get(index, 'acknowledged').catch((error: unknown) => error);
      expect(read).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
    }
    cluster.network.heal();
    await allEqual(cluster);
    expect(await cluster.get(2, 'acknowledged', 'ONE')).to.equal('by kv-1 and kv-2');
  });

  it('with a blank volume serves by force what it has when those it waits for do not come back', async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
    await cluster.put(0, 'everywhere', 'x', { consistency: 'ALL' });
    for (const index of [1, 2]) cluster.kill(index);
    cluster.wipe(2);
    await cluster.start(2);
    await cluster.time.advance(20_000);
    const reason = cluster.replica(2).notReadyReason;
    expect(reason).to.match(/waits for kv-1/);
    const waiting = await cluster.time.run(cluster.replica(2).forceActivate(true));
    expect(waiting).to.have.length(8);
    expect(cluster.replica(2).notReadyReason, 'a dry run changes nothing').to.equal(reason);
    expect(await cluster.time.run(cluster.replica(2).forceActivate(false))).to.deep.equal(waiting);
    expect(cluster.replica(2).notReadyReason).to.equal(undefined);
    await cluster.put(2, 'again', 'y');
    expect(await cluster.get(2, 'again', 'ONE')).to.equal('y');
    await cluster.start(1);
    await allEqual(cluster);
    expect(await cluster.get(2, 'everywhere', 'ONE')).to.equal('x');
  });

  it('with a blank volume alone says that the data is lost', async () => {
    cluster = new ReplicaCluster(1);
    await cluster.begin();
    await cluster.put(0, 'a', '1');
    cluster.kill(0);
    cluster.wipe(0);
    await cluster.start(0);
    await cluster.propose(0, cluster.map);
    await cluster.time.advance(2000);
    expect(cluster.replica(0).notReadyReason).to.match(/no other member exists/);
  });

  for (const startsSince of [1, 2, 3]) {
    it(`rolled back by ${startsSince} starts takes a new incarnation, merges, and its new writes count`, async () => {
      cluster = new ReplicaCluster(3);
      await cluster.begin();
      await writeMany(cluster, 2, 20, 'old');
      await cluster.stop(2);
      const snapshot = cluster.copyOfVolumes(2);
      for (let starts = 0; starts < startsSince; starts += 1) {
        await cluster.start(2);
        await cluster.inSync();
        await writeMany(cluster, 2, 20, 'new');
        await cluster.stop(2);
      }
      await cluster.start(2, snapshot);
      const { volume } = cluster.replica(2).status();
      if (startsSince === 1) {
        // Its start number is that of the process before it: it looks like a second one, ends, and is started again.
        await cluster.time.until('it is fenced', () => cluster.node(2).fatal !== undefined);
        cluster.kill(2);
        await cluster.start(2);
      }
      const renewed = (): boolean => cluster.replica(2).status().volume?.incarnation !== volume?.incarnation;
      await cluster.time.until('it knows', renewed);
      expect(cluster.replica(2).notReadyReason).to.match(/needs 2 intact peers to fill 8 partitions/);
      await cluster.inSync();
      await writeMany(cluster, 2, 5, 'after');
      expect(await allEqual(cluster)).to.have.length(45);
      expect(await cluster.get(0, 'after-1', 'ONE')).to.match(/^after-value-1/);
    });
  }

  it('rolled back within a start is found out as well', async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
    await writeMany(cluster, 2, 10, 'old');
    const snapshot = cluster.copyOfVolumes(2);
    await writeMany(cluster, 2, 10, 'new');
    await cluster.time.advance(1000);
    const before = cluster.replica(2).status().volume?.incarnation;
    cluster.kill(2);
    await cluster.start(2, snapshot);
    await cluster.time.until('it knows', () => cluster.replica(2).status().volume?.incarnation !== before);
    expect(await allEqual(cluster)).to.have.length(20);
  });

  it('with an older volume after another had taken its place must set it aside', async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
    await cluster.put(2, 'a', '1');
    cluster.kill(2);
    const old = cluster.node(2).volumes;
    cluster.wipe(2);
    await cluster.start(2);
    await cluster.inSync();
    cluster.kill(2);
    await cluster.start(2, old);
    await cluster.time.until('it is told', () => cluster.node(2).fatal !== undefined);
    expect(cluster.node(2).fatal).to.be.instanceOf(FatalError).with.property('kind', 'retired');
  });
});

describe('a second process with the identity of a member', () => {
  let cluster: ReplicaCluster;

  beforeEach(async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
    await cluster.put(0, 'a', '1');
  });

  afterEach(() => cluster.end());

  for (const index of [0, 2]) {
    it(`on a copy of the volume of kv-${index} is fenced while the first goes on`, async () => {
      const copy = cluster.copyOfVolumes(index);
      const second = await cluster.launch(cluster.node(index), `kv-${index}`, copy);
      const stopped: unknown[] = [];
      second.replica.fatal.catch((error: unknown) => stopped.push(error));
      await cluster.time.until('the copy is fenced', () => stopped.length > 0);
      expect(stopped[0]).to.be.instanceOf(FatalError).with.property('kind', 'copied-volume');
      expect(cluster.node(index).fatal).to.equal(undefined);
      await cluster.put(index, 'b', '2');
      second.scheduler.stop();
    });
  }

  it('with the same start number and another nonce is fenced at its first Hello', async () => {
    // A copy that is behind would be taken for one that was rolled back.
    await cluster.put(0, 'b', '2', { consistency: 'ALL' });
    await cluster.stop(2);
    const copy = cluster.copyOfVolumes(2);
    await cluster.start(2);
    await cluster.inSync();
    cluster.kill(2);
    await cluster.start(2, copy);
    await cluster.time.until('it is fenced', () => cluster.node(2).fatal !== undefined, 5000);
    expect(cluster.node(2).fatal).to.be.instanceOf(FatalError).with.property('kind', 'copied-volume');
  });

  it('on the volume of another member refuses to start, naming both', async () => {
    cluster.kill(1);
    const error: unknown = await cluster
      .launch(cluster.node(1), 'kv-9', cluster.node(1).volumes)
      .catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(KvError).with.property('code', 'FAILED_PRECONDITION');
    expect((error as KvError).message)
      .to.match(/kv-1/)
      .and.to.match(/kv-9/);
  });
});

describe('cluster maps', () => {
  let cluster: ReplicaCluster;

  beforeEach(async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
  });

  afterEach(() => cluster.end());

  it('reach every member from one of them, and a blank one that they name', async () => {
    const map = cluster.nextMap();
    await cluster.propose(1, map);
    await cluster.time.until('all have it', () =>
      cluster.runningReplicas().every((replica) => replica.map?.epoch === map.epoch),
    );
    cluster.kill(0);
    cluster.wipe(0);
    await cluster.start(0);
    await cluster.time.until('the blank one has it', () => cluster.replica(0).map?.hash === map.hash);
  });

  it('of an older epoch, another hash, another cluster or name are refused', async () => {
    const held = cluster.map;
    const refused = async (change: Parameters<ReplicaCluster['nextMap']>[0], message: RegExp) => {
      const { accepted, epoch, message: why } = await cluster.propose(0, cluster.nextMap(change));
      expect([accepted, epoch]).to.deep.equal([false, held.epoch]);
      expect(why).to.match(message);
    };
    await refused({ epoch: held.epoch - 1 }, /older/);
    await refused({ epoch: held.epoch, replicationFactor: 5 }, /another hash/);
    expect(cluster.node(0).counters.get('map_conflicts')).to.equal(1);
    await refused({ epoch: 9, clusterId: 'f'.repeat(32) }, /of cluster ffff/);
    await refused({ epoch: 9, namespace: 'other' }, /other\/kv/);
    await refused({ epoch: 9, partitions: 16 }, /16 partitions/);
    const { accepted } = await cluster.propose(0, { ...held, epoch: 9 });
    expect(accepted).to.equal(false);
  });

  it('of one epoch with two hashes separate the members that hold them', async () => {
    cluster.network.isolate('kv-0', cluster.names);
    await cluster.time.advance(3000);
    await cluster.propose(0, cluster.nextMap({ epoch: 7 }));
    await cluster.propose(1, cluster.nextMap({ epoch: 7, replicationFactor: 4 }));
    cluster.network.heal();
    await cluster.time.until('the conflict is noticed', () =>
      [0, 1, 2].some((index) => (cluster.node(index).counters.get('map_conflicts') ?? 0) > 0),
    );
    await cluster.time.advance(3000);
    expect(
      cluster
        .replica(0)
        .status()
        .peers.some(({ connected }) => connected),
    ).to.equal(false);
    await cluster.propose(0, cluster.nextMap({ epoch: 8 }));
    await cluster.time.until('a newer one unites them', () => cluster.replica(2).map?.epoch === 8);
    await cluster.inSync();
  });

  it('that retire an incarnation end its node', async () => {
    const incarnation = cluster.replica(2).status().volume?.incarnation ?? 0;
    await cluster.propose(0, cluster.nextMap({ retired: [{ nodeId: 'kv-2', incarnation }] }));
    await cluster.time.until('it is told', () => cluster.node(2).fatal !== undefined);
    expect(cluster.node(2).fatal).to.be.instanceOf(FatalError).with.property('kind', 'retired');
  });
});
