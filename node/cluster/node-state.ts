import type { ClusterMap } from '../../model/cluster-map.ts';
import { partitionsHeldBy, replicaSets } from '../../model/replica-sets.ts';
import { StoreState } from '../../proto/gen/peer.ts';
import type { Standing } from './standing.ts';

/**
 * A node's standing in one word.
 *
 * - `blank`: has never served, nor joined a cluster in use.
 * - `readable`: serves every partition that the map reads from it.
 * - `rebuilding`: has yet to get, or to get back, some of them.
 */
export type NodeState = 'blank' | 'readable' | 'rebuilding';

/** Partitions that the map reads from a node and that are not readable there. */
export function missingPartitions(
  map: ClusterMap,
  nodeId: string,
  standing: Pick<Standing, 'isReadable'>,
): readonly number[] {
  return partitionsHeldBy(map, nodeId).filter(
    (partition) => !standing.isReadable(partition) && replicaSets(map, partition).read.includes(nodeId),
  );
}

/** The state of a node under the map it holds. */
export function nodeState(
  map: ClusterMap | undefined,
  nodeId: string,
  standing: Pick<Standing, 'isReadable' | 'begun'>,
): NodeState {
  if (map === undefined || !standing.begun) return standing.begun ? 'rebuilding' : 'blank';
  return missingPartitions(map, nodeId, standing).length === 0 ? 'readable' : 'rebuilding';
}

const WIRE_STATES: Record<NodeState, StoreState> = {
  blank: StoreState.BLANK,
  readable: StoreState.READABLE,
  rebuilding: StoreState.REBUILDING,
};

/** The state as peers and the admin service see it. */
export function nodeStateToProto(state: NodeState): StoreState {
  return WIRE_STATES[state];
}

/** The state that a peer announced; undefined when this version does not know it. */
export function nodeStateFromProto(wire: StoreState): NodeState | undefined {
  return (Object.keys(WIRE_STATES) as NodeState[]).find((state) => WIRE_STATES[state] === wire);
}
