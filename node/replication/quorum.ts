import { quorumOf } from '../../model/cluster-map.ts';
import type { ReplicaSets } from '../../model/replica-sets.ts';
import type { Consistency } from './engine.ts';

/** How many of a set of replicas take part before the answer: W for writes, R for reads. */
export function requiredReplicas(consistency: Consistency, replicas: number): number {
  switch (consistency) {
    case 'ONE':
      return 1;
    case 'QUORUM':
      return quorumOf(replicas);
    case 'ALL':
      return replicas;
  }
}

/** Who holds a write durably, and of whom it is known that it held everything it has to when it said so. */
export interface Holders {
  has(nodeId: string): boolean;
  wasReadable(nodeId: string): boolean;
}

/**
 * Whether enough members of EACH write set hold a write (PROTOCOL 31).
 *
 * A replica that has lost its data takes writes and keeps them durably, but it cannot know that a newer version was
 * acknowledged before. So at QUORUM and ALL, of the set that is read, |set| - Q + 1 holders must be readable: every
 * earlier acknowledged write has a holder among them, which says SUPERSEDED when it must (PROTOCOL 3).
 */
export function isWriteQuorum(sets: ReplicaSets, consistency: Consistency, holders: Holders): boolean {
  const enough = sets.write.every(
    (set) => count(set, (nodeId) => holders.has(nodeId)) >= requiredReplicas(consistency, set.length),
  );
  if (!enough || consistency === 'ONE') return enough;
  const { read } = sets;
  const knowing = count(read, (nodeId) => holders.has(nodeId) && holders.wasReadable(nodeId));
  return knowing >= rebuildSources(read.length);
}

/** For a person: how many of each write set there are, and how many are needed. */
export function describeQuorum(sets: ReplicaSets, consistency: Consistency, holders: Holders): string {
  const parts = sets.write.map((set) => {
    const which = sets.write.length === 1 ? '' : set === sets.write[0] ? 'old ' : 'new ';
    const held = count(set, (nodeId) => holders.has(nodeId));
    return `${held} of ${set.length} ${which}replicas, ${requiredReplicas(consistency, set.length)} needed`;
  });
  const { read } = sets;
  const unknowing = count(read, (nodeId) => holders.has(nodeId) && !holders.wasReadable(nodeId));
  if (unknowing > 0)
    parts.push(`${unknowing} of them not readable, and ${rebuildSources(read.length)} must be`);
  return parts.join(' and ');
}

/**
 * How many replicas of a read set have to be compared with before a replica may serve: |replicas| - W + 1 with
 * W = QUORUM, so that one of them took part in every write that was acknowledged at QUORUM (PROTOCOL 32).
 */
export function rebuildSources(replicas: number): number {
  return replicas - quorumOf(replicas) + 1;
}

function count(set: readonly string[], has: (nodeId: string) => boolean): number {
  let sum = 0;
  for (const nodeId of set) if (has(nodeId)) sum += 1;
  return sum;
}
