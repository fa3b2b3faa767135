import { expect } from 'chai';
import { hashMatches } from '../../../model/cluster-map.ts';
import { changed } from '../../../model/moves/change-map.ts';
import { movingOwners } from '../../../model/replica-sets.ts';
import { mapOf, membersAt, readSets } from '../../support/map-moves.ts';

const map = mapOf({
  members: membersAt(1, 3),
  partitions: 2,
  assignment: [[0], [1]],
  moving: { phase: 1, partitions: [{ partition: 1, oldReplicas: [1], newReplicas: [0] }] },
});

describe('the map of the next epoch', () => {
  it('brings along who holds and who gets what when members change', () => {
    const next = changed(map, { members: membersAt(0, 2, 1, 3) });
    expect(readSets(next)).to.deep.equal([['kv-1'], ['kv-3']]);
    expect(movingOwners(next, 1)).to.deep.equal({ phase: 1, oldOwners: ['kv-3'], newOwners: ['kv-1'] });
    expect(next.epoch).to.equal(map.epoch + 1);
    expect(hashMatches(next)).to.equal(true);
  });

  it('keeps a move unless it is told otherwise', () => {
    expect(changed(map, { replicationFactor: 2 }).moving).to.deep.equal(map.moving);
    expect(changed(map, { moving: 'none' })).to.not.have.property('moving');
  });

  it('lets nobody go who still has partitions, and contradicts itself nowhere', () => {
    for (const [change, message] of [
      [{ members: membersAt(1) }, 'kv-3 leaves the map and still has partitions'],
      [{ assignment: [[0], []] }, 'the next cluster map contradicts itself: partition 1 has no owner'],
    ] as const) {
      expect(() => changed(map, change))
        .to.throw(message)
        .with.property('code', 'INTERNAL');
    }
  });
});
