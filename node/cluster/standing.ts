import type { Store } from '../storage/store.ts';
import { readJsonMeta, writeJsonMeta } from './json-meta.ts';
import { PartitionSet } from './partition-set.ts';

const META = 'standing';
const FORMAT = 1;

interface StoredStanding {
  readonly begun: boolean;
  /** PartitionSet in hex. */
  readonly readable: string;
  /** `filledAtMs`; absent: never. */
  readonly filledAtMs?: number;
}

/**
 * What this store can be trusted with: the partitions of which it holds everything it ever acknowledged, marked
 * durably, so that an intact node serves after a restart without asking anybody (PROTOCOL 34).
 *
 * A loss of trust counts at once and is then persisted; a gain counts only when it is persisted.
 */
export class Standing {
  private readonly store: Store;
  private readonly listeners = new Set<() => void>();
  private readonly marks: PartitionSet;
  private hasBegun: boolean;
  private filledMs: number;
  private writing: Promise<void> = Promise.resolve();
  /** Counts losses: a gain that was being written when one came is none. */
  private losses = 0;
  /** Partitions of the gains that are being written. */
  private readonly gaining = new Set<readonly number[]>();

  constructor(store: Store) {
    this.store = store;
    const stored = readJsonMeta(store, META, FORMAT) as StoredStanding | undefined;
    this.hasBegun = stored?.begun ?? false;
    this.filledMs = stored?.filledAtMs ?? -Infinity;
    this.marks =
      stored === undefined
        ? new PartitionSet(store.partitions)
        : PartitionSet.fromBytes(Buffer.from(stored.readable, 'hex'), store.partitions);
  }

  /** False on a blank volume: it has never served, nor joined a cluster in use. */
  get begun(): boolean {
    return this.hasBegun;
  }

  /** Wall clock at which partitions were last filled from others; -Infinity: never. */
  get filledAtMs(): number {
    return this.filledMs;
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
    await this.inTurn(() => this.write(this.marks));
    this.hasBegun = true;
    this.changed();
  }

  /** The partitions hold everything they have to, from others when `filledAtMs` is given; durable when it resolves. */
  async markReadable(partitions: Iterable<number>, filledAtMs?: number): Promise<void> {
    const added = [...partitions].filter((partition) => !this.marks.has(partition));
    if (added.length === 0) return;
    const { losses } = this;
    this.gaining.add(added);
    await this.inTurn(async () => {
      if (this.losses !== losses) return;
      const next = this.marks.copy();
      for (const partition of added) next.add(partition);
      if (filledAtMs !== undefined) this.filledMs = filledAtMs;
      await this.write(next);
      if (this.losses !== losses) return;
      this.hasBegun = true;
      for (const partition of added) this.marks.add(partition);
      this.changed();
    }).finally(() => {
      this.gaining.delete(added);
    });
  }

  /** The partitions serve no reads any more; durable when it resolves. */
  async unmark(partitions: Iterable<number>): Promise<void> {
    // A mark that is being written would come back; what else is gained with it is gained again.
    const gaining = new Set([...this.gaining].flat());
    const removed = [...partitions].filter(
      (partition) => this.marks.has(partition) || gaining.has(partition),
    );
    if (removed.length === 0) return;
    await this.lose(removed);
  }

  /** This volume has lost something it acknowledged: nothing of it serves reads. Durable when it resolves. */
  async loseAll(): Promise<void> {
    this.hasBegun = true;
    await this.lose([...this.marks]);
  }

  private lose(partitions: readonly number[]): Promise<void> {
    this.losses += 1;
    for (const partition of partitions) this.marks.delete(partition);
    this.changed();
    return this.inTurn(() => this.write(this.marks));
  }

  /** One change after the other: a later one must not be overtaken by an earlier one's marks. */
  private inTurn(change: () => Promise<void>): Promise<void> {
    const done = this.writing.then(change);
    this.writing = done.catch(() => undefined);
    return done;
  }

  private write(marks: PartitionSet): Promise<void> {
    const readable = marks.toBytes().toString('hex');
    const filled = this.filledMs === -Infinity ? {} : { filledAtMs: this.filledMs };
    return writeJsonMeta(this.store, META, FORMAT, {
      begun: true,
      readable,
      ...filled,
    } satisfies StoredStanding);
  }

  private changed(): void {
    for (const listener of this.listeners) listener();
  }
}
