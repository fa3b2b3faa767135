import { prefixEnd } from '../../common/bytes.ts';
import type { Version } from '../../model/version.ts';
import type { KeyedRecord, KeyRange, Store, StoredRecord } from '../storage/store.ts';
import { MergeHeap } from './merge-heap.ts';

/** What a listing needs of a record. */
export interface ListedRecord {
  readonly key: Buffer;
  readonly version: Version;
  readonly tombstone: boolean;
  readonly expiresAtMs: number | undefined;
  /** Only when asked for. */
  readonly record: StoredRecord | undefined;
}

export interface ListBounds {
  readonly prefix: Buffer;
  /** Inclusive. */
  readonly from?: Buffer | undefined;
  /** Exclusive. */
  readonly before?: Buffer | undefined;
  /** Exclusive. */
  readonly after: Buffer | undefined;
  /** Most records to return. */
  readonly limit: number;
  /** Most bytes to return, of keys or of keys and records; at least one comes. */
  readonly maxBytes: number;
  /** Only keys of these. */
  readonly partitions: readonly number[];
  readonly withRecords: boolean;
}

/** A stretch of keys in byte order; complete up to its last key, or to the end when there is no more. */
export interface ListedPage {
  readonly keys: readonly ListedRecord[];
  readonly more: boolean;
}

/** Larger records are read when their turn comes: of all partitions together they would be too much at once. */
const SMALL_RECORD_BYTES = 4096;
/** Partitions scanned at the same time. */
const SCANS_AT_ONCE = 32;
const FEWEST_PER_SCAN = 4;
const MOST_PER_SCAN = 256;
/** Large values end a scan early. */
const SCAN_BYTES = 64 * 1024;

/**
 * Keys of this node over some partitions in byte order, tombstones and expired ones included: partitions hold their keys
 * in order, and a heap merges them, fetching more of a partition when its turn comes.
 */
export async function listLocal(store: Store, bounds: ListBounds): Promise<ListedPage> {
  const { partitions } = bounds;
  const perScan = Math.min(
    MOST_PER_SCAN,
    Math.max(FEWEST_PER_SCAN, Math.ceil((bounds.limit / Math.max(1, partitions.length)) * 1.5)),
  );
  const runs: PartitionRun[] = [];
  for (let first = 0; first < partitions.length; first += SCANS_AT_ONCE) {
    const some = partitions
      .slice(first, first + SCANS_AT_ONCE)
      .map((partition) => new PartitionRun(store, partition, bounds, perScan));
    await Promise.all(some.map((run) => run.fill()));
    runs.push(...some);
  }
  const heap = new MergeHeap<PartitionRun>((a, b) => Buffer.compare(headOf(a), headOf(b)));
  for (const run of runs) if (run.head !== undefined) heap.push(run);

  const keys: ListedRecord[] = [];
  let bytes = 0;
  for (let run = heap.pop(); run !== undefined; run = heap.pop()) {
    const listed = run.read();
    if (listed !== undefined) {
      const size = listed.key.length + (listed.record?.bytes.length ?? 0);
      if (keys.length >= bounds.limit || (keys.length > 0 && bytes + size > bounds.maxBytes)) {
        return { keys, more: true };
      }
      keys.push(listed);
      bytes += size;
    }
    run.shift();
    if (run.head === undefined) await run.fill();
    if (run.head !== undefined) heap.push(run);
  }
  return { keys, more: false };
}

function headOf(run: PartitionRun): Buffer {
  return run.head ?? Buffer.alloc(0);
}

/** A key whose turn has not come yet; without `listed` it is read then. */
interface Peeked {
  readonly key: Buffer;
  readonly listed: ListedRecord | undefined;
}

/** The keys of one partition, fetched a few at a time. */
class PartitionRun {
  private readonly store: Store;
  private readonly partition: number;
  private readonly range: KeyRange;
  private readonly withRecords: boolean;
  /** Records are expected to be large. */
  private readonly keysOnly: boolean;
  private after: Buffer | undefined;
  private fetched: readonly Peeked[] = [];
  private next = 0;
  private ended = false;

  constructor(store: Store, partition: number, bounds: ListBounds, perScan: number) {
    this.store = store;
    this.partition = partition;
    const { prefix, from, before, withRecords, maxBytes, limit } = bounds;
    this.range = {
      from: largest(prefix.length === 0 ? undefined : prefix, from),
      before: smallest(prefix.length === 0 ? undefined : prefixEnd(prefix), before),
      limit: perScan,
    };
    this.withRecords = withRecords;
    this.keysOnly = withRecords && maxBytes > limit * SMALL_RECORD_BYTES;
    this.after = bounds.after;
  }

  get head(): Buffer | undefined {
    return this.fetched[this.next]?.key;
  }

  /** What is stored of the head; undefined when it was collected since it was fetched. */
  read(): ListedRecord | undefined {
    const peeked = this.fetched[this.next];
    if (peeked === undefined || peeked.listed !== undefined) return peeked?.listed;
    const record = this.store.get(peeked.key);
    return record === undefined ? undefined : listedOf({ key: peeked.key, record }, true);
  }

  shift(): void {
    this.next += 1;
  }

  async fill(): Promise<void> {
    if (this.ended) return;
    const range = { ...this.range, after: this.after };
    this.fetched = this.keysOnly ? await this.fetchKeys(range) : await this.fetch(range);
    this.after = this.fetched.at(-1)?.key ?? this.after;
    this.next = 0;
  }

  private async fetchKeys(range: KeyRange): Promise<readonly Peeked[]> {
    const keys = await this.store.scanKeys(this.partition, range);
    this.ended = keys.length < range.limit;
    return keys.map((key) => ({ key, listed: undefined }));
  }

  private async fetch(range: KeyRange): Promise<readonly Peeked[]> {
    const records = await this.store.scan(this.partition, { ...range, maxBytes: SCAN_BYTES });
    const bytes = records.reduce((sum, { key, record }) => sum + key.length + record.bytes.length, 0);
    this.ended = records.length < range.limit && bytes < SCAN_BYTES;
    const { withRecords } = this;
    return records.map((found) => ({
      key: found.key,
      listed:
        withRecords && found.record.bytes.length > SMALL_RECORD_BYTES
          ? undefined
          : listedOf(found, withRecords),
    }));
  }
}

function listedOf({ key, record }: KeyedRecord, withRecord: boolean): ListedRecord {
  const { version, tombstone, expiresAtMs } = record;
  return { key, version, tombstone, expiresAtMs, record: withRecord ? record : undefined };
}

function largest(a: Buffer | undefined, b: Buffer | undefined): Buffer | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Buffer.compare(a, b) >= 0 ? a : b;
}

function smallest(a: Buffer | undefined, b: Buffer | undefined): Buffer | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Buffer.compare(a, b) <= 0 ? a : b;
}
