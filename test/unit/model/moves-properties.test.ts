import { expect } from 'chai';
import fc from 'fast-check';
import { firstMap } from '../../../model/next-map.ts';
import type { Member } from '../../../model/cluster-map.ts';
import { type DesiredCluster, type MoveStep, nextStep } from '../../../model/moves.ts';
import { replicaSets } from '../../../model/replica-sets.ts';
import { workerNames } from '../../../model/workers.ts';
import { memberNamed } from '../../support/member.ts';
import { MoveCluster } from '../../support/move-cluster.ts';
import { expectRules, type NamedPlacement } from '../../support/placement-checks.ts';

const ROUNDS_TO_END = 600;

/** What somebody does, now and then, beside what goes on all the time. */
type Event =
  | {
      readonly kind: 'want';
      readonly pods: readonly number[];
      readonly workers: number;
      readonly replicationFactor: number;
    }
  | { readonly kind: 'toggle' | 'down' | 'force' | 'replace' };

const events: fc.Arbitrary<Event> = fc.oneof(
  fc.record({
    kind: fc.constant('want' as const),
    pods: fc.uniqueArray(fc.integer({ min: 0, max: 6 }), { minLength: 1, maxLength: 6 }),
    workers: fc.constantFrom(1, 1, 2),
    replicationFactor: fc.integer({ min: 1, max: 5 }),
  }),
  fc.record({ kind: fc.constantFrom('toggle' as const, 'toggle', 'down', 'down', 'force', 'replace') }),
);

const plays = fc.record({
  partitions: fc.integer({ min: 1, max: 8 }),
  batchPartitions: fc.integer({ min: 1, max: 4 }),
  pods: fc.integer({ min: 1, max: 5 }),
  workers: fc.constantFrom(1, 1, 2, 3),
  replicationFactor: fc.integer({ min: 1, max: 5 }),
  seed: fc.integer(),
  events: fc.array(fc.record({ event: events, steps: fc.integer({ min: 0, max: 60 }) }), {
    minLength: 1,
    maxLength: 20,
  }),
});

/** Numbers from a seed, the same each time (mulberry32). */
function choosing(seed: number): (count: number) => number {
  let state = seed;
  return (count) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % count;
  };
}

/** The members of pods, with so many workers each. */
function membersIn(pods: readonly number[], workers: number): readonly Member[] {
  return pods.flatMap((index) => {
    const pod = `kv-${index}`;
    return workerNames(pod, workers).map((nodeId) => ({ ...memberNamed(nodeId), pod }));
  });
}

function happen(cluster: MoveCluster, event: Event, batchPartitions: number): void {
  switch (event.kind) {
    case 'want':
      cluster.desired = {
        members: membersIn(event.pods, event.workers),
        replicationFactor: event.replicationFactor,
        batchPartitions,
      };
      cluster.startWanted();
      return;
    case 'toggle':
      cluster.toggle();
      return;
    case 'down':
      cluster.markDown();
      return;
    case 'force':
      cluster.forceRemove();
      return;
    case 'replace':
      cluster.replaceVolume();
  }
}

describe('changing the map', function () {
  this.timeout(60_000);

  it('loses nothing and ends as desired, whoever comes, goes, dies or crashes in whichever order', () => {
    fc.assert(
      fc.property(
        plays,
        ({ partitions, batchPartitions, pods, workers, replicationFactor, seed, events }) => {
          const members = membersIn([...Array.from({ length: pods }).keys()], workers);
          const first = firstMap({
            clusterId: '0'.repeat(32),
            namespace: 'default',
            name: 'kv',
            partitions,
            replicationFactor,
            members,
          });
          const desired: DesiredCluster = { members, replicationFactor, batchPartitions };
          const cluster = new MoveCluster(first, desired, choosing(seed));
          for (const { event, steps } of events) {
            happen(cluster, event, batchPartitions);
            for (let step = 0; step < steps; step += 1) cluster.step();
          }

          for (const node of cluster.nodes.values()) node.isUp = true;
          const ask = (): MoveStep => nextStep(cluster.published, cluster.desired, cluster.reports);
          // A member that is down and wanted leaves nothing to do, until it is back.
          const isEnd = (): boolean =>
            ask().kind === 'done' && cluster.published.members.every(({ state }) => state !== 'down');
          for (let round = 0; round < ROUNDS_TO_END && !isEnd(); round += 1) cluster.round();
          const end = ask();
          expect(end, cluster.history.join('\n')).to.deep.equal({ kind: 'done' });

          const map = cluster.published;
          const wanted = cluster.desired.members.map(({ nodeId }) => nodeId).toSorted();
          expect(map.members.map(({ nodeId }) => nodeId)).to.deep.equal(wanted);
          expect(map.members.filter(({ state }) => state !== 'active')).to.deep.equal([]);
          const placement: NamedPlacement = map.assignment.map((_, at) => replicaSets(map, at).read);
          expectRules(map.members, cluster.desired.replicationFactor, placement);
        },
      ),
      { numRuns: 300 },
    );
  });
});
