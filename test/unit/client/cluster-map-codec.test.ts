import { expect } from 'chai';
import { mapFromProto, mapToProto } from '../../../client/cluster-map-codec.ts';
import { KvError } from '../../../common/errors.ts';
import { sealMap, type ClusterMap } from '../../../model/cluster-map.ts';
import { place } from '../../../model/placement.ts';
import { ClusterMap as WireMap } from '../../../proto/gen/kvstore.ts';

const members = ['a', 'b', 'c'].map((nodeId) => ({
  nodeId,
  host: '127.0.0.1',
  clientPort: 50051,
  peerPort: 50052,
  httpPort: 9090,
  zone: 'z',
  state: 'active' as const,
  pod: nodeId,
}));

const map: ClusterMap = sealMap({
  clusterId: '0123456789abcdef0123456789abcdef',
  namespace: 'default',
  name: 'sample',
  epoch: 7,
  partitions: 4,
  replicationFactor: 3,
  initialised: true,
  members,
  retired: [{ nodeId: 'd', incarnation: 281474976710655 }],
  assignment: place({ members, partitions: 4, replicationFactor: 3 }),
  moving: { phase: 1, partitions: [{ partition: 3, oldReplicas: [0, 1], newReplicas: [1, 2] }] },
});

const overTheWire = (wire: WireMap): WireMap => WireMap.decode(WireMap.encode(wire).finish());

describe('cluster map codec', () => {
  it('carries every field, so that the hash still fits', () => {
    const { hash, ...content } = mapFromProto(overTheWire(mapToProto(map)));
    expect({ hash, ...content }).to.deep.equal(map);
    expect(sealMap(content).hash).to.equal(hash);
  });

  it('keeps a map without a move without one', () => {
    const { moving, ...rest } = map;
    expect(moving).to.not.equal(undefined);
    expect(mapFromProto(overTheWire(mapToProto(rest)))).to.not.have.property('moving');
  });

  const cases: readonly [string, (wire: WireMap) => Partial<WireMap>, string][] = [
    ['a short cluster id', () => ({ clusterId: 'abc' }), 'cluster_id'],
    ['epoch 0', () => ({ epoch: 0 }), 'epoch'],
    ['no partitions', () => ({ partitions: 0 }), '0 partitions'],
    [
      'a missing assignment',
      (wire) => ({ assignment: wire.assignment.slice(1) }),
      '3 assignments for 4 partitions',
    ],
    [
      'an index without a member',
      () => ({ assignment: Array.from({ length: 4 }, () => ({ replicas: [3] })) }),
      'not there',
    ],
    [
      'a member twice',
      () => ({ assignment: Array.from({ length: 4 }, () => ({ replicas: [1, 1] })) }),
      'twice',
    ],
    [
      'two members of one name',
      (wire) => ({ members: wire.members.map((m) => ({ ...m, nodeId: 'a' })) }),
      'share a name',
    ],
    [
      'a member without a name',
      (wire) => ({ members: wire.members.map((m) => ({ ...m, nodeId: '' })) }),
      'the name of a member is empty',
    ],
    [
      'an unknown state',
      (wire) => ({ members: wire.members.map((m) => ({ ...m, state: 9 as never })) }),
      'unknown state 9',
    ],
    [
      'a port too high',
      (wire) => ({ members: wire.members.map((m) => ({ ...m, peerPort: 70_000 })) }),
      'port 70000',
    ],
    [
      'an assignment of nobody',
      () => ({ assignment: Array.from({ length: 4 }, () => ({ replicas: [] })) }),
      'partition 0 has no replicas',
    ],
    [
      'a move to nobody',
      () => ({ moving: { phase: 1, partitions: [{ partition: 3, oldReplicas: [0], newReplicas: [] }] } }),
      'partition 3 has no replicas',
    ],
    [
      'a move twice',
      () => ({
        moving: {
          phase: 2,
          partitions: Array.from({ length: 2 }, () => ({ partition: 3, oldReplicas: [0], newReplicas: [1] })),
        },
      }),
      'moves a partition twice',
    ],
    [
      'a phase that it does not know',
      () => ({ moving: { phase: 3, partitions: [{ partition: 3, oldReplicas: [0], newReplicas: [1] }] } }),
      'unknown phase 3',
    ],
    ['an epoch beyond 48 bits', () => ({ epoch: 2 ** 48 }), 'epoch is 281474976710656'],
    ['a hash that is none', () => ({ hash: 'abc' }), 'hash is not 64 hex digits'],
    ['no namespace', () => ({ namespace: '' }), 'namespace is empty'],
    ['a name like a book', () => ({ name: 'n'.repeat(254) }), 'name has 254 bytes'],
    [
      'a member at no address',
      (wire) => ({ members: wire.members.map((m) => ({ ...m, host: '' })) }),
      'host of member a is empty',
    ],
    [
      'an incarnation beyond 48 bits',
      () => ({ retired: [{ nodeId: 'd', incarnation: 2 ** 48 }] }),
      'retired incarnation 281474976710656',
    ],
    [
      'very many members',
      (wire) => ({
        members: Array.from({ length: 4097 }, (_, i) => ({ ...wire.members[0]!, nodeId: `n${i}` })),
      }),
      '4097 members',
    ],
    [
      'a move of nothing',
      () => ({ moving: { phase: 1, partitions: [{ partition: 4, oldReplicas: [], newReplicas: [] }] } }),
      'partition 4 of 4',
    ],
  ];
  for (const [what, change, words] of cases) {
    it(`refuses ${what}`, () => {
      const wire = mapToProto(map);
      const read = (): ClusterMap => mapFromProto(overTheWire({ ...wire, ...change(wire) }));
      expect(read).to.throw(KvError, words).with.property('code', 'INVALID_ARGUMENT');
    });
  }
});
