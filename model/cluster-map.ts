import { createHash } from 'node:crypto';

export type MemberState = 'active' | 'draining' | 'down';

/** A node of the cluster as the map knows it. */
export interface Member {
  /** Stable name: the pod's, with `-w<n>` appended for workers beyond the first. Never an address. */
  readonly nodeId: string;
  /** DNS label within the headless Service, or an IP address where there is none. */
  readonly host: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly httpPort: number;
  /** Failure domain, empty when unknown. */
  readonly zone: string;
  readonly state: MemberState;
  /** Pod or machine; replicas of one partition never share it. */
  readonly pod: string;
}

/** An incarnation that must not come back. */
export interface RetiredMember {
  readonly nodeId: string;
  readonly incarnation: number;
}

/** A change of placement under way: phase 1 writes to old and new owners and reads from old, phase 2 reads from new. */
export interface Move {
  readonly phase: number;
  readonly partitions: readonly {
    readonly partition: number;
    readonly oldReplicas: readonly number[];
    readonly newReplicas: readonly number[];
  }[];
}

/**
 * Who is in the cluster and who holds what. One writer (the operator, the local runner or kvctl) changes it as a whole
 * by compare-and-set on (epoch, hash); nodes store it and pass it on.
 */
export interface ClusterMap {
  /** 32 hex digits, minted once. */
  readonly clusterId: string;
  readonly namespace: string;
  readonly name: string;
  /** Raised by one at each change, from 1. */
  readonly epoch: number;
  /** Hex SHA-256 of the canonical form of everything else. */
  readonly hash: string;
  readonly partitions: number;
  /** Desired copies; `replicasOf` is never longer than there are distinct pods. */
  readonly replicationFactor: number;
  /** False until every first member has acknowledged the first map. */
  readonly initialised: boolean;
  readonly members: readonly Member[];
  readonly retired: readonly RetiredMember[];
  /** Per partition, indexes into `members`. */
  readonly assignment: readonly (readonly number[])[];
  readonly moving?: Move;
}

/** A map before its hash is known. */
export type MapContent = Omit<ClusterMap, 'hash'>;

/** Completes a map with its hash. */
export function sealMap(content: MapContent): ClusterMap {
  return { ...content, hash: hashOf(content) };
}

/** Whether the map's hash is the hash of its content. */
export function hashMatches(map: ClusterMap): boolean {
  return hashOf(map) === map.hash;
}

function hashOf(content: MapContent & { hash?: string }): string {
  return createHash('sha256')
    .update(canonicalJson({ ...content, hash: undefined }))
    .digest('hex');
}

/** JSON with sorted object keys and without undefined: equal content gives equal text on every node. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/** How a map relates to the one already held. */
export type MapOrder = 'newer' | 'same' | 'older' | 'conflict' | 'foreign';

/**
 * Compares a proposed map with the held one: `conflict` is an equal epoch with another hash, which must be alarmed;
 * `foreign` is another cluster's.
 */
export function compareMaps(proposed: ClusterMap, held: ClusterMap | undefined): MapOrder {
  if (held === undefined) return 'newer';
  if (proposed.clusterId !== held.clusterId) return 'foreign';
  if (proposed.epoch !== held.epoch) return proposed.epoch > held.epoch ? 'newer' : 'older';
  return proposed.hash === held.hash ? 'same' : 'conflict';
}

/** The member of that name. */
export function memberOf(map: ClusterMap, nodeId: string): Member | undefined {
  return map.members.find((member) => member.nodeId === nodeId);
}

/** The members that hold a partition, coordinators first by assignment order. */
export function replicasOf(map: ClusterMap, partition: number): readonly Member[] {
  return (map.assignment[partition] ?? []).flatMap((index) => map.members[index] ?? []);
}

/** Q(P): how many of `replicas` are a majority. */
export function quorumOf(replicas: number): number {
  return Math.floor(replicas / 2) + 1;
}
