import { byteString } from '../../common/bytes.ts';
import type { IndexedState, StateRow, StateStatistics, StateTransaction } from '../../node/storage/state.ts';
import type { KeyRange } from '../../node/storage/store.ts';
import type { SimProcess } from './process.ts';

interface Partition {
  /** By byteString(key). Bytes are never changed. */
  readonly rows: Map<string, StateRow>;
  /** In byte order of keys; undefined when keys were added since. */
  sorted: StateRow[] | undefined;
}

/** What an indexed state has durably: whole transactions. */
export class SimRows {
  readonly partitions = new Map<number, Partition>();
  readonly meta = new Map<string, Buffer>();
  /** Of a transaction that is being written: a crash decides whether it is there. */
  underWay: StateTransaction | undefined;
  bytes = 0;
  /** Transactions fail while there are as many bytes as this. */
  capacityBytes = Number.MAX_SAFE_INTEGER;

  /** A transaction has reached the disk. */
  apply({ records, meta }: StateTransaction): void {
    for (const { partition, key, bytes } of records) {
      const place = this.partition(partition);
      const name = byteString(key);
      const before = place.rows.get(name);
      place.sorted = undefined;
      if (before !== undefined) this.bytes -= before.bytes.length + key.length;
      if (bytes === undefined) {
        place.rows.delete(name);
        continue;
      }
      this.bytes += bytes.length + key.length;
      place.rows.set(name, { key: Buffer.from(key), bytes: Buffer.from(bytes) });
    }
    for (const [name, value] of meta) this.meta.set(name, Buffer.from(value));
  }

  copy(): SimRows {
    const result = new SimRows();
    for (const [number, { rows }] of this.partitions) {
      result.partitions.set(number, { rows: new Map(rows), sorted: undefined });
    }
    for (const [name, value] of this.meta) result.meta.set(name, value);
    result.bytes = this.bytes;
    return result;
  }

  private partition(number: number): Partition {
    let place = this.partitions.get(number);
    if (place === undefined) this.partitions.set(number, (place = { rows: new Map(), sorted: [] }));
    return place;
  }
}

export interface SimStateOptions {
  readonly rows: SimRows;
  readonly process: SimProcess;
  /** What a transaction takes, milliseconds. */
  readonly commitMs: () => number;
  /** Fails a transaction: the disk is full. */
  readonly failure: () => Error | undefined;
}

/** The indexed state in memory, with the contract of node/storage/state.ts. */
export class SimState implements IndexedState {
  private readonly options: SimStateOptions;
  private committing: Promise<void> = Promise.resolve();
  private closed = false;

  constructor(options: SimStateOptions) {
    this.options = options;
  }

  get(partition: number, key: Buffer): Buffer | undefined {
    const bytes = this.rows().partitions.get(partition)?.rows.get(byteString(key))?.bytes;
    return bytes === undefined ? undefined : Buffer.from(bytes);
  }

  scan(partition: number, { after, from, before, limit }: KeyRange): StateRow[] {
    const place = this.rows().partitions.get(partition);
    if (place === undefined) return [];
    place.sorted ??= [...place.rows.values()].sort((a, b) => Buffer.compare(a.key, b.key));
    const found: StateRow[] = [];
    for (const { key, bytes } of place.sorted) {
      if (found.length >= limit) break;
      if (before !== undefined && Buffer.compare(key, before) >= 0) break;
      if (after !== undefined && Buffer.compare(key, after) <= 0) continue;
      if (from !== undefined && Buffer.compare(key, from) < 0) continue;
      found.push({ key: Buffer.from(key), bytes: Buffer.from(bytes) });
    }
    return found;
  }

  keys(partition: number, range: KeyRange): Buffer[] {
    return this.scan(partition, { ...range, maxBytes: undefined }).map(({ key }) => key);
  }

  readAllMeta(): Map<string, Buffer> {
    return new Map([...this.rows().meta].map(([name, value]) => [name, Buffer.from(value)]));
  }

  commit(transaction: StateTransaction): Promise<void> {
    const rows = this.rows();
    rows.underWay = transaction;
    const { process, commitMs, failure } = this.options;
    this.committing = new Promise((resolve, reject) => {
      process.after(commitMs(), () => {
        rows.underWay = undefined;
        const error = failure();
        if (error !== undefined) {
          reject(error);
          return;
        }
        rows.apply(transaction);
        resolve();
      });
    });
    return this.committing;
  }

  statistics(): StateStatistics {
    let records = 0;
    for (const { rows } of this.rows().partitions.values()) records += rows.size;
    const { bytes } = this.rows();
    return { records, bytes, liveBytes: bytes };
  }

  async close(): Promise<void> {
    if (this.closed) return;
    await this.committing.catch(() => undefined);
    this.closed = true;
  }

  private rows(): SimRows {
    if (this.closed) throw new Error('the state is closed');
    return this.options.rows;
  }
}
