import { expect } from 'chai';
import type { MapContent } from '../../../model/cluster-map.ts';
import { isSameSet, problemWithMap } from '../../../model/map-check.ts';
import { mapOf, membersAt } from '../../support/map-moves.ts';

const assignment = [
  [0, 1],
  [1, 2],
];
const sound: Partial<MapContent> = { partitions: 2, replicationFactor: 2, assignment };
const move = { partition: 1, oldReplicas: [1, 2], newReplicas: [2, 0] };

describe('a cluster map', () => {
  for (const phase of [1, 2]) {
    it(`is sound in phase ${phase} of a move`, () => {
      expect(problemWithMap(mapOf({ ...sound, moving: { phase, partitions: [move] } }))).to.equal(undefined);
    });
  }

  it('is sound with a retired incarnation of a member that stays', () => {
    const retired = [
      { nodeId: 'kv-0', incarnation: 1 },
      { nodeId: 'kv-0', incarnation: 2 },
    ];
    expect(problemWithMap(mapOf({ ...sound, retired }))).to.equal(undefined);
  });

  const moving = (...partitions: (typeof move)[]): Partial<MapContent> => ({
    moving: { phase: 1, partitions },
  });
  const contradictions: readonly (readonly [Partial<MapContent>, string])[] = [
    [{ epoch: 0 }, 'epoch is 0'],
    [{ epoch: 1.5 }, 'epoch is 1.5'],
    [{ replicationFactor: 0, assignment }, 'replicationFactor is 0'],
    [{ partitions: 3 }, 'it assigns 2 partitions of 3'],
    [{ members: [] }, 'it has no members'],
    [{ members: membersAt(0, 1, 1) }, 'two members are called kv-1'],
    [{ members: membersAt(0, 1, 2).map((member) => ({ ...member, nodeId: '' })) }, 'a member has no name'],
    [
      {
        retired: [
          { nodeId: 'kv-0', incarnation: 1 },
          { nodeId: 'kv-0', incarnation: 1 },
        ],
      },
      'it retires incarnation 1 of kv-0 twice',
    ],
    [{ assignment: [[0], []] }, 'partition 1 has no owner'],
    [{ assignment: [[0, 3], [1]] }, 'partition 0 names member 3 of 3'],
    [{ assignment: [[0, -1], [1]] }, 'partition 0 names member -1 of 3'],
    [{ assignment: [[0, 0], [1]] }, 'partition 0 names a member twice'],
    [{ ...moving(move), initialised: false }, 'it moves partitions before it is initialised'],
    [{ moving: { phase: 3, partitions: [move] } }, 'its move is in phase 3'],
    [moving(), 'its move is of no partition'],
    [moving(move, move), 'it moves partition 1 twice'],
    [moving({ ...move, partition: 2 }), 'the move of partition 2 is of none of its 2 partitions'],
    [moving({ ...move, newReplicas: [] }), 'the move of partition 1 goes to a set that has no owner'],
    [moving({ ...move, newReplicas: [4] }), 'the move of partition 1 goes to a set that names member 4 of 3'],
    [
      moving({ ...move, oldReplicas: [2, 1] }),
      'the move of partition 1 does not begin where the partition is assigned',
    ],
    [
      moving({ ...move, oldReplicas: [1] }),
      'the move of partition 1 does not begin where the partition is assigned',
    ],
    [moving({ ...move, newReplicas: [2, 1] }), 'the move of partition 1 ends with the owners it begins with'],
  ];
  for (const [change, problem] of contradictions) {
    it(`contradicts itself: ${problem}`, () => {
      expect(problemWithMap({ ...mapOf(sound), ...change })).to.equal(problem);
    });
  }
});

describe('two lists', () => {
  for (const [a, b, same] of [
    [[], [], true],
    [[1, 2], [2, 1], true],
    [[1, 2], [1], false],
    [[1, 2], [1, 3], false],
  ] as const) {
    it(`${JSON.stringify(a)} and ${JSON.stringify(b)} are ${same ? 'one set' : 'two sets'}`, () => {
      expect(isSameSet<number>(a, b)).to.equal(same);
    });
  }
});
