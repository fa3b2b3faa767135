import { prefixEnd } from '../../common/bytes.ts';
import type { Version } from '../../model/version.ts';
import type { Store, StoredRecord } from '../storage/store.ts';
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

/** Partitions scanned at the same time: their values are in memory until the keys have been taken. */
const SCANS_AT_ONCE = 32;
const FEWEST_PER_SCAN = 4;
const MOST_PER_SCAN = 256;
/** Values that a scan copies, although only their keys are wanted, end it early. */
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
    const head = run.read(bounds.withRecords);
    if (head === undefined) continue;
    const size = head.key.length + (head.record?.bytes.length ?? 0);
    if (keys.length >= bounds.limit || (keys.length > 0 && bytes + size > bounds.maxBytes)) {
      return { keys, more: true };
    }
    keys.push(head);
    bytes += size;
    run.shift();
    if (run.head === undefined) await run.fill();
    if (run.head !== undefined) heap.push(run);
  }
  return { keys, more: false };
}

function headOf(run: PartitionRun): Buffer {
  return run.head?.key ?? Buffer.alloc(0);
}

/** The keys of one partition, fetched a few at a time. */
class PartitionRun {
  private readonly store: Store;
  private readonly partition: number;
  private readonly from: Buffer | undefined;
  private readonly before: Buffer | undefined;
  private readonly perScan: number;
  private after: Buffer | undefined;
  private fetched: readonly ListedRecord[] = [];
  private next = 0;
  private ended = false;

  constructor(store: Store, partition: number, bounds: ListBounds, perScan: number) {
    this.store = store;
    this.partition = partition;
    const { prefix, from, before } = bounds;
    this.from = largest(prefix.length === 0 ? undefined : prefix, from);
    this.before = smallest(prefix.length === 0 ? undefined : prefixEnd(prefix), before);
    this.after = bounds.after;
    this.perScan = perScan;
  }

  get head(): ListedRecord | undefined {
    return this.fetched[this.next];
  }

  /** The head, with its record when that is wanted: values are in memory only from here on, not for all partitions. */
  read(withRecord: boolean): ListedRecord | undefined {
    const { head } = this;
    if (head === undefined || !withRecord) return head;
    const record = this.store.get(head.key);
    if (record === undefined) return head; // Collected since.
    const { version, tombstone, expiresAtMs } = record;
    return { key: head.key, version, tombstone, expiresAtMs, record };
  }

  shift(): void {
    this.next += 1;
  }

  async fill(): Promise<void> {
    if (this.ended) return;
    const records = await this.store.scan(this.partition, {
      from: this.from,
      after: this.after,
      before: this.before,
      limit: this.perScan,
      maxBytes: SCAN_BYTES,
    });
    const bytes = records.reduce((sum, { key, record }) => sum + key.length + record.bytes.length, 0);
    this.ended = records.length < this.perScan && bytes < SCAN_BYTES;
    this.after = records.at(-1)?.key ?? this.after;
    this.next = 0;
    this.fetched = records.map(({ key, record }) => ({
      key,
      version: record.version,
      tombstone: record.tombstone,
      expiresAtMs: record.expiresAtMs,
      record: undefined,
    }));
  }
}

function largest(a: Buffer | undefined, b: Buffer | undefined): Buffer | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Buffer.compare(a, b) >= 0 ? a : b;
}

function smallest(a: Buffer | undefined, b: Buffer | undefined): Buffer | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Buffer.compare(a, b) <= 0 ? a : b;
}
