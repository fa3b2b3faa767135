import { expect } from 'chai';
import fc from 'fast-check';
import type { Member } from '../../../model/cluster-map.ts';
import { place } from '../../../model/placement.ts';
import {
  expectRules,
  firstsOf,
  leastMoved,
  loadsOf,
  membersOn,
  movedReplicas,
  named,
  type NamedPlacement,
  spreadOf,
  type Terrain,
} from '../../support/placement-checks.ts';

const RUNS = 20;

interface Case {
  readonly count: number;
  readonly partitions: number;
  readonly replicationFactor: number;
  readonly terrain: Terrain;
  /** Every zone has as many pods as the others and every pod as many members. */
  readonly isEven: boolean;
}

const counts = fc.oneof(
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 12 }) },
  { weight: 1, arbitrary: fc.integer({ min: 13, max: 200 }) },
);
const partitionCounts = fc.oneof(
  fc.constantFrom(64, 128, 256, 512, 1024, 4096),
  fc.integer({ min: 64, max: 700 }),
);

const plain: fc.Arbitrary<Case> = fc
  .record({ count: counts, partitions: partitionCounts, replicationFactor: fc.integer({ min: 1, max: 7 }) })
  .map((sizes) => ({ ...sizes, terrain: { workersPerPod: 1, zoneOfPod: () => '' }, isEven: true }));

const even: fc.Arbitrary<Case> = fc
  .record({
    podsPerZone: fc.integer({ min: 1, max: 15 }),
    zones: fc.integer({ min: 1, max: 5 }),
    workersPerPod: fc.integer({ min: 1, max: 3 }),
    partitions: partitionCounts,
    replicationFactor: fc.integer({ min: 1, max: 7 }),
  })
  .map(({ podsPerZone, zones, workersPerPod, partitions, replicationFactor }) => ({
    count: podsPerZone * zones * workersPerPod,
    partitions,
    replicationFactor,
    terrain: { workersPerPod, zoneOfPod: (pod: number) => `zone-${pod % zones}` },
    isEven: true,
  }));

const uneven: fc.Arbitrary<Case> = fc
  .record({
    count: counts,
    partitions: partitionCounts,
    replicationFactor: fc.integer({ min: 1, max: 7 }),
    workersPerPod: fc.integer({ min: 1, max: 4 }),
    zones: fc.array(fc.constantFrom('', 'a', 'b', 'c', 'd'), { minLength: 1, maxLength: 12 }),
  })
  .map(({ workersPerPod, zones, ...sizes }) => ({
    ...sizes,
    terrain: { workersPerPod, zoneOfPod: (pod: number) => zones[pod % zones.length]! },
    isEven: false,
  }));

const cases = fc.oneof(plain, even, uneven);

function placed(
  members: readonly Member[],
  { partitions, replicationFactor }: Pick<Case, 'partitions' | 'replicationFactor'>,
  previous?: NamedPlacement,
): readonly string[][] {
  return named(members, place({ members, partitions, replicationFactor, previous }));
}

const copiesOf = (members: readonly Member[], replicationFactor: number): number =>
  Math.min(replicationFactor, new Set(members.map(({ pod }) => pod)).size);

describe('placement of any cluster', function () {
  this.timeout(60_000);

  it('keeps pods and zones apart and nobody holds more than balance needs', () => {
    fc.assert(
      fc.property(cases, (cluster) => {
        const members = membersOn(cluster.count, cluster.terrain);
        const placement = placed(members, cluster);
        expectRules(members, cluster.replicationFactor, placement);
        if (!cluster.isEven) return;
        expect(spreadOf(loadsOf(members, placement).values()), 'partitions per member').to.be.at.most(1);
        const firsts = members.map(({ nodeId }) => firstsOf(placement).get(nodeId) ?? 0);
        expect(spreadOf(firsts), 'preferred coordinators per member').to.be.at.most(1);
      }),
      { numRuns: RUNS },
    );
  });

  it('does not depend on the order of members, and leaves a placement that is as it should be', () => {
    fc.assert(
      fc.property(cases, (cluster) => {
        const members = membersOn(cluster.count, cluster.terrain);
        const placement = placed(members, cluster);
        const reversed = members.toReversed();
        expect(placed(reversed, cluster)).to.deep.equal(placement);
        expect(placed(reversed, cluster, placement)).to.deep.equal(placement);
      }),
      { numRuns: RUNS },
    );
  });

  it('moves a share to a member that comes', () => {
    fc.assert(
      fc.property(plain, (cluster) => {
        const members = membersOn(cluster.count + 1, cluster.terrain);
        const before = placed(members.slice(0, -1), cluster);
        const after = placed(members, cluster, before);
        expectRules(members, cluster.replicationFactor, after);
        const share = Math.ceil(
          (copiesOf(members, cluster.replicationFactor) * cluster.partitions) / members.length,
        );
        expect(movedReplicas(before, after)).to.be.at.most(share);
      }),
      { numRuns: RUNS },
    );
  });

  it('moves only what a member held that leaves', () => {
    fc.assert(
      fc.property(plain, fc.nat(), (cluster, pick) => {
        const members = membersOn(cluster.count + 1, cluster.terrain);
        const leaving = members[pick % members.length]!.nodeId;
        const before = placed(members, cluster);
        const rest = members.filter(({ nodeId }) => nodeId !== leaving);
        const after = placed(rest, cluster, before);
        expectRules(rest, cluster.replicationFactor, after);
        const { replicationFactor } = cluster;
        const lost = copiesOf(rest, replicationFactor) < copiesOf(members, replicationFactor);
        expect(movedReplicas(before, after)).to.equal(lost ? 0 : loadsOf(members, before).get(leaving));
      }),
      { numRuns: RUNS },
    );
  });

  it('moves little more than any placement as balanced would, whatever comes, goes or changes', () => {
    fc.assert(
      fc.property(
        cases,
        fc.record({
          leaves: fc.array(fc.nat(), { maxLength: 5 }),
          comes: fc.integer({ min: 0, max: 5 }),
          replicationFactor: fc.integer({ min: 1, max: 7 }),
        }),
        (cluster, change) => {
          const members = membersOn(cluster.count + change.comes, cluster.terrain);
          const first = members.slice(0, cluster.count);
          const before = placed(first, cluster);
          const leaving = new Set(change.leaves.map((pick) => members[pick % members.length]!.nodeId));
          const rest = members.filter(({ nodeId }) => !leaving.has(nodeId));
          fc.pre(rest.length > 0);
          const { replicationFactor } = change;
          const after = placed(rest, { ...cluster, replicationFactor }, before);
          expectRules(rest, replicationFactor, after);
          const least = leastMoved(rest, before, after);
          expect(movedReplicas(before, after)).to.be.at.most(least * 1.5 + rest.length);
        },
      ),
      { numRuns: RUNS },
    );
  });
});
