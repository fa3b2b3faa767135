import { digestKey, leafOf } from '../../storage/digest.ts';
import type { LeafSet } from './leaf-set.ts';
import { PartitionPages, type StoredRow } from './partition-pages.ts';
import { nextTurn, type Surroundings } from './surroundings.ts';

export type OwnRecord = StoredRow & {
  /** Own horizon before the record was read: a larger one read afterwards would vouch for what it has yet to purge. */
  readonly horizonMs: number;
};

/** This node's records in some leaves of a partition, in key order, one at a time. */
export class OwnRecords {
  private readonly surroundings: Surroundings;
  private readonly partition: number;
  private readonly leaves: LeafSet;
  private readonly pages: PartitionPages;
  private rows: readonly OwnRecord[] = [];
  private next = 0;
  private ended = false;

  constructor(surroundings: Surroundings, partition: number, leaves: LeafSet) {
    const { store, settings } = surroundings;
    this.surroundings = surroundings;
    this.partition = partition;
    this.leaves = leaves;
    this.pages = new PartitionPages(store, partition, { after: undefined, pageBytes: settings.batchBytes });
  }

  /** The next record without taking it; undefined at the end. */
  async peek(): Promise<OwnRecord | undefined> {
    while (this.next >= this.rows.length && !this.ended) await this.read();
    return this.rows[this.next];
  }

  /** Takes the record that `peek` showed. */
  take(): void {
    this.next += 1;
  }

  private async read(): Promise<void> {
    const { horizons, onDamaged, scheduler } = this.surroundings;
    await nextTurn(scheduler);
    const horizonMs = horizons.of(this.partition);
    const rows = await this.pages.next();
    if (rows === undefined) {
      this.ended = true;
      return;
    }
    for (const { key, record } of rows) if (record === undefined) onDamaged(key);
    this.rows = rows
      .filter(({ key }) => isInLeaves(key, this.leaves))
      .map(({ key, record }) => ({ key, record, horizonMs }));
    this.next = 0;
  }
}

/** Whether a key belongs to one of the leaves. */
export function isInLeaves(key: Buffer, leaves: LeafSet): boolean {
  return leaves.has(leafOf(digestKey(key)));
}
