import type { ClusterMap } from '../../model/cluster-map.ts';
import type { PeerStatus } from '../../proto/gen/admin.ts';
import { StoreState } from '../../proto/gen/peer.ts';
import type { VolumeIdentity } from '../cluster/identity.ts';
import { nodeState, nodeStateToProto } from '../cluster/node-state.ts';
import type { PeerMemories } from '../cluster/peer-memory.ts';
import type { Standing } from '../cluster/standing.ts';
import type { Topology } from './topology.ts';
import type { Store } from '../storage/store.ts';
import type { Replica } from './engine.ts';
import type { Peers } from './peers.ts';

/** What the parts that own it add to the status. */
export type StatusReports = Pick<
  ReturnType<Replica['status']>,
  | 'settledEpoch'
  | 'residualPartitions'
  | 'horizonMs'
  | 'collectionFrozenReason'
  | 'equalPartitions'
  | 'writeRefusal'
>;

export interface StatusSources {
  readonly namespace: string;
  readonly name: string;
  readonly store: Store;
  readonly identity: VolumeIdentity;
  readonly standing: Standing;
  readonly topology: Topology;
  /** What other parts report of themselves. */
  readonly reports: StatusReports;
  readonly peers: Peers;
  readonly memories: PeerMemories;
  readonly map: ClusterMap | undefined;
  readonly draining: boolean;
  readonly wallMs: number;
}

/** Everything a replica reports of itself and of its peers as it sees them. */
export function statusOf(sources: StatusSources): ReturnType<Replica['status']> {
  const { store, identity, standing, topology, map } = sources;
  const filling = topology.held.filter((partition) => !standing.isReadable(partition)).length;
  const { records, stateBytes, logBytes, usedBytes, quotaBytes } = store.statistics();
  return {
    nodeId: identity.nodeId,
    namespace: sources.namespace,
    name: sources.name,
    volume:
      identity.clusterId === ''
        ? undefined
        : {
            clusterId: identity.clusterId,
            nodeId: identity.nodeId,
            incarnation: identity.incarnation,
            bootCounter: identity.bootCounter,
          },
    epoch: map?.epoch ?? 0,
    mapHash: map?.hash ?? '',
    state: nodeStateToProto(nodeState(map, identity.nodeId, standing)),
    inSync: isInSync(map, identity.nodeId, sources.peers),
    peers: othersIn(map, identity.nodeId).map((nodeId) => peerStatus(nodeId, sources)),
    partitions: store.partitions,
    readablePartitions: topology.held.length - filling,
    records,
    stateBytes,
    logBytes,
    wallMs: sources.wallMs,
    draining: sources.draining,
    usedBytes,
    quotaBytes: Number.isFinite(quotaBytes) ? quotaBytes : 0,
    fillingPartitions: filling,
    ...sources.reports,
  };
}

/** Whether this node holds everything that all other members have logged, as far as they have said. */
export function isInSync(map: ClusterMap | undefined, nodeId: string, peers: Peers): boolean {
  if (map === undefined) return false;
  return othersIn(map, nodeId).every((other) => {
    const session = peers.session(other);
    return session !== undefined && session.cursor >= session.state.head;
  });
}

function othersIn(map: ClusterMap | undefined, nodeId: string): readonly string[] {
  return (map?.members ?? []).map((member) => member.nodeId).filter((other) => other !== nodeId);
}

function peerStatus(nodeId: string, { peers, store, memories }: StatusSources): PeerStatus {
  const session = peers.session(nodeId);
  const incarnation = memories.get(nodeId)?.incarnation ?? 0;
  if (session === undefined) {
    return {
      nodeId,
      connected: false,
      state: StoreState.STORE_STATE_UNSPECIFIED,
      behind: 0,
      ahead: 0,
      clockOffsetMs: 0,
      connectedTo: [],
      incarnation,
    };
  }
  const { state, head, clockOffsetMs, connected } = session.state;
  return {
    nodeId,
    connected: true,
    state: state === undefined ? StoreState.STORE_STATE_UNSPECIFIED : nodeStateToProto(state),
    behind: Math.max(0, head - session.cursor),
    ahead: Math.max(0, store.head - session.acknowledged),
    clockOffsetMs: Math.round(clockOffsetMs),
    connectedTo: [...connected],
    incarnation,
  };
}
