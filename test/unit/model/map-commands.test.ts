import { expect } from 'chai';
import type { ClusterMap } from '../../../model/cluster-map.ts';
import {
  cancelMove,
  forceRemoveReplicas,
  markDown,
  partitionsAtRisk,
  replaceVolume,
} from '../../../model/map-commands.ts';
import { nextStep } from '../../../model/moves.ts';
import { mapOf, membersAt, playedOut, readSets, reportsOn, wanting } from '../../support/map-moves.ts';

/** Five members, three copies of partition 0 on the first three and of partition 1 on the last three. */
const five = mapOf({
  members: membersAt(0, 1, 2, 3, 4),
  partitions: 2,
  assignment: [
    [0, 1, 2],
    [2, 3, 4],
  ],
});
/** Partition 0 goes from the first three to the last three. */
const moving = (phase: number): ClusterMap =>
  mapOf({
    ...five,
    moving: { phase, partitions: [{ partition: 0, oldReplicas: [0, 1, 2], newReplicas: [2, 3, 4] }] },
  });

const without = (map: ClusterMap, ...nodeIds: readonly string[]): ClusterMap =>
  nodeIds.reduce((before, nodeId) => markDown(before, nodeId), map);
const silent = (...nodeIds: readonly string[]): Readonly<Record<string, 'silent'>> =>
  Object.fromEntries(nodeIds.map((nodeId) => [nodeId, 'silent']));

function expectRefusal(act: () => unknown, code: string, message: string): void {
  expect(act).to.throw(message).with.property('code', code);
}

describe('marking a member down', () => {
  it('changes its state alone', () => {
    const map = markDown(moving(1), 'kv-1');
    expect(map.members.map(({ state }) => state)).to.deep.equal([
      'active',
      'down',
      'active',
      'active',
      'active',
    ]);
    expect(map.epoch).to.equal(8);
    expect(map.moving).to.deep.equal(moving(1).moving);
    expect(map.assignment).to.deep.equal(five.assignment);
  });

  it('is refused for a stranger, twice, for the last one, and before the cluster has begun', () => {
    expectRefusal(() => markDown(five, 'kv-9'), 'NOT_FOUND', 'lists no member kv-9');
    expectRefusal(() => without(five, 'kv-1', 'kv-1'), 'FAILED_PRECONDITION', 'kv-1 is marked down already');
    expectRefusal(
      () => without(mapOf(), 'kv-0', 'kv-1', 'kv-2'),
      'FAILED_PRECONDITION',
      'kv-2 is the last member that is not marked down',
    );
    const first = mapOf({ initialised: false });
    expectRefusal(() => markDown(first, 'kv-0'), 'FAILED_PRECONDITION', 'waits for every member');
  });
});

describe('cancelling a move', () => {
  it('leaves everything where it was', () => {
    const map = cancelMove(moving(1));
    expect(map.moving).to.equal(undefined);
    expect(map.assignment).to.deep.equal(five.assignment);
    expect(map.epoch).to.equal(8);
  });

  it('is refused without one, and when the new owners are read from', () => {
    expectRefusal(() => cancelMove(five), 'FAILED_PRECONDITION', 'no partitions are moving');
    expectRefusal(() => cancelMove(moving(2)), 'FAILED_PRECONDITION', 'past the point of return');
  });
});

describe('replacing a volume', () => {
  it('retires its incarnation and keeps the member', () => {
    const map = replaceVolume(five, 'kv-1', 42);
    expect(map.retired).to.deep.equal([{ nodeId: 'kv-1', incarnation: 42 }]);
    expect(map.members).to.deep.equal(five.members);
    expect(nextStep(map, wanting(map), reportsOn(map)).kind).to.equal('done');
  });

  it('is refused for a stranger, for no incarnation, and twice', () => {
    expectRefusal(() => replaceVolume(five, 'kv-9', 1), 'NOT_FOUND', 'lists no member kv-9');
    expectRefusal(() => replaceVolume(five, 'kv-1', 0), 'INVALID_ARGUMENT', '0 is not an incarnation');
    const map = replaceVolume(five, 'kv-1', 42);
    expectRefusal(() => replaceVolume(map, 'kv-1', 42), 'FAILED_PRECONDITION', 'is retired already');
  });
});

