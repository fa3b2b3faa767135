import { expect } from 'chai';
import type { ClusterMap } from '../../../model/cluster-map.ts';
import { problemWithMap } from '../../../model/map-check.ts';
import { cancelMove, markDown } from '../../../model/map-commands.ts';
import { type DesiredCluster, type MoveStep, nextStep, type Reports } from '../../../model/moves.ts';
import { partitionsHeldBy } from '../../../model/replica-sets.ts';
import { mapOf, membersAt, playedOut, readSets, reportsOn, wanting } from '../../support/map-moves.ts';
import { movedReplicas } from '../../support/placement-checks.ts';

function published(map: ClusterMap, desired: DesiredCluster, reports: Reports = reportsOn(map)): ClusterMap {
  return expectPublish(nextStep(map, desired, reports)).map;
}

function expectPublish(step: MoveStep): MoveStep & { readonly kind: 'publish' } {
  if (step.kind !== 'publish') throw new Error(`does not publish: ${JSON.stringify(step)}`);
  expect(problemWithMap(step.map)).to.equal(undefined);
  return step;
}

function expectWait(step: MoveStep, why: RegExp | string, waitingFor: readonly string[]): void {
  if (step.kind !== 'wait') throw new Error(`does not wait: ${step.kind}`);
  expect(step.why).to.match(why instanceof RegExp ? why : new RegExp(`^${why.replaceAll(/[()]/g, '\\$&')}$`));
  expect(step.waitingFor).to.deep.equal(waitingFor);
}

const names = (map: ClusterMap): readonly string[] => map.members.map(({ nodeId }) => nodeId);
const states = (map: ClusterMap): readonly string[] => map.members.map(({ state }) => state);

/** Three nodes with two copies, and a fourth that has joined and waits for its share in phase 1. */
const joined = mapOf({
  members: membersAt(0, 1, 2, 3),
  replicationFactor: 2,
  partitions: 12,
  assignment: mapOf({ replicationFactor: 2, partitions: 12 }).assignment,
});
const phase1 = published(joined, wanting(joined));
const phase2 = published(phase1, wanting(joined));
const movingNow = phase1.moving!.partitions;

