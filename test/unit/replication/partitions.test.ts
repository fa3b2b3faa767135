import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import type { ClusterMap } from '../../../model/cluster-map.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import { newOwners, oldOwners, partitionsHeldBy, replicaSets } from '../../../model/replica-sets.ts';
import { PARTITIONS, ReplicaCluster } from '../../support/replica-cluster.ts';

/** Each partition on three of five nodes, one after the other. */
const RING = Array.from({ length: PARTITIONS }, (_, partition) => [
  partition % 5,
  (partition + 1) % 5,
  (partition + 2) % 5,
]);

async function ring(options: ConstructorParameters<typeof ReplicaCluster>[1] = {}): Promise<ReplicaCluster> {
  const cluster = new ReplicaCluster(5, options);
  await cluster.begin({ replicationFactor: 3, assignment: RING });
  return cluster;
}

const keyOf = (number: number): string => `key-${number}`;

async function writeKeys(cluster: ReplicaCluster, count: number, prefix = 'v'): Promise<void> {
  for (let number = 0; number < count; number += 1) {
    await cluster.put(number % 5, keyOf(number), `${prefix}-${number}`);
  }
}

async function expectKeys(cluster: ReplicaCluster, count: number, prefix = 'v'): Promise<void> {
  for (let number = 0; number < count; number += 1) {
    expect(await cluster.get((number + 2) % 5, keyOf(number)), keyOf(number)).to.equal(`${prefix}-${number}`);
  }
}

function storedPartitions(cluster: ReplicaCluster, index: number): readonly number[] {
  const store = cluster.store(index);
  return Array.from({ length: PARTITIONS }, (_, partition) => partition).filter((partition) =>
    store.digest(partition).leaves.some((sum) => sum !== 0),
  );
}

async function proposeEverywhere(cluster: ReplicaCluster, map: ClusterMap): Promise<void> {
  for (const [index, { running }] of cluster.nodes.entries()) {
    if (running !== undefined) await cluster.propose(index, map);
  }
}

describe('a cluster with fewer copies than members', () => {
  let cluster: ReplicaCluster;

  afterEach(() => cluster.end());

  it('takes operations at every node and stores them at the replicas only', async () => {
    cluster = await ring();
    await writeKeys(cluster, 60);
    await expectKeys(cluster, 60);
    await cluster.inSync();
    for (const index of cluster.nodes.keys()) {
      expect(storedPartitions(cluster, index)).to.deep.equal(partitionsHeldBy(cluster.map, `kv-${index}`));
    }
    expect(cluster.node(0).counters.get('forwarded')).to.be.greaterThan(0);
    // Two copies of each write are on their way, not four.
    const sent = cluster.nodes.map(({ counters }) => counters.get('entries_sent') ?? 0);
    expect(sent.reduce((sum, count) => sum + count)).to.be.at.most(2 * 60);
  });

  it('lists every key once at every node', async () => {
    cluster = await ring();
    await writeKeys(cluster, 60);
    for (const index of cluster.nodes.keys()) {
      const page = await cluster.time.run(
        cluster.replica(index).engine.listKeys({
          prefix: Buffer.alloc(0),
          startAfter: undefined,
          limit: 1000,
          maxBytes: 1_000_000,
          consistency: 'QUORUM',
          deadlineMs: cluster.time.monotonicMs + 5000,
        }),
      );
      expect(page.keys.map(String)).to.deep.equal(Array.from({ length: 60 }, (_, n) => keyOf(n)).sort());
    }
  });

  it('goes on with one replica of a partition lost, and says so with two', async () => {
    cluster = await ring();
    await writeKeys(cluster, 20);
    const partition = partitionOf(Buffer.from(keyOf(0)), PARTITIONS);
    const [a = 0, b = 0] = RING[partition] ?? [];
    const outside = [0, 1, 2, 3, 4].find((index) => RING[partition]?.includes(index) === false) ?? 0;
    cluster.kill(a);
    await cluster.time.advance(3000);
    await cluster.put(outside, keyOf(0), 'again');
    expect(await cluster.get(outside, keyOf(0))).to.equal('again');
    cluster.kill(b);
    await cluster.time.advance(3000);
    const refused: unknown = await cluster.put(outside, keyOf(0), 'x').catch((error: unknown) => error);
    expect(refused).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
    const read: unknown = await cluster.get(outside, keyOf(0)).catch((error: unknown) => error);
    expect(read).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
  });

  it('fills a blank volume from the replicas of each partition', async () => {
    cluster = await ring();
    await writeKeys(cluster, 80);
    cluster.kill(2);
    cluster.wipe(2);
    await cluster.start(2);
    await cluster.inSync();
    expect(storedPartitions(cluster, 2)).to.deep.equal(partitionsHeldBy(cluster.map, 'kv-2'));
    for (const partition of partitionsHeldBy(cluster.map, 'kv-2')) {
      for (const name of replicaSets(cluster.map, partition).holders) {
        const other = cluster.store(Number(name.slice(3)));
        expect(cluster.store(2).digest(partition).root).to.equal(other.digest(partition).root);
      }
    }
  });
});

