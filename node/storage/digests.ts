import { LEAVES, rootOf, shifted, type PartitionDigest } from './digest.ts';

/** What a change of one key does to the digest of its partition. */
export interface DigestChange {
  readonly partition: number;
  readonly leaf: number;
  /** What the key counts for from now on; 0: it has no record. */
  readonly weight: number;
  /** What it counted for before; undefined when nobody knows, for the record is damaged. */
  readonly replaced: number | undefined;
}

/** The sums of a partition that are kept in the state. */
export interface StoredLeaves {
  readonly leaves: Float64Array;
  /** Wrong, because a damaged record was replaced: to be counted anew. */
  readonly unsure: boolean;
}

export function emptyLeaves(): Float64Array {
  return new Float64Array(LEAVES);
}

/**
 * The digests of a store's partitions, each kept twice: of everything synced, which peers compare, and of what is in the
 * state. The latter is part of every transaction of the state and so always describes exactly what the state holds,
 * whatever a crash leaves of the log above it.
 */
export class Digests {
  private readonly current = new Map<number, Float64Array>();
  private readonly stored: Map<number, Float64Array>;
  private readonly unsure = new Set<number>();
  /** Roots that have been asked for and still hold. */
  private readonly roots = new Map<number, number>();

  /** `stored`: of the state's partitions that ever had a record. */
  constructor(stored: ReadonlyMap<number, StoredLeaves>) {
    this.stored = new Map([...stored].map(([partition, { leaves }]) => [partition, leaves]));
    for (const [partition, { leaves, unsure }] of stored) {
      this.current.set(partition, leaves.slice());
      if (unsure) this.unsure.add(partition);
    }
  }

  /** Of what is synced. Where a damaged record was replaced it equals no other digest until it is counted anew. */
  digest(partition: number): PartitionDigest {
    const leaves = this.current.get(partition) ?? emptyLeaves();
    let root = this.roots.get(partition);
    if (root === undefined) this.roots.set(partition, (root = rootOf(leaves)));
    return { root, leaves: Array.from(leaves) };
  }

  /** A change is synced, or visible to readers for another reason. */
  noteVisible(change: DigestChange): void {
    apply(this.leavesOf(this.current, change.partition), change);
    this.roots.delete(change.partition);
  }

  /** These changes are about to be committed to the state in one transaction, which must carry the result with it. */
  commit(changes: Iterable<DigestChange>): ReadonlyMap<number, StoredLeaves> {
    const touched = new Set<number>();
    for (const change of changes) {
      apply(this.leavesOf(this.stored, change.partition), change);
      if (change.replaced === undefined) this.unsure.add(change.partition);
      touched.add(change.partition);
    }
    return new Map([...touched].map((partition) => [partition, this.storedOf(partition)]));
  }

  /** A partition whose records must be counted anew. */
  get toRecount(): number | undefined {
    const [first] = this.unsure;
    return first;
  }

  /**
   * A partition of the state has been counted while nothing was committed. `above`: visible changes that the state does
   * not have yet. Returns what the state must now be given.
   */
  recounted(partition: number, leaves: Float64Array, above: Iterable<DigestChange>): StoredLeaves {
    this.unsure.delete(partition);
    this.stored.set(partition, leaves);
    const current = leaves.slice();
    for (const change of above) if (change.partition === partition) apply(current, change);
    this.current.set(partition, current);
    this.roots.delete(partition);
    return this.storedOf(partition);
  }

  private storedOf(partition: number): StoredLeaves {
    return { leaves: this.leavesOf(this.stored, partition), unsure: this.unsure.has(partition) };
  }

  private leavesOf(table: Map<number, Float64Array>, partition: number): Float64Array {
    let leaves = table.get(partition);
    if (leaves === undefined) table.set(partition, (leaves = emptyLeaves()));
    return leaves;
  }
}

function apply(leaves: Float64Array, { leaf, replaced, weight }: DigestChange): void {
  leaves[leaf] = shifted(leaves[leaf] ?? 0, replaced ?? 0, weight);
}
