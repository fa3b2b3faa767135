import type { Hello, Heartbeat } from '../../proto/gen/peer.ts';
import { PartitionSet } from '../cluster/partition-set.ts';
import { type NodeState, nodeStateFromProto } from '../cluster/node-state.ts';

/** What a connected peer last said of itself. */
export interface PeerState {
  /** Undefined when this version does not know the state. */
  readonly state: NodeState | undefined;
  /** Sequence of its newest own entry. */
  readonly head: number;
  /** Whether it takes writes; false while it drains. */
  readonly accepting: boolean;
  /** Its wall clock minus this node's, milliseconds. */
  readonly clockOffsetMs: number;
  /** Names of the peers it is connected with. */
  readonly connected: readonly string[];
  /** Partitions that it would serve reads of, if its map says so. */
  readonly readable: PartitionSet;
  /** Every own version with a lower wall clock is held by all its replicas, milliseconds; 0: not known. */
  readonly lowWaterMs: number;
  /** What `settled` is about. */
  readonly label: Buffer;
  /** Partitions of which it has completed comparisons with all other replicas, begun under that label. */
  readonly settled: PartitionSet;
}

export function stateOfHello(hello: Hello, wallMs: number, partitions: number): PeerState {
  return {
    state: nodeStateFromProto(hello.state),
    head: hello.head,
    accepting: true,
    clockOffsetMs: hello.wallMs - wallMs,
    connected: [],
    readable: PartitionSet.fromBytes(hello.readable, partitions),
    lowWaterMs: 0,
    label: Buffer.alloc(0),
    settled: new PartitionSet(partitions),
  };
}

export function stateOfHeartbeat(heartbeat: Heartbeat, wallMs: number, partitions: number): PeerState {
  return {
    state: nodeStateFromProto(heartbeat.state),
    head: heartbeat.head,
    accepting: heartbeat.accepting,
    clockOffsetMs: heartbeat.wallMs - wallMs,
    connected: heartbeat.connected,
    readable: PartitionSet.fromBytes(heartbeat.readable, partitions),
    lowWaterMs: heartbeat.lowWaterMs,
    label: heartbeat.label,
    settled: PartitionSet.fromBytes(heartbeat.settled, partitions),
  };
}
