import { expect } from 'chai';
import {
  compareMaps,
  hashMatches,
  quorumOf,
  replicasOf,
  sealMap,
  type MapContent,
  type Member,
} from '../../../model/cluster-map.ts';
import { place } from '../../../model/placement.ts';
import { memberNamed } from '../../support/member.ts';

const member = (index: number): Member => memberNamed(`kv-${index}`);

function content(overrides: Partial<MapContent> = {}): MapContent {
  const members = [member(0), member(1), member(2)];
  return {
    clusterId: '0'.repeat(32),
    namespace: 'default',
    name: 'kv',
    epoch: 1,
    partitions: 8,
    replicationFactor: 3,
    initialised: false,
    members,
    retired: [],
    assignment: place({ members, partitions: 8, replicationFactor: 3 }),
    ...overrides,
  };
}

describe('cluster map', () => {
  it('has a hash of its content, whatever the order of its fields', () => {
    const sealed = sealMap(content());
    const reordered = sealMap(
      Object.fromEntries(Object.entries(content()).reverse()) as unknown as MapContent,
    );
    expect(reordered.hash).to.equal(sealed.hash);
    expect(hashMatches(sealed)).to.equal(true);
    expect(hashMatches({ ...sealed, epoch: 2 })).to.equal(false);
  });

  for (const [order, overrides] of [
    ['same', {}],
    ['newer', { epoch: 2 }],
    ['older', { epoch: 0 }],
    ['conflict', { initialised: true }],
    ['foreign', { clusterId: '1'.repeat(32), epoch: 9 }],
  ] as const) {
    it(`calls a map ${order} than the held one by epoch, hash and cluster`, () => {
      expect(compareMaps(sealMap(content(overrides)), sealMap(content()))).to.equal(order);
    });
  }

  it('takes any map when it holds none', () => {
    expect(compareMaps(sealMap(content()), undefined)).to.equal('newer');
  });

  it('names the replicas of a partition, the preferred coordinator first', () => {
    const map = sealMap(content());
    expect(replicasOf(map, 1).map(({ nodeId }) => nodeId)).to.deep.equal(['kv-1', 'kv-2', 'kv-0']);
    expect(replicasOf(map, 8)).to.deep.equal([]);
  });

  it('needs a majority for a quorum', () => {
    expect([1, 2, 3, 4, 5, 6, 7].map(quorumOf)).to.deep.equal([1, 2, 2, 3, 3, 4, 4]);
  });
});
