import type { Clock } from '../../common/clock.ts';
import type { Hello } from '../../proto/gen/peer.ts';
import { PROTOCOL } from '../cluster/handshake.ts';
import type { VolumeIdentity } from '../cluster/identity.ts';
import type { MapHolder } from '../cluster/map-holder.ts';
import { judgeOwnPast, type OwnPast } from '../cluster/own-past.ts';
import type { PeerMemories } from '../cluster/peer-memory.ts';
import { nodeState, nodeStateToProto } from '../cluster/node-state.ts';
import type { PartitionSet } from '../cluster/partition-set.ts';
import type { Standing } from '../cluster/standing.ts';
import type { Store } from '../storage/store.ts';
import type { LogFloor } from './log-floor.ts';
import type { UnsyncedTail } from './unsynced-tail.ts';

/** What a Hello tells of the node that sends it. */
export interface HelloSources {
  readonly namespace: string;
  readonly name: string;
  readonly identity: VolumeIdentity;
  readonly maps: MapHolder;
  readonly standing: Standing;
  /** Partitions that this node would serve reads of, if its map says so. */
  readonly served: () => PartitionSet;
  readonly store: Store;
  readonly floor: LogFloor;
  readonly memories: PeerMemories;
  readonly clock: Clock;
}

/** This node's Hello to a peer: who it is, how its log lies, and what it remembers of the peer. */
export function makeHello(sources: HelloSources, to: string, tail: UnsyncedTail | undefined): Hello {
  const { identity, maps, standing, store, floor, memories, clock } = sources;
  const memory = memories.get(to);
  const applied = store.cursors().filter((cursor) => cursor.origin === to);
  return {
    minProtocol: PROTOCOL.min,
    maxProtocol: PROTOCOL.max,
    namespace: sources.namespace,
    name: sources.name,
    mapHash: maps.current?.hash ?? '',
    bootCounter: identity.bootCounter,
    nonce: identity.nonce,
    state: nodeStateToProto(nodeState(maps.current, identity.nodeId, standing)),
    head: store.head,
    logStart: floor.sequence,
    applied: applied.map(({ incarnation, sequence }) => {
      const known = memory?.incarnation === incarnation ? memory : undefined;
      return {
        incarnation,
        sequence,
        bootCounter: known?.cursorBoot ?? 0,
        durableHead: known?.durableHead ?? 0,
        tailAfter: tail?.afterOf(incarnation) ?? sequence,
      };
    }),
    ackedByRecipient: memory?.acknowledged ?? 0,
    ackedIncarnation: memory?.incarnation ?? 0,
    sequenceCeiling: store.sequenceCeiling,
    wallMs: clock.wallMs(),
    features: [],
    logBase: identity.logBase,
    recoveredHead: identity.recoveredHead,
    uncleanBoot: identity.uncleanBoot,
    readable: sources.served().toBytes(),
    replaced: [...(memory?.replaced ?? [])],
  };
}

/** What a peer's Hello shows of this node's own volume. `applied`: this node's cursor on the peer's log, if it has one. */
export function pastOf(
  identity: VolumeIdentity,
  store: Store,
  hello: Hello,
  applied: number | undefined,
): OwnPast {
  return judgeOwnPast(
    {
      bootCounter: identity.bootCounter,
      recoveredHead: identity.recoveredHead,
      sequenceCeiling: store.sequenceCeiling,
      appliedOfPeer: applied ?? hello.logBase,
    },
    {
      cursor: hello.applied.find(({ incarnation }) => incarnation === identity.incarnation),
      acknowledged: hello.ackedIncarnation === identity.incarnation ? hello.ackedByRecipient : 0,
      isReplaced: hello.replaced.includes(identity.incarnation),
    },
  );
}
