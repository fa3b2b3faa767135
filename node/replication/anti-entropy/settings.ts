/** Rhythms and bounds of comparisons, fills and scrubbing; every one has a default. */
export interface AntiEntropySettings {
  /** How often the roots of all shared partitions are compared with each peer, milliseconds. */
  readonly backgroundMs: number;
  /** Bytes of records that background comparisons move, per second. */
  readonly backgroundBytesPerSecond: number;
  /** Bytes of records that a replica takes in while it fills, and that moves take, per second. */
  readonly fillBytesPerSecond: number;
  /** Shortest pause between two comparisons with one peer that nothing but a new label asks for, milliseconds. */
  readonly pauseMs: number;
  /** Delays after a comparison that failed or left differences, milliseconds. */
  readonly retry: { readonly initialMs: number; readonly maxMs: number };
  /** Peers compared with at the same time. */
  readonly concurrentRuns: number;
  /** Partitions resolved in one go. */
  readonly groupPartitions: number;
  /** Looks at differing leaves before they are listed, so that writes under way are not taken for differences. */
  readonly looks: number;
  /** Pause between two looks, milliseconds. */
  readonly lookMs: number;
  /** Keys in one page of a listing. */
  readonly pageKeys: number;
  /** Records that one page may look at. */
  readonly pageScans: number;
  /** Keys in one request for records. */
  readonly fetchKeys: number;
  /** Bytes of records in one request or answer; one larger record goes by itself. */
  readonly batchBytes: number;
  /** Bytes of records loaded at once while a replica fills. */
  readonly loadBytes: number;
  /** A peer whose log is further behind than this many entries is compared with later. */
  readonly maxLag: number;
  /** Longest wait for a log that catches up, milliseconds. */
  readonly lagPatienceMs: number;
  /** Records whose checksums are checked per second. */
  readonly scrubRecordsPerSecond: number;
  /** Pause after all records have been checked, milliseconds. */
  readonly scrubPauseMs: number;
  /** How often damaged records are asked for again, milliseconds. */
  readonly healMs: number;
  /** With more damaged records the store is not to be trusted any more (PROTOCOL 35). */
  readonly maxDamaged: number;
}

const KIB = 1024;

export const DEFAULT_ANTI_ENTROPY_SETTINGS: AntiEntropySettings = {
  backgroundMs: 10_000,
  backgroundBytesPerSecond: 8 * KIB * KIB,
  fillBytesPerSecond: Infinity,
  pauseMs: 500,
  retry: { initialMs: 200, maxMs: 10_000 },
  concurrentRuns: 2,
  groupPartitions: 32,
  looks: 3,
  lookMs: 200,
  pageKeys: 2_048,
  pageScans: 16_384,
  fetchKeys: 512,
  batchBytes: 256 * KIB,
  loadBytes: 1024 * KIB,
  maxLag: 10_000,
  lagPatienceMs: 60_000,
  scrubRecordsPerSecond: 1_000,
  scrubPauseMs: 24 * 3_600_000,
  healMs: 30_000,
  maxDamaged: 1_000,
};