describe('partitions at risk', () => {
  for (const [what, map, lost, differing, risks] of [
    ['none while two of three copies stay', five, ['kv-0'], {}, []],
    [
      'those of which one copy of three stays',
      five,
      ['kv-0', 'kv-1'],
      {},
      [{ partition: 0, remaining: ['kv-2'], needed: 2 }],
    ],
    [
      'not those that are short of copies anyway',
      five,
      ['kv-0'],
      { 'kv-3': { fillingPartitions: 1 }, ...silent('kv-4') },
      [],
    ],
    [
      'those whose other copies are down or not filled yet',
      without(five, 'kv-4'),
      ['kv-2'],
      { 'kv-1': { fillingPartitions: 1 }, ...silent('kv-4') },
      [
        { partition: 0, remaining: ['kv-0'], needed: 2 },
        { partition: 1, remaining: ['kv-3'], needed: 2 },
      ],
    ],
    [
      'those of the old owners while these are read from',
      moving(1),
      ['kv-0', 'kv-1'],
      {},
      [{ partition: 0, remaining: ['kv-2'], needed: 2 }],
    ],
    ['none of the old owners once the new ones are read from', moving(2), ['kv-0', 'kv-1'], {}, []],
  ] as const) {
    it(`are ${what}`, () => {
      expect(partitionsAtRisk(map, lost, reportsOn(map, differing))).to.deep.equal(risks);
    });
  }
});

describe('removing replicas by force', () => {
  it('leaves what others hold as it is, says what may be lost, and lets the missing copies be filled', () => {
    const gone = ['kv-0', 'kv-1'];
    const map = without(five, ...gone);
    const reports = reportsOn(map, silent(...gone));
    const desired = wanting(five, { members: membersAt(2, 3, 4) });
    expect(nextStep(map, desired, reports).kind).to.equal('wait');

    const forced = forceRemoveReplicas(map, gone, reports);
    expect(forced.mayLose).to.deep.equal([{ partition: 0, remaining: ['kv-2'], needed: 2 }]);
    expect(readSets(forced.map)).to.deep.equal([['kv-2'], ['kv-2', 'kv-3', 'kv-4']]);
    expect(forced.map.members).to.deep.equal(map.members);
    const { last } = playedOut(forced.map, desired);
    expect(last.members.map(({ nodeId }) => nodeId)).to.deep.equal(['kv-2', 'kv-3', 'kv-4']);
    expect(readSets(last).map((set) => set.toSorted())).to.deep.equal([
      ['kv-2', 'kv-3', 'kv-4'],
      ['kv-2', 'kv-3', 'kv-4'],
    ]);
  });

  it('gives partitions without any owner left to others', () => {
    const gone = ['kv-0', 'kv-1', 'kv-2'];
    const map = without(five, ...gone);
    const forced = forceRemoveReplicas(map, gone, reportsOn(map, silent(...gone)));
    expect(forced.mayLose).to.deep.equal([{ partition: 0, remaining: [], needed: 2 }]);
    expect(readSets(forced.map).map((set) => set.toSorted())).to.deep.equal([
      ['kv-3', 'kv-4'],
      ['kv-3', 'kv-4'],
    ]);
  });

  it('cancels a move in phase 1 and ends one in phase 2', () => {
    for (const [phase, left] of [
      [1, ['kv-0', 'kv-2']],
      [2, ['kv-2', 'kv-3', 'kv-4']],
    ] as const) {
      const map = without(moving(phase), 'kv-1');
      const forced = forceRemoveReplicas(map, ['kv-1'], reportsOn(map, silent('kv-1')));
      expect(forced.mayLose).to.deep.equal([]);
      expect(forced.map.moving).to.equal(undefined);
      expect(readSets(forced.map)[0]).to.deep.equal(left);
    }
  });

  it('is refused for members that are not down, and for everybody', () => {
    expectRefusal(() => forceRemoveReplicas(five, ['kv-9'], new Map()), 'NOT_FOUND', 'lists no member kv-9');
    expectRefusal(
      () => forceRemoveReplicas(five, ['kv-0'], reportsOn(five)),
      'FAILED_PRECONDITION',
      'kv-0 is not marked down',
    );
    const members = membersAt(0, 1).map((member, index) => ({
      ...member,
      state: index === 0 ? ('down' as const) : ('draining' as const),
    }));
    const map = mapOf({ members, partitions: 1, assignment: [[0, 1]] });
    expectRefusal(
      () => forceRemoveReplicas(map, ['kv-0'], reportsOn(map)),
      'FAILED_PRECONDITION',
      'no other member could hold partitions',
    );
  });

  it('is refused in phase 2 until everybody reads from the new owners', () => {
    const map = without(moving(2), 'kv-1');
    expectRefusal(
      () => forceRemoveReplicas(map, ['kv-1'], reportsOn(map, { 'kv-3': { epoch: 7 } })),
      'FAILED_PRECONDITION',
      'kv-3 has not taken the present map of the move yet',
    );
  });
});
