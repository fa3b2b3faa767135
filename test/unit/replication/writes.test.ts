import { expect } from 'chai';
import { ReplicaCluster } from '../../support/replica-cluster.ts';

describe('a cluster of three replicas', () => {
  let cluster: ReplicaCluster;

  beforeEach(async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
  });

  afterEach(() => cluster.end());

  it('gives back on every node what was written on one', async () => {
    await cluster.put(0, 'a', '1');
    for (const index of [0, 1, 2]) expect(await cluster.get(index, 'a')).to.equal('1');
  });

  it('ends equal and in sync after writes on all nodes', async () => {
    for (let round = 0; round < 60; round += 1) await cluster.put(round % 3, `k${round % 7}`, `v${round}`);
    await cluster.delete(1, 'k3');
    await cluster.inSync();
    const [first, second, third] = [
      await cluster.contents(0),
      await cluster.contents(1),
      await cluster.contents(2),
    ];
    expect(first).to.have.length(7);
    expect(second).to.deep.equal(first);
    expect(third).to.deep.equal(first);
  });
});
