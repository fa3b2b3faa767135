import type { AdminClient } from '../client/admin-client.ts';
import type { ClusterMap } from '../model/cluster-map.ts';

/**
 * What this process remembers of one KVCluster (by UID) from one reconciliation to the next. Nothing in it is needed
 * for a right decision after a restart; it saves reads and smooths over single failed questions.
 */
export interface ClusterMemory {
  readonly uid: string;
  /** The shared secret, and when it was last read (monotonic). */
  secret: { readonly bytes: Buffer; readonly readMs: number } | undefined;
  admin: AdminClient | undefined;
  /** The newest map known. */
  map: ClusterMap | undefined;
  /** Since when (monotonic) volumes that must be heard have been silent. */
  silentSinceMs: number | undefined;
  /** How often in a row each node was found wanting. */
  readonly misses: Map<string, number>;
  /** What was last logged of a reconciliation. */
  lastOutcome: string;
  /** How often in a row the cluster was found not available. */
  availabilityMisses: number;
  /** When misses were last counted (monotonic). */
  countedMs: number | undefined;
}

/** Memories by the key of the cluster. */
export class ClusterMemories {
  private readonly memories = new Map<string, ClusterMemory>();

  /** The memory of this object; another object of the same name starts with an empty one. */
  of(key: string, uid: string): ClusterMemory {
    const known = this.memories.get(key);
    if (known?.uid === uid) return known;
    this.forget(key);
    const memory: ClusterMemory = {
      uid,
      secret: undefined,
      admin: undefined,
      map: undefined,
      silentSinceMs: undefined,
      misses: new Map(),
      lastOutcome: '',
      availabilityMisses: 0,
      countedMs: undefined,
    };
    this.memories.set(key, memory);
    return memory;
  }

  /** Closes what belongs to a cluster that is gone. */
  forget(key: string): void {
    this.memories.get(key)?.admin?.close();
    this.memories.delete(key);
  }

  close(): void {
    for (const key of [...this.memories.keys()]) this.forget(key);
  }
}
