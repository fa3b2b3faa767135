import { KvError } from '../common/errors.ts';
import type { ClusterMap, Member, MemberState, Move } from '../model/cluster-map.ts';
import {
  MemberState as WireState,
  type ClusterMap as WireMap,
  type Member as WireMember,
} from '../proto/gen/kvstore.ts';

/** Partitions are stored as 16-bit numbers. */
const MAX_PARTITIONS = 65_536;
const MAX_PORT = 65_535;
const MAX_UINT48 = 2 ** 48 - 1;
/** Longest name of anything, bytes: that of a DNS name. */
const MAX_NAME_BYTES = 253;
const MAX_MEMBERS = 4096;

const TO_WIRE: Readonly<Record<MemberState, WireState>> = {
  active: WireState.ACTIVE,
  draining: WireState.DRAINING,
  down: WireState.DOWN,
};
const FROM_WIRE = new Map<WireState, MemberState>([
  [WireState.ACTIVE, 'active'],
  [WireState.DRAINING, 'draining'],
  [WireState.DOWN, 'down'],
]);

/** The map as messages carry it. */
export function mapToProto(map: ClusterMap): WireMap {
  return {
    clusterId: map.clusterId,
    namespace: map.namespace,
    name: map.name,
    epoch: map.epoch,
    hash: map.hash,
    partitions: map.partitions,
    replicationFactor: map.replicationFactor,
    initialised: map.initialised,
    members: map.members.map((member) => ({ ...member, state: TO_WIRE[member.state] })),
    retired: map.retired.map((retired) => ({ ...retired })),
    assignment: map.assignment.map((replicas) => ({ replicas: [...replicas] })),
    moving: map.moving === undefined ? undefined : moveToWire(map.moving),
  };
}

function moveToWire(move: Move): NonNullable<WireMap['moving']> {
  return {
    phase: move.phase,
    partitions: move.partitions.map(({ partition, oldReplicas, newReplicas }) => ({
      partition,
      oldReplicas: [...oldReplicas],
      newReplicas: [...newReplicas],
    })),
  };
}

/**
 * The map of a message, checked: sizes, indexes, names, ports, states and phases. Every partition has replicas, and so has
 * each side of a move: of none of them, all would be said to hold a write. Whether its hash fits is for the one who
 * takes it over (`hashMatches`).
 *
 * @throws KvError INVALID_ARGUMENT naming the first thing that is wrong.
 */
export function mapFromProto(wire: WireMap): ClusterMap {
  if (!/^[0-9a-f]{32}$/.test(wire.clusterId)) throw invalid('cluster_id is not 32 hex digits');
  checkName('namespace', wire.namespace);
  checkName('name', wire.name);
  if (wire.epoch < 1 || wire.epoch > MAX_UINT48) throw invalid(`epoch is ${wire.epoch}`);
  if (!/^[0-9a-f]{64}$/.test(wire.hash)) throw invalid('hash is not 64 hex digits');
  if (wire.partitions < 1 || wire.partitions > MAX_PARTITIONS) {
    throw invalid(`${wire.partitions} partitions are not between 1 and ${MAX_PARTITIONS}`);
  }
  if (wire.replicationFactor < 1) throw invalid('replication_factor is 0');
  if (wire.members.length > MAX_MEMBERS) {
    throw invalid(`${wire.members.length} members are more than ${MAX_MEMBERS}`);
  }
  const members = wire.members.map(memberFromWire);
  if (new Set(members.map(({ nodeId }) => nodeId)).size !== members.length) {
    throw invalid('two members share a name');
  }
  if (wire.assignment.length !== wire.partitions) {
    throw invalid(`${wire.assignment.length} assignments for ${wire.partitions} partitions`);
  }
  return {
    clusterId: wire.clusterId,
    namespace: wire.namespace,
    name: wire.name,
    epoch: wire.epoch,
    hash: wire.hash,
    partitions: wire.partitions,
    replicationFactor: wire.replicationFactor,
    initialised: wire.initialised,
    members,
    retired: wire.retired.map(retiredFromWire),
    assignment: wire.assignment.map(({ replicas }, partition) =>
      checkReplicas(replicas, members.length, partition),
    ),
    ...(wire.moving === undefined
      ? {}
      : { moving: moveFromWire(wire.moving, members.length, wire.partitions) }),
  };
}

function memberFromWire(wire: WireMember): Member {
  const state = FROM_WIRE.get(wire.state);
  checkName('the name of a member', wire.nodeId);
  checkName(`the host of member ${wire.nodeId}`, wire.host);
  checkName(`the pod of member ${wire.nodeId}`, wire.pod);
  if (wire.zone !== '') checkName(`the zone of member ${wire.nodeId}`, wire.zone);
  if (state === undefined) throw invalid(`member ${wire.nodeId} has unknown state ${wire.state}`);
  for (const port of [wire.clientPort, wire.peerPort, wire.httpPort]) {
    if (port > MAX_PORT) throw invalid(`member ${wire.nodeId} has port ${port}`);
  }
  const { nodeId, host, clientPort, peerPort, httpPort, zone, pod } = wire;
  return { nodeId, host, clientPort, peerPort, httpPort, zone, state, pod };
}

function retiredFromWire({ nodeId, incarnation }: WireMap['retired'][number]): ClusterMap['retired'][number] {
  checkName('the name of a retired member', nodeId);
  if (incarnation < 1 || incarnation > MAX_UINT48) {
    throw invalid(`${nodeId} has a retired incarnation ${incarnation}`);
  }
  return { nodeId, incarnation };
}

function moveFromWire(wire: NonNullable<WireMap['moving']>, members: number, partitions: number): Move {
  // Whoever does not know a phase does not know from whom to read.
  if (wire.phase !== 1 && wire.phase !== 2) throw invalid(`a move has the unknown phase ${wire.phase}`);
  if (new Set(wire.partitions.map(({ partition }) => partition)).size !== wire.partitions.length) {
    throw invalid('it moves a partition twice');
  }
  return {
    phase: wire.phase,
    partitions: wire.partitions.map(({ partition, oldReplicas, newReplicas }) => {
      if (partition >= partitions) throw invalid(`it moves partition ${partition} of ${partitions}`);
      return {
        partition,
        oldReplicas: checkReplicas(oldReplicas, members, partition),
        newReplicas: checkReplicas(newReplicas, members, partition),
      };
    }),
  };
}

function checkReplicas(replicas: readonly number[], members: number, partition: number): readonly number[] {
  if (replicas.length === 0) throw invalid(`partition ${partition} has no replicas`);
  if (replicas.some((index) => index >= members))
    throw invalid(`partition ${partition} names a member that is not there`);
  if (new Set(replicas).size !== replicas.length)
    throw invalid(`partition ${partition} names a member twice`);
  return [...replicas];
}

function checkName(what: string, name: string): void {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0) throw invalid(`${what} is empty`);
  if (bytes > MAX_NAME_BYTES) throw invalid(`${what} has ${bytes} bytes`);
}

function invalid(what: string): KvError {
  return new KvError('INVALID_ARGUMENT', `bad cluster map: ${what}`);
}
