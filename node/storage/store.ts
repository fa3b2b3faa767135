import type { PartitionDigest } from './digest.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import type { Version } from '../../model/version.ts';

/**
 * A record as the data plane sees it: a live value, or a tombstone, at one version. `bytes` is the encoded, checksummed
 * form that log, state, peers and backups all carry unchanged (record.ts).
 */
export interface StoredRecord {
  readonly version: Version;
  readonly tombstone: boolean;
  /** Empty for a tombstone. */
  readonly value: Buffer;
  /** Absolute, milliseconds since 1970; undefined: never. */
  readonly expiresAtMs: number | undefined;
  /** CRC-32 over key and everything else, as written. */
  readonly checksum: number;
  readonly bytes: Buffer;
}

/** How far a peer's log has been applied here. */
export interface LogCursor {
  /** Name of the peer. */
  readonly origin: string;
  readonly incarnation: number;
  readonly sequence: number;
}

/** One record to apply. */
export interface Mutation {
  readonly key: Buffer;
  readonly record: StoredRecord;
  /** Minted here: the entry replicates to peers. Otherwise it came from one. */
  readonly own: boolean;
  readonly requestId?: RequestId;
  /**
   * It is known from enough other replicas to be the newest one: it takes the place of a damaged record even when that one
   * seems to have been newer.
   */
  readonly heals?: boolean;
}

/** What became of a mutation, decided synchronously against everything applied before it, synced or not. */
export type ApplyOutcome =
  /** Applied: its entry has this sequence. */
  | { readonly kind: 'applied'; readonly sequence: number; readonly previous: StoredRecord | undefined }
  /** The same version was already there: a no-op. */
  | { readonly kind: 'same' }
  /** A newer version was already there, or seems to have been and is damaged: a no-op. */
  | { readonly kind: 'superseded'; readonly by: Version };

/** Outcomes of one `apply`, in the order of its mutations. */
export interface ApplyResult {
  readonly outcomes: readonly ApplyOutcome[];
  /**
   * Resolves when everything the outcomes speak of is synced: the applied records, the cursor, and the records that made
   * an outcome `same` or `superseded`. Rejects when the store has failed; the node must then stop.
   */
  readonly durable: Promise<void>;
}

/** A record of this node's own that was applied. */
export interface WriteResult {
  readonly sequence: number;
  readonly record: StoredRecord;
  /** What the key held before, synced or not. */
  readonly previous: StoredRecord | undefined;
  /** Resolves when the record is synced. Rejects when the store has failed; the node must then stop. */
  readonly durable: Promise<void>;
}

/** A position in (partition, key) order. */
export interface RecordPosition {
  readonly partition: number;
  readonly key: Buffer;
}

/** Bounds of a scan within one partition, in byte order of keys. */
export interface KeyRange {
  /** Exclusive lower bound. */
  readonly after?: Buffer | undefined;
  /** Inclusive lower bound. */
  readonly from?: Buffer | undefined;
  /** Exclusive upper bound. */
  readonly before?: Buffer | undefined;
  /** Most records to return. */
  readonly limit: number;
  /** Ends with the record by which keys and records have this many bytes or more. @default unbounded */
  readonly maxBytes?: number | undefined;
}

export interface ScanRange extends KeyRange {
  /** Told of each damaged record, which is left out. Without it a damaged record fails the scan. */
  readonly onDamaged?: ((key: Buffer) => void) | undefined;
}

export interface KeyedRecord {
  readonly key: Buffer;
  readonly record: StoredRecord;
}

export type RecordPredicate = (key: Buffer, record: StoredRecord | undefined) => boolean;

/** An own entry of the log, read back for a peer. */
export interface OwnEntry {
  readonly sequence: number;
  readonly key: Buffer;
  /** The record the entry was written with. The key may have a newer one by now. */
  readonly record: StoredRecord;
  readonly requestId: RequestId | undefined;
}

/** A contiguous piece of the log: own entries in (after, through]; everything else in between counts as seen. */
export interface LogSlice {
  readonly after: number;
  readonly through: number;
  readonly entries: readonly OwnEntry[];
}

/** A record entry of the log, read back as it was written. */
export interface RecordEntry extends OwnEntry {
  /** Minted here; otherwise it came from a peer. */
  readonly own: boolean;
}

/** A contiguous piece of the log: record entries in (after, through]; everything else in between is of no interest. */
export interface EntrySlice {
  readonly after: number;
  readonly through: number;
  readonly entries: readonly RecordEntry[];
}

/** What `scrub` found. */
export interface ScrubResult {
  /** Records looked at. */
  readonly records: number;
  /** Keys whose record fails its checksum. */
  readonly damaged: readonly Buffer[];
  /** Everything up to this key has been looked at; undefined: the partition to its end. */
  readonly last: Buffer | undefined;
}

/** Sizes for status and metrics. */
export interface StoreStatistics {
  /** Records in the indexed state, tombstones and expired ones included, overlay excluded. */
  readonly records: number;
  readonly stateBytes: number;
  readonly logBytes: number;
  /** What counts against the quota: pages of the state that hold something, and the log. */
  readonly usedBytes: number;
  /** What the store may hold; changes with the room on its volume. `Infinity` before the volume was looked at. */
  readonly quotaBytes: number;
  /** Bytes waiting for a sync, plus bytes synced but not yet checkpointed. */
  readonly overlayBytes: number;
  /** Records refused or replaced because another one had the same version: must stay 0 (PROTOCOL 2). */
  readonly versionConflicts: number;
  /** Keys whose record was found to fail its checksum since the store was opened, repaired ones included. */
  readonly damagedRecords: number;
}

