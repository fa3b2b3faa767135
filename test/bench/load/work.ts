/** How the next key is chosen among those that were loaded. */
export type KeyChoice =
  | 'uniform'
  /** YCSB's: the most popular key of 100,000 gets about 8 % of the operations; popular keys lie scattered. */
  | 'zipfian'
  /** 90 % of the operations go to 10 % of the keys. */
  | 'hot-cold'
  /** Zipfian by age: what was inserted last is read most (YCSB D). */
  | 'latest';

/** What every system is asked to do in one cell of the benchmark. */
export interface Work {
  /** One letter that the keys begin with: data sets of different value sizes live side by side. */
  readonly prefix: string;
  /** Keys that were loaded. */
  readonly keys: number;
  readonly choice: KeyChoice;
  /** Share of operations that read one key. */
  readonly readShare: number;
  /** Share of operations that insert a new key; what is left overwrites. */
  readonly insertShare: number;
  /** Instead of single keys: list the keys under a prefix that has `LISTED_KEYS` of them. */
  readonly list: boolean;
  /** Reads answer the latest acknowledged write: QUORUM here, linearizable in etcd; otherwise ONE and serializable. */
  readonly strongReads: boolean;
  readonly valueBytes: number;
  /** Operations under way at any time (closed loop). */
  readonly inFlight: number;
  /** Clients with connections of their own, over which the operations are spread. */
  readonly clients: number;
  /** What counts, after a warm-up of a quarter of it. */
  readonly durationMs: number;
}

/** What came of it; times in milliseconds. */
export interface Measurement {
  readonly operations: number;
  readonly opsPerSecond: number;
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
  /** Operations that failed. */
  readonly errors: number;
  readonly firstError: string | undefined;
  /** Reads that found nothing or a value of the wrong size. */
  readonly misses: number;
  /** Longest time in which no operation ended; undefined where a tool does not tell. */
  readonly longestPauseMs: number | undefined;
}

/** All keys have this size, on all sides. */
export const KEY_BYTES = 16;
/** Keys that share all but their last two digits. */
export const LISTED_KEYS = 100;

/** The name of a key: a letter and fifteen digits. */
export function keyName(prefix: string, index: number): string {
  return prefix + String(index).padStart(KEY_BYTES - prefix.length, '0');
}

const BASE: Work = {
  prefix: 'k',
  keys: 10_000,
  choice: 'uniform',
  readShare: 0,
  insertShare: 0,
  list: false,
  strongReads: false,
  valueBytes: 256,
  inFlight: 100,
  clients: 1,
  durationMs: 1000,
};

/** Work that differs from the goal cells' usual in these. */
export function work(different: Partial<Work>): Work {
  return { ...BASE, ...different };
}
