import { type ClusterMap, quorumOf } from '../../model/cluster-map.ts';
import { replicaSets } from '../../model/replica-sets.ts';

/** A partition that cannot be backed up now. */
export interface UncoveredPartition {
  readonly partition: number;
  /** Replicas that must be read, and how many can be. */
  readonly needed: number;
  readonly readable: number;
  /** Replicas that cannot be read. */
  readonly missing: readonly string[];
}

/**
 * The partitions for which fewer than |replicas| - Q + 1 replicas can be read: a write acknowledged by a quorum might
 * be on none of those (PROTOCOL 36). Empty when a backup is possible.
 */
export function uncoveredPartitions(
  map: ClusterMap,
  readable: ReadonlySet<string>,
): readonly UncoveredPartition[] {
  return map.assignment.flatMap((_replicas, partition) => {
    const names = replicaSets(map, partition).read;
    const needed = names.length - quorumOf(names.length) + 1;
    const missing = names.filter((name) => !readable.has(name));
    const present = names.length - missing.length;
    return present >= needed ? [] : [{ partition, needed, readable: present, missing }];
  });
}
