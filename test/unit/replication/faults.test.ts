import { expect } from 'chai';
import { randomFates } from '../../support/memory-disk.ts';
import { ReplicaCluster } from '../../support/replica-cluster.ts';
import { seededRandom } from '../../support/seeded-random.ts';

type Fault = 'kill -9' | 'power loss' | 'wipe' | 'cut';

/** The last acknowledged write of a key; `rivals` were under way or of unknown outcome when it began, and may end above it. */
interface LastAcked {
  readonly value: number;
  readonly rivals: readonly number[];
}

/**
 * A writer over few keys, one write after the other, while one node after the other has a fault. The values are the
 * numbers of the writes.
 */
async function writeUnderFaults(cluster: ReplicaCluster, faults: readonly Fault[], seed: number) {
  const random = seededRandom(seed);
  const pick = (bound: number): number => Math.floor(random.fraction() * bound);
  const acked = new Map<string, LastAcked>();
  const underWay = new Set<number>();
  const unknown = new Set<number>();
  let number = 0;
  const write = async (): Promise<void> => {
    const up = [...cluster.nodes.keys()].filter((index) => cluster.node(index).running !== undefined);
    const coordinator = up[pick(up.length)] ?? 0;
    const key = `key-${pick(12)}`;
    number += 1;
    const value = number;
    const rivals = [...underWay, ...unknown];
    const deadlineMs = cluster.time.monotonicMs + 300;
    await cluster.put(coordinator, key, String(value), { deadlineMs }).then(
      () => acked.set(key, { value, rivals }),
      () => unknown.add(value),
    );
  };
  for (const fault of faults) {
    for (let count = 10 + pick(20); count > 0; count -= 1) await write();
    const victim = pick(cluster.nodes.length);
    // Some writes are under way on all nodes when the fault strikes.
    for (const index of cluster.nodes.keys()) {
      number += 1;
      const value = number;
      underWay.add(value);
      cluster
        .replica(index)
        .engine.put({
          key: Buffer.from(`key-${pick(12)}`),
          value: Buffer.from(String(value)),
          ttlMs: undefined,
          requestId: undefined,
          consistency: 'QUORUM',
          deadlineMs: cluster.time.monotonicMs + 300,
        })
        .catch(() => unknown.add(value))
        .finally(() => underWay.delete(value));
    }
    await cluster.time.advance(pick(12));
    if (fault === 'cut') cluster.network.isolate(cluster.node(victim).nodeId, cluster.names);
    else cluster.kill(victim, fault === 'power loss' ? randomFates(random) : undefined);
    if (fault === 'wipe') cluster.wipe(victim);
    for (let count = pick(15); count > 0; count -= 1) await write();
    if (fault === 'cut') cluster.network.heal();
    else await cluster.start(victim);
    for (let count = pick(10); count > 0; count -= 1) await write();
    await cluster.inSync();
  }
  return acked;
}

describe('faults under a writer', () => {
  const cases: { name: string; faults: Fault[] }[] = [
    { name: 'kill -9', faults: ['kill -9', 'kill -9', 'kill -9', 'kill -9'] },
    { name: 'power loss', faults: ['power loss', 'power loss', 'power loss'] },
    { name: 'a wiped volume', faults: ['wipe', 'wipe', 'wipe'] },
    { name: 'a cut network', faults: ['cut', 'cut', 'cut'] },
    { name: 'one after the other', faults: ['kill -9', 'wipe', 'cut', 'power loss', 'wipe', 'kill -9'] },
  ];
  for (const { name, faults } of cases) {
    for (const seed of [1, 2]) {
      it(`lose no acknowledged write and leave equal replicas: ${name} (seed ${seed})`, async () => {
        const cluster = new ReplicaCluster(3, { seed, diskMs: 3 });
        try {
          await cluster.begin();
          const acked = await writeUnderFaults(cluster, faults, seed);
          // Writes that were under way may have begun after the last heartbeat: heads are known with the next one.
          await cluster.time.advance(1000);
          await cluster.inSync();
          for (const [key, { value, rivals }] of acked) {
            const found = Number(await cluster.get(0, key, 'ONE'));
            if (!rivals.includes(found)) expect(found, key).to.be.at.least(value);
          }
          const contents = await cluster.contents(0);
          expect(await cluster.contents(1)).to.deep.equal(contents);
          expect(await cluster.contents(2)).to.deep.equal(contents);
        } finally {
          cluster.end();
        }
      });
    }
  }
});