describe('the next step of a map', () => {
  it('is none when the map is as desired', () => {
    expect(nextStep(mapOf(), wanting(mapOf()), reportsOn(mapOf()))).to.deep.equal({ kind: 'done' });
  });

  it('marks the first map initialised when everybody has it and has begun with it, and nothing before', () => {
    const first = mapOf({ initialised: false });
    const desired = wanting(first, { replicationFactor: 2 });
    expectWait(
      nextStep(first, desired, reportsOn(first, { 'kv-1': 'silent' })),
      'waiting for every member to take the map of epoch 7: kv-1 does not answer',
      ['kv-1'],
    );
    expectWait(
      nextStep(first, desired, reportsOn(first, { 'kv-2': { fillingPartitions: 4 } })),
      'waiting for kv-2 to begin with the first map',
      ['kv-2'],
    );
    const { map, why } = expectPublish(nextStep(first, desired, reportsOn(first)));
    expect(why).to.equal('every member has the first map');
    expect({ ...map, hash: '', epoch: 0 }).to.deep.equal({ ...first, initialised: true, hash: '', epoch: 0 });
  });

  describe('waits', () => {
    it('for every member that is not down to take the map', () => {
      const map = mapOf();
      const some = { 'kv-0': { epoch: 6 }, 'kv-2': 'silent' } as const;
      expectWait(
        nextStep(map, wanting(map), reportsOn(map, some)),
        'waiting for every member to take the map of epoch 7: kv-0 has epoch 6, kv-2 does not answer',
        ['kv-0', 'kv-2'],
      );
      const down = markDown(map, 'kv-2');
      expect(nextStep(down, wanting(down), reportsOn(down, { 'kv-2': 'silent' })).kind).to.equal('done');
    });

    it('for the newest map when a member holds a newer one', () => {
      const map = mapOf();
      for (const reports of [
        reportsOn(map, { 'kv-1': { epoch: 9 } }),
        reportsOn(map, { 'kv-3': { epoch: 9 } }),
      ]) {
        const step = nextStep(map, wanting(map, { members: membersAt(0, 1, 2, 3) }), reports);
        expectWait(step, /^kv-[13] holds the map of epoch 9, newer than this one of epoch 7$/, []);
      }
    });

    it('for a person when two writers made a map of one epoch', () => {
      const map = mapOf();
      const step = nextStep(map, wanting(map), reportsOn(map, { 'kv-1': { mapHash: 'other' } }));
      expectWait(step, 'kv-1 holds another map of epoch 7: there are two writers of the map', ['kv-1']);
    });

    it('for a wanted member to answer before it joins, and lets nobody leave before', () => {
      const map = mapOf();
      const desired = wanting(map, { members: membersAt(0, 1, 3) });
      expectWait(nextStep(map, desired, reportsOn(map)), 'waiting for kv-3 to answer before it joins', [
        'kv-3',
      ]);
      const { map: next, why } = expectPublish(nextStep(map, desired, reportsOn(map, { 'kv-3': {} })));
      expect(why).to.equal('kv-3 joins, kv-2 leaves');
      expect(states(next)).to.deep.equal(['active', 'active', 'draining', 'active']);
    });

    it('moves to those who are there while somebody else is still awaited', () => {
      const map = mapOf({ replicationFactor: 2 });
      const desired = wanting(map, { members: membersAt(0, 1, 3, 4) });
      const next = published(map, desired, reportsOn(map, { 'kv-3': {} }));
      expect(names(next)).to.deep.equal(['kv-0', 'kv-1', 'kv-2', 'kv-3']);
      expect(states(next)).to.deep.equal(['active', 'active', 'active', 'active']);
      expect(published(next, desired).moving?.phase).to.equal(1);
    });
  });

  describe('changes members', () => {
    it('as one map that moves nothing, indexes following the order of names', () => {
      const map = mapOf({ members: membersAt(1, 9, 10), replicationFactor: 2 });
      const moved = { ...membersAt(9)[0]!, host: 'elsewhere' };
      const desired: DesiredCluster = {
        members: [...membersAt(10, 0), moved],
        replicationFactor: 3,
      };
      const { map: next, why } = expectPublish(nextStep(map, desired, reportsOn(map, { 'kv-0': {} })));
      expect(why).to.equal(
        'kv-0 joins, kv-1 leaves, kv-9 has another address, zone or pod, replicationFactor goes from 2 to 3',
      );
      expect(names(next)).to.deep.equal(['kv-0', 'kv-1', 'kv-9', 'kv-10']);
      expect(states(next)).to.deep.equal(['active', 'draining', 'active', 'active']);
      expect(next.members[2]!.host).to.equal('elsewhere');
      expect(next.replicationFactor).to.equal(3);
      expect(readSets(next)).to.deep.equal(readSets(map));
      expect(next.moving).to.equal(undefined);
    });

    it('lets one stay that was to leave', () => {
      const map = mapOf({
        members: membersAt(0, 1, 2).map((member, index) => ({
          ...member,
          state: index === 1 ? ('draining' as const) : ('active' as const),
        })),
      });
      const { map: next, why } = expectPublish(nextStep(map, wanting(map), reportsOn(map)));
      expect(why).to.equal('kv-1 stays');
      expect(states(next)).to.deep.equal(['active', 'active', 'active']);
    });

    it('leaves one to drain while somebody else is awaited', () => {
      const members = membersAt(0, 1, 2).map((member, index) => ({
        ...member,
        state: index === 1 ? ('draining' as const) : ('active' as const),
      }));
      const map = mapOf({ members, assignment: mapOf().assignment });
      const desired = wanting(map, { members: membersAt(0, 2, 3) });
      expect(nextStep(map, desired, reportsOn(map)).kind).to.equal('wait');
    });

    it('takes one back that was down once it has the newest map, to stay or to leave', () => {
      const map = markDown(mapOf(), 'kv-1');
      const behind = reportsOn(map, { 'kv-1': { epoch: 7 } });
      expect(nextStep(map, wanting(map), behind).kind).to.equal('done');
      const { map: next, why } = expectPublish(nextStep(map, wanting(map), reportsOn(map)));
      expect(why).to.equal('kv-1 is back');
      expect(states(next)).to.deep.equal(['active', 'active', 'active']);
      const without = wanting(map, { members: membersAt(0, 2) });
      expect(states(published(map, without))).to.deep.equal(['active', 'draining', 'active']);
    });
  });

  describe('moves partitions', () => {
    it('by three maps each: write to both, read from the new, drop the old', () => {
      expect(phase1.moving?.phase).to.equal(1);
      expect(readSets(phase1)).to.deep.equal(readSets(joined));
      expect(phase2.moving).to.deep.equal({ ...phase1.moving, phase: 2 });
      const after = published(phase2, wanting(joined));
      expect(after.moving).to.equal(undefined);
      expect(readSets(after)).to.deep.equal(readSets(phase2));
      expect([joined, phase1, phase2, after].map(({ epoch }) => epoch)).to.deep.equal([7, 8, 9, 10]);
    });

    it('in batches of 64, or as many as wanted', () => {
      const map = mapOf({ replicationFactor: 2, partitions: 512 });
      const desired = wanting(map, { members: membersAt(0, 1, 2, 3) });
      const batches = (wish: DesiredCluster): readonly number[] =>
        playedOut(map, wish).maps.flatMap(({ moving }) =>
          moving?.phase === 1 ? moving.partitions.length : [],
        );
      expect(batches(desired)).to.deep.equal([64, 64, 64, 64]);
      expect(batches({ ...desired, batchPartitions: 200 })).to.deep.equal([200, 56]);
    });

    it('only after every new owner, staying ones too, has settled under this map', () => {
      const [incoming, staying] = [
        'kv-3',
        names(phase1)[movingNow[0]!.newReplicas.find((index) => index !== 3)!]!,
      ];
      const reports = reportsOn(phase1, {
        [incoming]: { settledEpoch: 0, fillingPartitions: 5 },
        [staying]: { settledEpoch: phase1.epoch - 1 },
      });
      const count = `${movingNow.length} partitions`;
      expectWait(
        nextStep(phase1, wanting(joined), reports),
        `moving ${count}: ${staying} compares, ${incoming} fills 5`,
        [staying, incoming],
      );
    });

    it('and says of a move that stands still which owners it lacks', () => {
      const [first] = movingNow;
      const old = first!.oldReplicas.map((index) => names(phase1)[index]!);
      // Of two owners one is enough: quorums of two share both.
      const map = old.reduce((before, nodeId) => markDown(before, nodeId), phase1);
      const silent = Object.fromEntries(old.map((nodeId) => [nodeId, 'silent' as const]));
      const step = nextStep(map, wanting(joined), reportsOn(map, { ...silent, 'kv-3': { settledEpoch: 0 } }));
      if (step.kind !== 'wait') throw new Error(step.kind);
      expect(step.why).to.contain('kv-3 compares');
      expect(step.why).to.contain(
        `only 0 of the 1 owners that are needed to have every acknowledged write can be read (${old.join(', ')} cannot)`,
      );
    });

    it('ends a move whatever is desired once its new owners are read from', () => {
      const back = wanting(joined, { members: membersAt(0, 1, 2) });
      expect(readSets(published(phase2, back))).to.deep.equal(readSets(phase2));
      expect(() => cancelMove(phase2)).to.throw('past the point of return');
    });

    it('does not end a move while old owners that are down could answer reads among themselves', () => {
      const old = movingNow[0]!.oldReplicas.map((index) => names(phase2)[index]!);
      const map = old.reduce((before, nodeId) => markDown(before, nodeId), phase2);
      const silent = Object.fromEntries(old.map((nodeId) => [nodeId, 'silent' as const]));
      expectWait(
        nextStep(map, wanting(joined), reportsOn(map, silent)),
        new RegExp(`^moving ${movingNow.length} partitions: ${old.join(', ')} went down as old owners`),
        old,
      );
      const oneIsBack = reportsOn(map, { [old[0]!]: 'silent' });
      expect(published(map, wanting(joined), oneIsBack).moving).to.equal(undefined);
    });
  });

  describe('cancels phase 1', () => {
    it('when a new owner is to leave', () => {
      const { map, why } = expectPublish(
        nextStep(phase1, wanting(joined, { members: membersAt(0, 1, 2) }), reportsOn(phase1)),
      );
      expect(why).to.equal(`the move of ${movingNow.length} partitions is cancelled: kv-3 leaves`);
      expect(map.moving).to.equal(undefined);
      expect(map.assignment).to.deep.equal(joined.assignment);
    });

    it('when its partitions are to stay where they are', () => {
      const map = mapOf({ members: membersAt(0, 1, 2, 3), replicationFactor: 2, partitions: 4 });
      const growing = published(map, wanting(map, { replicationFactor: 3 }));
      const moving = published(growing, wanting(growing));
      const { map: next, why } = expectPublish(nextStep(moving, wanting(map), reportsOn(moving)));
      expect(why).to.equal(
        'the move of 4 partitions is cancelled: its partitions are to stay where they are',
      );
      expect(playedOut(next, wanting(map)).maps.flatMap(({ moving: again }) => again ?? [])).to.deep.equal(
        [],
      );
    });

    it('and goes on with it when something else changes', () => {
      const more = wanting(joined, { members: membersAt(0, 1, 2, 3, 4) });
      const step = nextStep(phase1, more, reportsOn(phase1, { 'kv-4': {} }));
      expect(expectPublish(step).map.moving?.phase).to.equal(2);
    });
  });

  describe('does not start what cannot end', () => {
    const desired = wanting(joined);

    it('when a new owner is down', () => {
      const map = markDown(joined, 'kv-3');
      // One that answers and lacks the newest map is refused by the others all the same.
      for (const answer of ['silent', { epoch: 6 }] as const) {
        expectWait(
          nextStep(map, desired, reportsOn(map, { 'kv-3': answer })),
          `cannot move ${movingNow.length} partitions: kv-3 would be an owner and is down`,
          ['kv-3'],
        );
      }
    });

    it('when an incoming owner still stores what it gave away', () => {
      expectWait(
        nextStep(joined, desired, reportsOn(joined, { 'kv-3': { residualPartitions: 1 } })),
        `cannot move ${movingNow.length} partitions: kv-3 would get partitions and still stores some that it gave away`,
        ['kv-3'],
      );
    });

    it('but lets an owner that stays keep such residue', () => {
      const residue = { residualPartitions: 1 };
      const reports = reportsOn(joined, { 'kv-0': residue, 'kv-1': residue, 'kv-2': residue });
      expect(published(joined, desired, reports).moving?.partitions).to.deep.equal(movingNow);
    });

    it('when too few old owners can be read', () => {
      const filling = { fillingPartitions: 1 };
      const step = nextStep(
        joined,
        desired,
        reportsOn(joined, { 'kv-0': filling, 'kv-1': filling, 'kv-2': filling }),
      );
      if (step.kind !== 'wait') throw new Error(step.kind);
      expect(step.why).to.contain(
        'only 0 of the 1 owners that are needed to have every acknowledged write can be read (kv-0, kv-1 cannot)',
      );
      expect(step.waitingFor.toSorted()).to.deep.equal(['kv-0', 'kv-1', 'kv-2']);
    });

    it('and moves the partitions that can be', () => {
      const map = markDown(joined, 'kv-1');
      const next = published(map, desired, reportsOn(map, { 'kv-1': 'silent' }));
      const owners = next.moving!.partitions.flatMap(({ newReplicas }) => newReplicas);
      expect(owners).to.not.include(1);
      expect(next.moving!.partitions.length).to.be.below(movingNow.length);
    });
  });

  describe('lets members leave', () => {
    const leaving = mapOf({
      members: membersAt(0, 1, 2, 3).map((member, index) => ({
        ...member,
        state: index === 1 ? ('draining' as const) : ('active' as const),
      })),
      assignment: mapOf().assignment.map((set) => set.map((index) => [0, 2, 3][index]!)),
      retired: [{ nodeId: 'kv-1', incarnation: 5 }],
    });
    const desired = wanting(leaving, { members: membersAt(0, 2, 3) });

    it('after they have given away what they store', () => {
      expectWait(
        nextStep(leaving, desired, reportsOn(leaving, { 'kv-1': { residualPartitions: 3 } })),
        'kv-1 still stores 3 partitions until the new owners have acknowledged what it logged',
        ['kv-1'],
      );
    });

    it('and retires their incarnations', () => {
      const { map, why } = expectPublish(nextStep(leaving, desired, reportsOn(leaving)));
      expect(why).to.equal('kv-1 is empty and leaves the map');
      expect(names(map)).to.deep.equal(['kv-0', 'kv-2', 'kv-3']);
      expect(map.retired).to.deep.equal([
        { nodeId: 'kv-1', incarnation: 5 },
        { nodeId: 'kv-1', incarnation: 101 },
      ]);
      expect(readSets(map)).to.deep.equal(readSets(leaving));
      expect(nextStep(map, desired, reportsOn(map)).kind).to.equal('done');
    });

    for (const [what, known, retired] of [
      ['every incarnation that others know of one that is down', [5, 8, 9], [5, 8, 9]],
      ['nothing more of one that nobody has met', [0, 0, 0], [5]],
    ] as const) {
      it(`and retires ${what}`, () => {
        const map = markDown(leaving, 'kv-1');
        const knowing = (incarnation: number): { peerIncarnations: ReadonlyMap<string, number> } => ({
          peerIncarnations: new Map([['kv-1', incarnation]]),
        });
        const [a, b, c] = known;
        const reports = reportsOn(map, {
          'kv-0': knowing(a),
          'kv-1': 'silent',
          'kv-2': knowing(b),
          'kv-3': knowing(c),
        });
        const next = published(map, desired, reports);
        expect(names(next)).to.deep.equal(['kv-0', 'kv-2', 'kv-3']);
        expect(next.retired.map(({ incarnation }) => incarnation)).to.deep.equal(retired);
      });
    }

    it('that are down and answer, whatever they still store', () => {
      const map = markDown(leaving, 'kv-1');
      const reports = reportsOn(map, { 'kv-1': { epoch: 3, residualPartitions: 4 } });
      expect(names(published(map, desired, reports))).to.deep.equal(['kv-0', 'kv-2', 'kv-3']);
    });

    it('last of all', () => {
      const map = mapOf({ members: membersAt(0, 1, 2, 3), replicationFactor: 2 });
      const { maps, last } = playedOut(
        map,
        wanting(map, { members: membersAt(0, 1, 4), replicationFactor: 3 }),
      );
      const gone = maps.findIndex(({ retired }) => retired.length > 0);
      expect(maps.slice(0, gone).filter(({ moving }) => moving !== undefined)).to.not.have.length(0);
      expect(maps.slice(gone).filter(({ moving }) => moving !== undefined)).to.have.length(0);
      expect(names(last)).to.deep.equal(['kv-0', 'kv-1', 'kv-4']);
      expect(last.retired.map(({ nodeId }) => nodeId)).to.deep.equal(['kv-2', 'kv-3']);
    });
  });

  describe('from one size to another', () => {
    for (const [what, before, after] of [
      ['more members', [[0, 1, 2], 3], [[0, 1, 2, 3, 4], 3]],
      ['fewer members', [[0, 1, 2, 3, 4], 3], [[1, 2, 4], 3]],
      ['fewer members than copies', [[0, 1, 2], 3], [[0], 3]],
      ['more copies', [[0, 1, 2, 3, 4], 1], [[0, 1, 2, 3, 4], 5]],
      ['fewer copies', [[0, 1, 2, 3, 4], 5], [[0, 1, 2, 3, 4], 2]],
      ['other members altogether', [[0, 1, 2], 2], [[3, 4, 5], 2]],
      ['all at once', [[0, 1, 2, 3], 2], [[2, 3, 4, 5, 6], 3]],
    ] as const) {
      it(`goes to ${what}`, () => {
        const map = mapOf({
          members: membersAt(...before[0]),
          replicationFactor: before[1],
          partitions: 16,
        });
        const { last } = playedOut(map, {
          members: membersAt(...after[0]),
          replicationFactor: after[1],
          batchPartitions: 5,
        });
        expect(names(last)).to.deep.equal(after[0].map((number) => `kv-${number}`));
        expect(states(last).filter((state) => state !== 'active')).to.deep.equal([]);
        const copies = Math.min(after[0].length, after[1]);
        for (const set of readSets(last)) expect(set).to.have.length(copies);
        const held = names(last).map((nodeId) => partitionsHeldBy(last, nodeId).length);
        expect(Math.max(...held) - Math.min(...held)).to.be.at.most(1);
      });
    }

    it('moves each replica once, in however many batches', () => {
      const map = mapOf({ members: membersAt(0, 1, 2, 3, 4), replicationFactor: 3, partitions: 60 });
      for (const batchPartitions of [1, 7, 64]) {
        const { maps, last } = playedOut(map, {
          members: membersAt(0, 1, 2, 3, 4, 5, 6),
          replicationFactor: 3,
          batchPartitions,
        });
        const filled = maps
          .flatMap(({ moving }) => (moving?.phase === 1 ? moving.partitions : []))
          .reduce(
            (sum, { oldReplicas, newReplicas }) =>
              sum + newReplicas.filter((index) => !oldReplicas.includes(index)).length,
            0,
          );
        expect(filled, `in batches of ${batchPartitions}`).to.equal(
          movedReplicas(readSets(map), readSets(last)),
        );
      }
    });

    it('evens out who is preferred without moving anything', () => {
      const map = mapOf({ assignment: Array.from({ length: 8 }, () => [0, 1, 2]) });
      const { map: next, why } = expectPublish(nextStep(map, wanting(map), reportsOn(map)));
      expect(why).to.match(/^\d partitions prefer another coordinator$/);
      expect(next.moving).to.equal(undefined);
      const firsts = next.assignment.map(([first]) => first!).toSorted();
      expect(firsts).to.deep.equal([0, 0, 0, 1, 1, 1, 2, 2]);
    });
  });

  const refusals: readonly (readonly [string, Partial<DesiredCluster>, string])[] = [
    ['no members', { members: [] }, 'at least one member'],
    ['a name twice', { members: membersAt(1, 1) }, 'two wanted members have the same name'],
    ['no copies', { replicationFactor: 0 }, 'replicationFactor is 0'],
    ['empty batches', { batchPartitions: 0 }, 'batchPartitions is 0'],
  ];
  for (const [what, change, message] of refusals) {
    it(`is refused for ${what}`, () => {
      const map = mapOf();
      expect(() => nextStep(map, wanting(map, change), reportsOn(map)))
        .to.throw(message)
        .with.property('code', 'INVALID_ARGUMENT');
    });
  }

  it('is refused for a map that contradicts itself', () => {
    const map = mapOf({ assignment: [] });
    expect(() => nextStep(map, wanting(map), reportsOn(map)))
      .to.throw('the cluster map contradicts itself: it assigns 0 partitions of 8')
      .with.property('code', 'FAILED_PRECONDITION');
  });
});
