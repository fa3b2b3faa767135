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

/** Whether enough members of EACH write set are among those that `has` names (PROTOCOL 31). */
export function isWriteQuorum(
  sets: ReplicaSets,
  consistency: Consistency,
  has: (nodeId: string) => boolean,
): boolean {
  return sets.write.every(
    (set) => count(set, has) >= Math.min(set.length, requiredReplicas(consistency, set.length)),
  );
}

/** For a person: how many of each write set there are, and how many are needed. */
export function describeQuorum(
  sets: ReplicaSets,
  consistency: Consistency,
  has: (nodeId: string) => boolean,
): string {
  return sets.write
    .map((set) => {
      const which = sets.write.length === 1 ? '' : set === sets.write[0] ? 'old ' : 'new ';
      return `${count(set, has)} of ${set.length} ${which}replicas, ${requiredReplicas(consistency, set.length)} needed`;
    })
    .join(' and ');
}

/**
 * How many replicas of a read set have to be compared with before a replica may serve: |replicas| - W + 1 with
 * W = QUORUM, so that one of them took part in every write that was acknowledged at QUORUM (PROTOCOL 32).
 */
export function rebuildSources(replicas: number): number {
  return replicas - quorumOf(replicas) + 1;
}

function count(set: readonly string[], has: (nodeId: string) => boolean): number {
  return set.reduce((sum, nodeId) => sum + (has(nodeId) ? 1 : 0), 0);
}
