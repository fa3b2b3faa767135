import type { KeyRange } from './store.ts';

/**
 * The indexed state behind the apply log: records by (partition, key) and small named values. Reads are synchronous
 * and answer from the last transaction that committed; transactions are durable when they resolve, and each is found
 * whole or not at all after a crash, in the order they were made.
 *
 * Any error other than an unknown key is final: what failed to commit may or may not be there, and the store above
 * stops. test/contract/state.ts is the contract.
 */
export interface IndexedState {
  /** Encoded record, the caller's own copy; undefined when the key has none. `partition` 0..65535, `key` 1..1024 bytes. */
  get(partition: number, key: Buffer): Buffer | undefined;
  /** Encoded records of one partition within the range, in byte order of keys, copies; from one snapshot. */
  scan(partition: number, range: KeyRange): StateRow[];
  /** Keys of one partition within the range, in byte order; from one snapshot. Values are not read: `maxBytes` is no bound. */
  keys(partition: number, range: KeyRange): Buffer[];
  /** Every named value, copies. */
  readAllMeta(): Map<string, Buffer>;
  /**
   * One transaction; one at a time. The buffers must not change before it has settled.
   *
   * @throws when it could not be made durable.
   */
  commit(transaction: StateTransaction): Promise<void>;
  statistics(): StateStatistics;
  /** Idempotent; waits for a running transaction. */
  close(): Promise<void>;
}

export interface StateRow {
  readonly key: Buffer;
  readonly bytes: Buffer;
}

/** What a row counts for against `KeyRange.maxBytes`. */
export function rowBytes({ key, bytes }: StateRow): number {
  return key.length + bytes.length;
}

/** Whether these rows may not be all of the range. */
export function isFullPage(rows: readonly StateRow[], { limit, maxBytes }: KeyRange): boolean {
  if (rows.length >= limit) return true;
  return maxBytes !== undefined && rows.reduce((sum, row) => sum + rowBytes(row), 0) >= maxBytes;
}

export interface StateTransaction {
  /** At most about 1000: larger transactions slow down the following ones. A key at most once. */
  readonly records: readonly StateRecord[];
  /** Names of 1..512 bytes. */
  readonly meta: ReadonlyMap<string, Buffer>;
}

export interface StateRecord {
  readonly partition: number;
  readonly key: Buffer;
  /** Replaces what the key had; undefined: it has none afterwards. */
  readonly bytes: Buffer | undefined;
}

export interface StateStatistics {
  readonly records: number;
  /** Bytes on the volume. */
  readonly bytes: number;
  /** Those of them that hold something; the others are used again. */
  readonly liveBytes: number;
}
