import { expect } from 'chai';
import { type ClusterMap, type MapContent, sealMap } from '../../../model/cluster-map.ts';
import {
  holdsPartition,
  isIncoming,
  movingOwners,
  newOwners,
  oldOwners,
  partitionsHeldBy,
  replicaSets,
  sharedPartitions,
} from '../../../model/replica-sets.ts';
import { memberNamed } from '../../support/member.ts';

function mapWith(changes: Partial<MapContent>): ClusterMap {
  return sealMap({
    clusterId: '0'.repeat(32),
    namespace: 'default',
    name: 'kv',
    epoch: 1,
    partitions: 3,
    replicationFactor: 2,
    initialised: true,
    members: ['kv-0', 'kv-1', 'kv-2', 'kv-3'].map((nodeId) => memberNamed(nodeId)),
    retired: [],
    assignment: [
      [0, 1],
      [1, 2],
      [2, 0],
    ],
    ...changes,
  });
}

const moving = (phase: number): ClusterMap =>
  mapWith({ moving: { phase, partitions: [{ partition: 1, oldReplicas: [1, 2], newReplicas: [3, 1] }] } });

describe('replica sets', () => {
  it('writes to, reads from and keeps at the replicas while nothing moves', () => {
    const replicas = ['kv-1', 'kv-2'];
    expect(replicaSets(mapWith({}), 1)).to.deep.equal({
      write: [replicas],
      read: replicas,
      holders: replicas,
    });
  });

  for (const [phase, read] of [
    [1, ['kv-1', 'kv-2']],
    [2, ['kv-3', 'kv-1']],
  ] as const) {
    it(`writes to both sides of a move in phase ${phase} and reads from ${read.join(' and ')}`, () => {
      expect(replicaSets(moving(phase), 1)).to.deep.equal({
        write: [
          ['kv-1', 'kv-2'],
          ['kv-3', 'kv-1'],
        ],
        read,
        holders: ['kv-1', 'kv-2', 'kv-3'],
      });
      expect(replicaSets(moving(phase), 0).holders).to.deep.equal(['kv-0', 'kv-1']);
    });
  }

  it('answers the same object for the same map object', () => {
    const map = moving(1);
    expect(replicaSets(map, 1)).to.equal(replicaSets(map, 1));
  });

  it('lists what a member keeps and what two members share, moves included', () => {
    const map = moving(1);
    expect(partitionsHeldBy(map, 'kv-3')).to.deep.equal([1]);
    expect(partitionsHeldBy(map, 'kv-2')).to.deep.equal([1, 2]);
    expect(partitionsHeldBy(map, 'nobody')).to.deep.equal([]);
    expect(sharedPartitions(map, 'kv-2', 'kv-3')).to.deep.equal([1]);
    expect(sharedPartitions(map, 'kv-0', 'kv-3')).to.deep.equal([]);
    expect(holdsPartition(map, 'kv-3', 1)).to.equal(true);
    expect(holdsPartition(map, 'kv-3', 0)).to.equal(false);
  });

  it('tells both sides of a move, and who comes in blank', () => {
    const map = moving(2);
    expect(movingOwners(map, 0)).to.equal(undefined);
    expect(movingOwners(map, 1)?.phase).to.equal(2);
    expect(oldOwners(map, 1)).to.deep.equal(['kv-1', 'kv-2']);
    expect(newOwners(map, 1)).to.deep.equal(['kv-3', 'kv-1']);
    expect(oldOwners(map, 0)).to.deep.equal(['kv-0', 'kv-1']);
    expect(newOwners(map, 0)).to.deep.equal(['kv-0', 'kv-1']);
    expect(['kv-0', 'kv-1', 'kv-2', 'kv-3'].filter((nodeId) => isIncoming(map, nodeId, 1))).to.deep.equal([
      'kv-3',
    ]);
  });

  it('refuses a partition that the map does not have', () => {
    expect(() => replicaSets(mapWith({}), 3)).to.throw(RangeError, 'no partition 3 in a map of 3 partitions');
  });
});
