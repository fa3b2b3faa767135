import type { Store, StoredRecord } from '../../storage/store.ts';

/** A stored record; undefined where it fails its checksum. */
export interface StoredRow {
  readonly key: Buffer;
  readonly record: StoredRecord | undefined;
}

const FIRST_LIMIT = 32;
const MOST_LIMIT = 2048;

/** The records of a partition in key order, a bounded number of bytes at a time; damaged ones are not left out. */
export class PartitionPages {
  private readonly store: Pick<Store, 'scan'>;
  private readonly partition: number;
  private readonly pageBytes: number;
  private after: Buffer | undefined;
  private limit = FIRST_LIMIT;
  private ended = false;

  /** `pageBytes`: about how many bytes a page has; known only from the page before. */
  constructor(
    store: Pick<Store, 'scan'>,
    partition: number,
    options: { readonly after: Buffer | undefined; readonly pageBytes: number },
  ) {
    this.store = store;
    this.partition = partition;
    this.after = options.after;
    this.pageBytes = options.pageBytes;
  }

  /** The next page; undefined after the last one. */
  async next(): Promise<readonly StoredRow[] | undefined> {
    if (this.ended) return undefined;
    const { limit } = this;
    const damaged: Buffer[] = [];
    const onDamaged = (key: Buffer): void => void damaged.push(key);
    const records = await this.store.scan(this.partition, { after: this.after, limit, onDamaged });
    this.ended = records.length < limit;
    // Damaged ones do not count for the limit: what lies beyond a full page is told again with the next one.
    const last = this.ended ? undefined : records.at(-1)?.key;
    const rows: StoredRow[] = [...records];
    for (const key of damaged) {
      if (last === undefined || Buffer.compare(key, last) < 0) rows.push({ key, record: undefined });
    }
    if (rows.length > records.length) rows.sort((a, b) => Buffer.compare(a.key, b.key));
    this.after = rows.at(-1)?.key ?? this.after;
    this.limit = this.nextLimit(rows);
    return rows;
  }

  private nextLimit(rows: readonly StoredRow[]): number {
    if (rows.length === 0) return this.limit;
    const average = rows.reduce((sum, row) => sum + sizeOfRow(row), 0) / rows.length;
    // Small records may be followed by large ones: a page grows step by step.
    return Math.max(1, Math.min(MOST_LIMIT, 4 * this.limit, Math.floor(this.pageBytes / average)));
  }
}

export function sizeOfRow({ key, record }: StoredRow): number {
  return key.length + (record?.bytes.length ?? 0);
}
