import type { Hello, Heartbeat } from '../../proto/gen/peer.ts';
import { type ServingState, stateFromProto } from '../cluster/serving-mark.ts';

/** What a connected peer last said of itself. */
export interface PeerState {
  /** Undefined when this version does not know the state. */
  readonly state: ServingState | undefined;
  /** Sequence of its newest own entry. */
  readonly head: number;
  /** Whether it takes writes; false while it drains. */
  readonly accepting: boolean;
  /** Its wall clock minus this node's, milliseconds. */
  readonly clockOffsetMs: number;
  /** Names of the peers it is connected with. */
  readonly connected: readonly string[];
}

export function stateOfHello(hello: Hello, wallMs: number): PeerState {
  return {
    state: stateFromProto(hello.state),
    head: hello.head,
    accepting: true,
    clockOffsetMs: hello.wallMs - wallMs,
    connected: [],
  };
}

export function stateOfHeartbeat(heartbeat: Heartbeat, wallMs: number): PeerState {
  return {
    state: stateFromProto(heartbeat.state),
    head: heartbeat.head,
    accepting: heartbeat.accepting,
    clockOffsetMs: heartbeat.wallMs - wallMs,
    connected: heartbeat.connected,
  };
}
