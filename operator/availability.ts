import { type ClusterMap, quorumOf } from '../model/cluster-map.ts';
import { replicaSets } from '../model/replica-sets.ts';
import type { GetStatusResponse } from '../proto/gen/admin.ts';
import { StoreState } from '../proto/gen/peer.ts';

export interface Availability {
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: string;
  readonly message: string;
}

/** What a node answered, and whether there was one to ask. */
export interface AskedNode {
  readonly nodeId: string;
  /** Its pod runs. */
  readonly running: boolean;
  readonly answer: GetStatusResponse | undefined;
}

/**
 * Whether every partition has a write quorum of active members that reach each other, from the nodes' own answers: that
 * pods are Ready says nothing about the network between them. A member that does not answer us is judged by what its
 * peers say of it.
 */
export function availabilityOf(map: ClusterMap | undefined, nodes: readonly AskedNode[]): Availability {
  if (map === undefined) {
    return { status: 'False', reason: 'NoClusterMap', message: 'The cluster has not started yet.' };
  }
  if (nodes.every(({ answer }) => answer === undefined)) {
    return nodes.some(({ running }) => running)
      ? {
          status: 'Unknown',
          reason: 'NodesUnreachable',
          message: 'No node answers the operator (NetworkPolicy?).',
        }
      : { status: 'False', reason: 'NoNodeRunning', message: 'No node is running.' };
  }
  const lacking = partitionsWithoutQuorum(map, nodes);
  if (lacking.length === 0) {
    return { status: 'True', reason: 'QuorumReachable', message: 'Every partition has a write quorum.' };
  }
  return {
    status: 'False',
    reason: 'QuorumLost',
    message:
      `${lacking.length} of ${map.partitions} partitions have no write quorum of members that reach each other; ` +
      'bring back the nodes that are down, or the network between them.',
  };
}

/** Partitions that cannot be written at QUORUM now. */
export function partitionsWithoutQuorum(map: ClusterMap, nodes: readonly AskedNode[]): readonly number[] {
  const network = new Network(map, nodes);
  const decided = new Map<string, boolean>();
  const isAvailable = (set: readonly string[]): boolean => {
    const key = set.toSorted().join(' ');
    const known = decided.get(key);
    if (known !== undefined) return known;
    const available = network.hasQuorum(set);
    decided.set(key, available);
    return available;
  };
  // A partition that moves is written to the old and to the new owners.
  return map.assignment.flatMap((_replicas, partition) =>
    replicaSets(map, partition).write.every(isAvailable) ? [] : [partition],
  );
}

/** Who is active and who reaches whom, as far as anybody who answered knows. */
class Network {
  private readonly answers: ReadonlyMap<string, GetStatusResponse>;
  private readonly active: ReadonlySet<string>;

  constructor(map: ClusterMap, nodes: readonly AskedNode[]) {
    const answers = nodes.flatMap(({ nodeId, answer }) =>
      answer === undefined ? [] : [[nodeId, answer] as const],
    );
    this.answers = new Map(answers);
    this.active = new Set(map.members.map(({ nodeId }) => nodeId).filter((nodeId) => this.isActive(nodeId)));
  }

  /** Whether a majority of these are active and each of them reaches each other. */
  hasQuorum(replicas: readonly string[]): boolean {
    const candidates = replicas.filter((nodeId) => this.active.has(nodeId));
    return this.hasClique(candidates, [], quorumOf(replicas.length));
  }

  private hasClique(rest: readonly string[], chosen: readonly string[], size: number): boolean {
    if (chosen.length >= size) return true;
    if (chosen.length + rest.length < size) return false;
    const [next, ...others] = rest;
    if (next === undefined) return false;
    const fits = chosen.every((nodeId) => this.reaches(next, nodeId));
    return (fits && this.hasClique(others, [...chosen, next], size)) || this.hasClique(others, chosen, size);
  }

  private isActive(nodeId: string): boolean {
    const answer = this.answers.get(nodeId);
    if (answer !== undefined) return answer.state === StoreState.READABLE && !answer.draining;
    return [...this.answers.values()].some(({ peers }) =>
      peers.some((peer) => peer.nodeId === nodeId && peer.connected && peer.state === StoreState.READABLE),
    );
  }

  private reaches(a: string, b: string): boolean {
    const fromA = this.connectionsOf(a);
    const fromB = this.connectionsOf(b);
    if (fromA === undefined && fromB === undefined) return false;
    return (fromA?.has(b) ?? true) && (fromB?.has(a) ?? true);
  }

  /** Whom a member reaches, by itself or as its peers repeat it; undefined when nobody knows. */
  private connectionsOf(nodeId: string): ReadonlySet<string> | undefined {
    const own = this.answers.get(nodeId);
    if (own !== undefined) {
      return new Set(own.peers.filter(({ connected }) => connected).map((peer) => peer.nodeId));
    }
    const reports = [...this.answers.values()].flatMap(({ peers }) =>
      peers.filter((peer) => peer.nodeId === nodeId && peer.connected),
    );
    return reports.length === 0 ? undefined : new Set(reports.flatMap(({ connectedTo }) => connectedTo));
  }
}
