import { type ClusterMap, memberOf } from '../../model/cluster-map.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { partitionsHeldBy, type ReplicaSets, replicaSets } from '../../model/replica-sets.ts';
import type { PeerState } from './peer-state.ts';

/** What operations need to know of the cluster, by the map this node holds now. */
export interface Topology {
  readonly nodeId: string;
  readonly map: ClusterMap | undefined;
  /** 0 without a map. */
  readonly epoch: number;
  /** Names of all other members. */
  readonly others: readonly string[];
  /** Partitions that this node keeps, ascending. */
  readonly held: readonly number[];
  partitionOf(key: Buffer): number;
  /** @throws RangeError without a map. */
  setsOf(partition: number): ReplicaSets;
  /** Whether this node keeps the partition. */
  holds(partition: number): boolean;
  /** Whether this node is a readable replica of the partition: it serves reads and coordinates writes. */
  serves(partition: number): boolean;
  /** Whether another member is connected and takes writes. */
  isWritable(nodeId: string): boolean;
  /** Whether another member is connected and holds everything of a partition that it has to. */
  isReadable(nodeId: string, partition: number): boolean;
  /** Whether another member is connected, takes operations, and is a readable replica of the partition. */
  isServing(nodeId: string, partition: number): boolean;
}

export interface TopologyOptions {
  readonly nodeId: string;
  readonly partitions: number;
  /** Whether this node serves reads of a partition, if the map says so. */
  readonly serving: (partition: number) => boolean;
  readonly map: () => ClusterMap | undefined;
  /** What a connected member says of itself. */
  readonly peer: (nodeId: string) => PeerState | undefined;
}

const NO_PARTITIONS: readonly number[] = [];

/** The map as seen from this node. */
export function createTopology(options: TopologyOptions): Topology {
  const { nodeId, partitions, serving, map, peer } = options;
  const setsOf = (partition: number): ReplicaSets => {
    const current = map();
    if (current === undefined) throw new RangeError('there is no map');
    return replicaSets(current, partition);
  };
  return {
    nodeId,
    get map() {
      return map();
    },
    get epoch() {
      return map()?.epoch ?? 0;
    },
    get others() {
      return (map()?.members ?? []).flatMap((member) => (member.nodeId === nodeId ? [] : member.nodeId));
    },
    get held() {
      const current = map();
      return current === undefined ? NO_PARTITIONS : partitionsHeldBy(current, nodeId);
    },
    partitionOf: (key) => partitionOf(key, partitions),
    setsOf,
    holds: (partition) => map() !== undefined && setsOf(partition).holders.includes(nodeId),
    serves: (partition) =>
      map() !== undefined && serving(partition) && setsOf(partition).read.includes(nodeId),
    isWritable: (other) => peer(other)?.accepting === true,
    isReadable: (other, partition) => peer(other)?.readable.has(partition) === true,
    isServing(other, partition) {
      const state = peer(other);
      return state !== undefined && state.accepting && state.readable.has(partition);
    },
  };
}

/** Why this node serves nothing at all; undefined when it has a map that lists it. */
export function standingOutside(map: ClusterMap | undefined, nodeId: string): string | undefined {
  if (map === undefined) return `${nodeId} has no cluster map yet`;
  if (memberOf(map, nodeId) === undefined) return `the map of epoch ${map.epoch} does not list ${nodeId}`;
  return undefined;
}
