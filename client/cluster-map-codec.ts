import { KvError } from '../common/errors.ts';
import type { ClusterMap, MemberState } from '../model/cluster-map.ts';
import { MemberState as WireState, type ClusterMap as WireMap } from '../proto/gen/kvstore.ts';

const toWire: Record<MemberState, WireState> = {
  active: WireState.ACTIVE,
  draining: WireState.DRAINING,
  down: WireState.DOWN,
};
const fromWire = new Map<WireState, MemberState>([
  [WireState.ACTIVE, 'active'],
  [WireState.DRAINING, 'draining'],
  [WireState.DOWN, 'down'],
]);

/** The cluster map as the wire carries it. */
export function mapToProto(map: ClusterMap): WireMap {
  return {
    ...map,
    members: map.members.map((member) => ({ ...member, state: toWire[member.state] })),
    retired: map.retired.map((retired) => ({ ...retired })),
    assignment: map.assignment.map((replicas) => ({ replicas: [...replicas] })),
    moving:
      map.moving === undefined
        ? undefined
        : {
            phase: map.moving.phase,
            partitions: map.moving.partitions.map(({ partition, oldReplicas, newReplicas }) => ({
              partition,
              oldReplicas: [...oldReplicas],
              newReplicas: [...newReplicas],
            })),
          },
  };
}

/**
 * The cluster map that the wire carried. Whether its hash fits is for the one who takes it over (`hashMatches`).
 *
 * @throws KvError INVALID_ARGUMENT for a member state that this version does not know.
 */
export function mapFromProto(wire: WireMap): ClusterMap {
  const { moving, ...rest } = wire;
  return {
    ...rest,
    members: wire.members.map((member) => {
      const state = fromWire.get(member.state);
      if (state === undefined) {
        throw new KvError(
          'INVALID_ARGUMENT',
          `member ${member.nodeId} has an unknown state (${member.state})`,
        );
      }
      return { ...member, state };
    }),
    assignment: wire.assignment.map(({ replicas }) => replicas),
    ...(moving === undefined ? {} : { moving }),
  };
}
