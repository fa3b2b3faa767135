import { type ClusterMap, type Member, memberOf, quorumOf } from '../cluster-map.ts';

/** What a node answers about itself (GetStatus), as far as changing the map depends on it. */
export interface MemberReport {
  /** Of the map it holds durably; 0 and '' without one. */
  readonly epoch: number;
  readonly mapHash: string;
  /** Of its volume; 0 for a blank one. */
  readonly incarnation: number;
  /** Epoch of the move whose partitions it has filled and compared as a new owner; 0: none. */
  readonly settledEpoch: number;
  /** Partitions it still stores that the map does not give it any more. */
  readonly residualPartitions: number;
  /** Partitions it holds by the map and cannot serve yet. */
  readonly fillingPartitions: number;
  /** The incarnation that it last accepted of each other member, where it knows one. */
  readonly peerIncarnations?: ReadonlyMap<string, number> | undefined;
}

/** By node id; a node that cannot be asked is missing. */
export type Reports = ReadonlyMap<string, MemberReport>;

/** Whether a member holds exactly this map. */
export function hasTaken(map: ClusterMap, report: MemberReport | undefined): boolean {
  return report?.epoch === map.epoch && report.mapHash === map.hash;
}

/** Whether a member takes part: not marked down, and it answers. */
export function isUp({ nodeId, state }: Member, reports: Reports): boolean {
  return state !== 'down' && reports.has(nodeId);
}

/** How many of a partition's owners must be compared with to have seen every write acknowledged at QUORUM. */
export function sourcesNeeded(owners: number): number {
  return owners - quorumOf(owners) + 1;
}

/** Who of these a new owner can be filled from: members that are up and serve all that they hold. */
export function sourcesAmong(
  map: ClusterMap,
  nodeIds: readonly string[],
  reports: Reports,
): readonly string[] {
  return nodeIds.filter((nodeId) => {
    const member = memberOf(map, nodeId);
    return member !== undefined && isUp(member, reports) && reports.get(nodeId)?.fillingPartitions === 0;
  });
}