/**
 * The records, log and metadata of one node. One writer: `apply` decides synchronously and in call order, durability
 * follows in groups. Reads see synced records only (PROTOCOL 4, 9).
 *
 * Every method throws KvError UNAVAILABLE after `close` and INTERNAL after the store failed; DATA_LOSS when the stored
 * record fails its checksum.
 */
export interface Store {
  /** Number of hash partitions; fixed when the store was created. */
  readonly partitions: number;
  /** Whether the last run ended with `close`; also true for a new store. Otherwise own entries may have been sent and lost. */
  readonly cleanStart: boolean;

  /** Newest record of a key, synced or not: what the next version must exceed. */
  latest(key: Buffer): StoredRecord | undefined;
  /** Newest synced record of a key, tombstones and expired ones included. */
  get(key: Buffer): StoredRecord | undefined;
  /** Applies records in order; a record not newer than what is there is a no-op (PROTOCOL 2). `cursor` becomes durable with them. */
  apply(mutations: readonly Mutation[], cursor?: LogCursor): ApplyResult;
  /**
   * Applies a record of this node's own that `make` gives for what the key holds, synced or not, in one go: nothing comes
   * between the look and the record, whose version must be above what is there. Gives undefined when `make` does.
   */
  write(
    key: Buffer,
    make: (held: StoredRecord | undefined) => StoredRecord | undefined,
    requestId?: RequestId,
  ): WriteResult | undefined;
  /**
   * Applies records without the log, for rebuilding: decided like `apply`, and seen by readers, digests and peers only when
   * the state has them, which is when it resolves. Those whose key has an unsynced record go through the log. Answers how
   * many were newer than what was there.
   */
  load(records: readonly KeyedRecord[]): Promise<number>;
  /**
   * Removes every synced record of a partition that the predicate accepts, without a trace in log or versions; `record` is
   * undefined for a damaged one. Readers see it at once, it resolves when the state has it, and a crash before that brings
   * the records back. Keys with an unsynced or just loaded record are passed over. Answers how many were removed.
   */
  removeWhere(partition: number, predicate: RecordPredicate): Promise<number>;
  /**
   * Records of one partition in key order, synced ones only; waits for a checkpoint first where needed. A page that has
   * fewer records than `limit` and fewer bytes than `maxBytes` is the last one.
   */
  scan(partition: number, range: ScanRange): Promise<readonly KeyedRecord[]>;
  /** Keys of what `scan` would look at, damaged records included; values are not read, and `maxBytes` is no bound. */
  scanKeys(partition: number, range: KeyRange): Promise<readonly Buffer[]>;
  /**
   * Digest of the synced records of a partition (digest.ts). After a damaged record was replaced it equals nobody's until
   * the partition has been counted anew, in the background.
   */
  digest(partition: number): PartitionDigest;

  /** Sequence of the newest own entry appended, synced or not; 0 when there is none. What peers must reach to be in sync. */
  readonly head: number;
  /** Oldest sequence that `readLog` can still resume after. */
  readonly logStart: number;
  /** No sequence above this one has ever been used. */
  readonly sequenceCeiling: number;
  /** Own entries after a sequence, bounded in bytes. Unsynced entries are included: replication runs beside the sync. */
  readLog(after: number, maxBytes: number): Promise<LogSlice>;
  /** Calls back whenever own entries were appended. Returns the unsubscribe function. */
  onAppend(listener: () => void): () => void;
  /** Sequence of the newest own entry that is synced. */
  readonly syncedHead: number;
  /** Newest synced sequence: what `readEntries` reads up to. */
  readonly syncedThrough: number;
  /**
   * Synced entries after a sequence, own ones and those of peers, bounded in bytes. What was loaded or removed without the
   * log is not among them.
   *
   * @throws KvError OUT_OF_RANGE when the log no longer reaches back to `after`.
   */
  readEntries(after: number, maxBytes: number): Promise<EntrySlice>;
  /** Calls back whenever entries became synced. Returns the unsubscribe function. */
  onSync(listener: () => void): () => void;
  /** A sequence at or before every entry of the log that was written at or after this wall clock time. */
  sequenceSince(wallMs: number): number;
  /** Lets the log drop what every peer has acknowledged through `sequence`, and what lies beyond its caps. */
  trimLog(acknowledgedThrough: number): void;

  /** Durable cursors: how far each peer's log has been applied here. */
  cursors(): readonly LogCursor[];

  /** The clock value below or at which versions may be minted without waiting. */
  readonly clockCeilingMs: number;
  /** Makes `wallMs` safe to mint at: resolves when a ceiling at or above it is synced (PROTOCOL 12). */
  raiseClockCeiling(wallMs: number): Promise<void>;

  /** Small named values, such as the map, kept in the state. */
  readMeta(name: string): Buffer | undefined;
  /** Resolves when the value is synced. */
  writeMeta(name: string, value: Buffer): Promise<void>;

  /** Checks the next `limit` records of a partition of the state after a key; for a slow look over all of them. */
  scrub(partition: number, after: Buffer | undefined, limit: number): Promise<ScrubResult>;

  /**
   * The store holds more than its quota: no more puts should be taken. Stays true until there is clearly room again; deletes
   * and removals go on meanwhile.
   */
  readonly quotaExceeded: boolean;
  statistics(): StoreStatistics;
  /** Resolves when everything synced so far is in the indexed state. */
  checkpoint(): Promise<void>;
  /** Rejects when the store fails (disk full, I/O error): the node must stop serving and exit. Never resolves before close. */
  readonly failed: Promise<never>;
  /** Syncs, checkpoints, marks a clean end and closes. Idempotent. */
  close(): Promise<void>;
}
