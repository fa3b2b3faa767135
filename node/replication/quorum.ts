import { quorumOf } from '../../model/cluster-map.ts';
import type { Consistency } from './engine.ts';

/** How many of a partition's replicas take part before the answer: W for writes, R for reads. */
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

/**
 * How many others a replica must merge with before it may serve: |replicas| - W + 1 with W = QUORUM, so that one of them
 * took part in every write that was acknowledged at QUORUM (PROTOCOL 32).
 */
export function rebuildSources(replicas: number): number {
  return replicas - quorumOf(replicas) + 1;
}
