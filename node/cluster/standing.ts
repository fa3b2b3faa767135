import type { Store } from '../storage/store.ts';
import type { VolumeIdentity } from './identity.ts';
import { readJsonMeta, writeJsonMeta } from './json-meta.ts';
import { PartitionSet } from './partition-set.ts';

const META = 'standing';
const FORMAT = 1;

interface StoredStanding {
  readonly incarnation: number;
  readonly begun: boolean;
  /** PartitionSet in hex. */
  readonly readable: string;
}

/**
 * What this store can be trusted with: the partitions of which it holds everything it ever acknowledged, marked
 * durably, so that an intact node serves after a restart without asking anybody (PROTOCOL 34).
 *
 * A loss of trust counts at once and is then persisted; a gain counts only when it is persisted.
 */
export class Standing {
  private readonly store: Store;
  private readonly identity: VolumeIdentity;
  private readonly listeners = new Set<() => void>();
  private readonly marks: PartitionSet;
  private hasBegun: boolean;
  private writing: Promise<void> = Promise.resolve();

  constructor(store: Store, identity: VolumeIdentity) {
    this.store = store;
    this.identity = identity;
    const stored = readJsonMeta(store, META, FORMAT) as StoredStanding | undefined;
    // Marks of another incarnation were left by a crash while it changed, which only a loss of data does.
    const valid = stored?.incarnation === identity.incarnation;
    this.hasBegun = stored?.begun ?? false;
    this.marks = valid
      ? PartitionSet.fromBytes(Buffer.from(stored.readable, 'hex'), store.partitions)
      : new PartitionSet(store.partitions);
  }

  /** False on a blank volume: it has never served, nor joined a cluster in use. */
  get begun(): boolean {
    return this.hasBegun;
  }

  isReadable(partition: number): boolean {
    return this.marks.has(partition);
  }

  /** A bit for each partition, for peers. */
  get readable(): PartitionSet {
    return this.marks;
  }

  onChange(listener: () => void): void {
    this.listeners.add(listener);
  }

  /** From now on a partition that is not readable has lost its data, or has yet to get it. Durable when it resolves. */
  async begin(): Promise<void> {
    if (this.hasBegun) return;
    await this.write(true, this.marks);
    this.hasBegun = true;
    this.changed();
  }

  /** The partitions hold everything they have to; durable when it resolves. */
  async markReadable(partitions: Iterable<number>): Promise<void> {
    const added = [...partitions].filter((partition) => !this.marks.has(partition));
    if (added.length === 0) return;
    const next = this.marks.copy();
    for (const partition of added) next.add(partition);
    await this.write(true, next);
    this.hasBegun = true;
    for (const partition of added) this.marks.add(partition);
    this.changed();
  }

  /** The partitions serve no reads any more; durable when it resolves. */
  async unmark(partitions: Iterable<number>): Promise<void> {
    const removed = [...partitions].filter((partition) => this.marks.has(partition));
    if (removed.length === 0) return;
    for (const partition of removed) this.marks.delete(partition);
    this.changed();
    await this.write(true, this.marks);
  }

  /** The volume goes on under a new incarnation with the partitions it can still be trusted with; durable when it resolves. */
  async renew(readable: readonly number[]): Promise<void> {
    await this.write(true, PartitionSet.of(readable, this.store.partitions));
  }

  /** This volume has lost something it acknowledged: nothing of it serves reads. Durable when it resolves. */
  async loseAll(): Promise<void> {
    this.hasBegun = true;
    this.marks.clear();
    this.changed();
    await this.write(true, this.marks);
  }

  /** One write after the other: a later one must not be overtaken by an earlier one's marks. */
  private write(begun: boolean, marks: PartitionSet): Promise<void> {
    const readable = marks.toBytes().toString('hex');
    const { incarnation } = this.identity;
    const written = this.writing.then(() =>
      writeJsonMeta(this.store, META, FORMAT, { begun, readable, incarnation } satisfies StoredStanding),
    );
    this.writing = written.catch(() => undefined);
    return written;
  }

  private changed(): void {
    for (const listener of this.listeners) listener();
  }
}