describe('a move', () => {
  let cluster: ReplicaCluster;
  /** Every partition one node further. */
  const MOVED = RING.map((replicas) => replicas.map((index) => (index + 1) % 5));

  afterEach(() => cluster.end());

  const moving = (phase: number): ClusterMap =>
    cluster.nextMap({
      replicationFactor: 3,
      assignment: RING,
      moving: {
        phase,
        partitions: RING.map((oldReplicas, partition) => ({
          partition,
          oldReplicas,
          newReplicas: MOVED[partition] ?? [],
        })),
      },
    });

  const settled = (epoch: number) =>
    cluster.time.until('all new owners have settled', () =>
      cluster.runningReplicas().every((replica) => replica.status().settledEpoch === epoch),
    );

  it('brings every record to the new owners and then leaves none at the old ones, under writes', async () => {
    cluster = await ring();
    await writeKeys(cluster, 60, 'old');
    const first = moving(1);
    await proposeEverywhere(cluster, first);
    await writeKeys(cluster, 30, 'during');
    await settled(first.epoch);
    for (const partition of RING.keys()) {
      expect(oldOwners(first, partition)).to.not.deep.equal(newOwners(first, partition));
    }
    await proposeEverywhere(cluster, moving(2));
    for (let number = 0; number < 60; number += 1) {
      expect(await cluster.get(number % 5, keyOf(number))).to.equal(
        number < 30 ? `during-${number}` : `old-${number}`,
      );
    }
    await writeKeys(cluster, 10, 'second');
    const last = cluster.nextMap({ replicationFactor: 3, assignment: MOVED });
    await proposeEverywhere(cluster, last);
    await cluster.time.until('nothing is left behind', () =>
      cluster.runningReplicas().every((replica) => replica.status().residualPartitions === 0),
    );
    await cluster.inSync();
    for (const index of cluster.nodes.keys()) {
      expect(storedPartitions(cluster, index)).to.deep.equal(partitionsHeldBy(last, `kv-${index}`));
    }
    for (let number = 0; number < 60; number += 1) {
      const prefix = number < 10 ? 'second' : number < 30 ? 'during' : 'old';
      expect(await cluster.get((number + 3) % 5, keyOf(number))).to.equal(`${prefix}-${number}`);
    }
  });

  it('settles nothing before every member has announced it', async () => {
    cluster = await ring();
    await writeKeys(cluster, 20);
    for (const other of ['kv-0', 'kv-1', 'kv-2', 'kv-3']) cluster.network.cut('kv-4', other);
    await cluster.time.advance(3000);
    const first = moving(1);
    for (const index of [0, 1, 2, 3]) await cluster.propose(index, first);
    await cluster.time.advance(10_000);
    expect([0, 1, 2, 3].map((index) => cluster.replica(index).status().settledEpoch)).to.deep.equal([
      0, 0, 0, 0,
    ]);
    cluster.network.heal();
    await settled(first.epoch);
  });

  it('needs the new owners as well for a write that began before it', async () => {
    cluster = await ring();
    const key = keyOf(0);
    const partition = partitionOf(Buffer.from(key), PARTITIONS);
    const [coordinator = 0] = RING[partition] ?? [];
    const incoming =
      (MOVED[partition] ?? []).find((index) => RING[partition]?.includes(index) === false) ?? 0;
    const stays = (RING[partition] ?? []).filter((index) => index !== coordinator);
    const [near = 0, far = 0] = stays;
    for (const other of [near, far, incoming]) cluster.network.cut(`kv-${coordinator}`, `kv-${other}`);
    const write = cluster.replica(coordinator).engine.put({
      key: Buffer.from(key),
      value: Buffer.from('early'),
      ttlMs: undefined,
      requestId: undefined,
      consistency: 'QUORUM',
      deadlineMs: cluster.time.monotonicMs + 20_000,
    });
    let answered = false;
    write.then(
      () => (answered = true),
      () => (answered = true),
    );
    await cluster.time.advance(50);
    await proposeEverywhere(cluster, moving(1));
    // Two of the three old owners have it now, and one of the new ones.
    cluster.network.join(`kv-${coordinator}`, `kv-${near}`);
    await cluster.time.until(
      'an old owner has it',
      () => cluster.store(near).get(Buffer.from(key)) !== undefined,
    );
    await cluster.time.advance(3000);
    expect(answered).to.equal(false);
    cluster.network.heal();
    const { version } = await cluster.time.run(write);
    const holders = [near, far, incoming].filter(
      (index) => cluster.store(index).get(Buffer.from(key))?.version.wallMs === version.wallMs,
    );
    expect(holders.length).to.be.at.least(2);
  });
});
