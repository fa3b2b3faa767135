import { expect } from 'chai';
import fc from 'fast-check';
import { mapFromProto, mapToProto } from '../../../client/cluster-map-codec.ts';
import { hashMatches, sealMap, type ClusterMap, type Member } from '../../../model/cluster-map.ts';
import { replicaSets } from '../../../model/replica-sets.ts';
import { ClusterMap as WireMap } from '../../../proto/gen/kvstore.ts';
import { attempt, bytes, damaged, RUNS, uint48 } from './hostile.ts';

const label = fc.stringMatching(/^[a-z0-9-]{1,20}$/);
const port = fc.integer({ min: 0, max: 65_535 });
const members = fc.uniqueArray(
  fc.record({
    nodeId: label,
    host: label,
    clientPort: port,
    peerPort: port,
    httpPort: port,
    zone: fc.oneof(fc.constant(''), label),
    state: fc.constantFrom('active', 'draining', 'down'),
    pod: label,
  }) as fc.Arbitrary<Member>,
  { minLength: 1, maxLength: 6, selector: ({ nodeId }) => nodeId },
);

const maps: fc.Arbitrary<ClusterMap> = fc
  .record({ members, partitions: fc.integer({ min: 1, max: 12 }) })
  .chain(({ members: list, partitions }) => {
    const replicas = fc.uniqueArray(fc.nat(list.length - 1), { minLength: 1, maxLength: list.length });
    const moves = fc.uniqueArray(
      fc.record({ partition: fc.nat(partitions - 1), oldReplicas: replicas, newReplicas: replicas }),
      { maxLength: 4, selector: ({ partition }) => partition },
    );
    return fc.record({
      members: fc.constant(list),
      partitions: fc.constant(partitions),
      assignment: fc.array(replicas, { minLength: partitions, maxLength: partitions }),
      moving: fc.option(fc.record({ phase: fc.constantFrom(1, 2), partitions: moves }), { nil: undefined }),
      clusterId: bytes(16, 16).map((id) => id.toString('hex')),
      namespace: label,
      name: label,
      epoch: uint48(1),
      replicationFactor: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
      initialised: fc.boolean(),
      retired: fc.array(fc.record({ nodeId: label, incarnation: uint48(1) }), { maxLength: 4 }),
    });
  })
  .map(({ moving, ...content }) => sealMap(moving === undefined ? content : { ...content, moving }));

const encode = (map: ClusterMap): Buffer => Buffer.from(WireMap.encode(mapToProto(map)).finish());

/** What every map must be that is taken over, whoever made it. */
function checkUsable(map: ClusterMap): void {
  for (let partition = 0; partition < map.partitions; partition += 1) {
    const { write, read, holders } = replicaSets(map, partition);
    for (const set of [...write, read, holders]) {
      expect(set).to.not.have.length(0);
      expect(new Set(set).size).to.equal(set.length);
    }
  }
}

describe('fuzzed cluster maps', () => {
  it('come back as they were sent, with a hash that fits', () => {
    fc.assert(
      fc.property(maps, (map) => {
        const received = mapFromProto(WireMap.decode(encode(map)));
        expect(received).to.deep.equal(map);
        expect(hashMatches(received)).to.equal(true);
        checkUsable(received);
      }),
      { numRuns: RUNS / 2 },
    );
  });

  it('are refused or can be used and sent on, whatever is done to them; their hash does not fit any more', () => {
    const hurt = maps.chain((map) =>
      fc.record({ original: fc.constant(encode(map)), encoded: damaged(fc.constant(encode(map))) }),
    );
    fc.assert(
      fc.property(hurt, ({ original, encoded }) => {
        let wire: WireMap;
        try {
          wire = WireMap.decode(encoded);
        } catch (error) {
          expect(error).to.be.instanceOf(Error);
          return;
        }
        const outcome = attempt(['INVALID_ARGUMENT'], () => mapFromProto(wire));
        if ('error' in outcome) return;
        checkUsable(outcome.value);
        expect(mapToProto(outcome.value)).to.deep.equal(wire);
        const changed = !Buffer.from(WireMap.encode(wire).finish()).equals(original);
        expect(hashMatches(outcome.value)).to.equal(!changed);
      }),
      { numRuns: 3 * RUNS },
    );
  });

  it('are refused when a number of theirs names what is not there', () => {
    const numbers = fc.record({
      epoch: fc.oneof(fc.constant(0), uint48()),
      partitions: fc.oneof(fc.nat(20), fc.nat(2 ** 32 - 1)),
      replicationFactor: fc.nat(3),
      replicas: fc.array(fc.nat(8), { maxLength: 4 }),
      phase: fc.nat(4),
      moved: fc.nat(20),
      state: fc.nat(6),
      port: fc.nat(2 ** 32 - 1),
    });
    fc.assert(
      fc.property(maps, numbers, (map, change) => {
        const wire = mapToProto(map);
        const { replicas, phase, moved, state, port: peerPort, ...fields } = change;
        const other = {
          ...wire,
          ...fields,
          members: wire.members.map((member) => ({ ...member, state: state as never, peerPort })),
          assignment: wire.assignment.map(() => ({ replicas })),
          moving: { phase, partitions: [{ partition: moved, oldReplicas: replicas, newReplicas: replicas }] },
        };
        const outcome = attempt(['INVALID_ARGUMENT'], () => mapFromProto(other));
        if ('value' in outcome) checkUsable(outcome.value);
      }),
      { numRuns: RUNS },
    );
  });
});
