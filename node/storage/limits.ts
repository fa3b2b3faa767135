/** Bounds and rhythms of a store; every one has a default. */
export interface StoreLimits {
  /** A segment of the log is closed when the next group would make it larger. @default 16 MiB */
  readonly segmentBytes: number;
  /** Oldest segments go when all of them together are larger, acknowledged by the peers or not. @default 1 GiB */
  readonly logBytes: number;
  /** Segments go when they were begun longer ago, acknowledged or not. @default 24 hours */
  readonly logAgeMs: number;
  /** Younger segments stay when all peers have acknowledged them: a restarted node reads request ids back. @default 90 s */
  readonly logKeepMs: number;
  /** A group stops collecting when it is larger. @default 4 MiB */
  readonly groupBytes: number;
  /** `apply` is refused while more than this waits for a sync. @default 256 MiB */
  readonly pendingBytes: number;
  /**
   * No further group is synced while more than this waits for a checkpoint. With a group above it, it has to fit into the
   * reserve: a start on a full volume checkpoints all of it. @default 6 MiB
   */
  readonly overlayBytes: number;
  /** Longest wait of a synced record for its checkpoint to begin. @default 500 ms */
  readonly checkpointMs: number;
  /** A checkpoint begins early with this many records. @default 10,000 */
  readonly checkpointRecords: number;
  /** A checkpoint begins early with this many bytes of keys and records. @default 2 MiB */
  readonly checkpointBytes: number;
  /** Most records of one transaction of the state. @default 1000 */
  readonly transactionRecords: number;
  /** A sync of the log or a transaction of the state that takes longer counts as lost: the store fails. @default 30 s */
  readonly commitTimeoutMs: number;
  /** Most the store may hold before `quotaExceeded`; 0: what the volume allows, which it never is above. @default 0 */
  readonly quotaBytes: number;
  /** Room kept for a start on a volume that is full (reserve.ts); 0: none. @default 0, 16 MiB in a data directory */
  readonly reserveBytes: number;
  /** With more damaged records than this the whole store counts as corrupt. @default 100 */
  readonly damagedRecords: number;
  /** Newest own entries kept in memory for the peers. @default 8 MiB */
  readonly tailBytes: number;
  /** How far ahead of use sequences are reserved. @default 4096 */
  readonly sequenceStep: number;
  /** How far ahead of use the clock is reserved. @default 500 ms */
  readonly clockStepMs: number;
}

const MIB = 1024 * 1024;

export const DEFAULT_LIMITS: StoreLimits = {
  segmentBytes: 16 * MIB,
  logBytes: 1024 * MIB,
  logAgeMs: 24 * 3_600_000,
  logKeepMs: 90_000,
  groupBytes: 4 * MIB,
  pendingBytes: 256 * MIB,
  overlayBytes: 6 * MIB,
  checkpointMs: 500,
  checkpointRecords: 10_000,
  checkpointBytes: 2 * MIB,
  transactionRecords: 1000,
  commitTimeoutMs: 30_000,
  quotaBytes: 0,
  reserveBytes: 0,
  damagedRecords: 100,
  tailBytes: 8 * MIB,
  sequenceStep: 4096,
  clockStepMs: 500,
};
