import { KvError } from '../../common/errors.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import type { ApplyLog } from './apply-log.ts';
import { Checkpointer } from './checkpointer.ts';
import { Damage } from './damage.ts';
import type { PartitionDigest } from './digest.ts';
import { Digests } from './digests.ts';
import { LogReader, outOfRange } from './log-reader.ts';
import { LogWriter } from './log-writer.ts';
import { Overlay } from './overlay.ts';
import { Quota } from './quota.ts';
import { Records } from './records.ts';
import type { StateStatistics } from './state.ts';
import { StoreHealth } from './store-health.ts';
import { endLog, prepareParts, type LogStoreOptions, type StoreParts } from './store-parts.ts';
import type {
  ApplyResult,
  EntrySlice,
  KeyedRecord,
  KeyRange,
  LogCursor,
  LogSlice,
  Mutation,
  RecordPredicate,
  ScanRange,
  ScrubResult,
  Store,
  StoredRecord,
  StoreStatistics,
  WriteResult,
} from './store.ts';
import { StoreCorrupt } from './store-errors.ts';
import { Unlogged } from './unlogged.ts';
import { checkKey, checkRange } from './validation.ts';

export type { LogStoreOptions } from './store-parts.ts';

/** What one step of a scrub reads at most. */
const SCRUB_BYTES = 4 * 1024 * 1024;

const NO_STATISTICS: StoreStatistics = {
  records: 0,
  stateBytes: 0,
  logBytes: 0,
  usedBytes: 0,
  quotaBytes: Infinity,
  overlayBytes: 0,
  versionConflicts: 0,
  damagedRecords: 0,
};

/**
 * The store of a node: an apply log that is synced before anything is acknowledged, and an indexed state checkpointed
 * behind it (PROTOCOL 9-12).
 *
 * A record's way: `apply` decides about it and puts it into the group that collects (log-writer.ts); the group is written
 * and synced as one (group-commit.ts); its layer of the overlay then answers reads until a checkpoint has moved it into
 * the state (checkpointer.ts).
 */
export class LogStore implements Store {
  readonly partitions: number;
  private readonly options: StoreParts;
  private readonly log: ApplyLog;
  private readonly health: StoreHealth;
  private readonly damage: Damage;
  private readonly overlay: Overlay;
  private readonly digests: Digests;
  private readonly records: Records;
  private readonly writer: LogWriter;
  private readonly checkpointer: Checkpointer;
  private readonly unlogged: Unlogged;
  private readonly quota: Quota;
  private readonly reader: LogReader;
  private acknowledgedThrough = 0;
  private lastStatistics = NO_STATISTICS;
  private closing: Promise<void> | undefined;

  private constructor(parts: StoreParts) {
    const { recovered, allLimits, log, state, disk, logger, observeSync } = parts;
    this.options = parts;
    this.partitions = parts.partitions;
    this.log = log;
    this.reader = new LogReader(disk, log);
    const health = (this.health = new StoreHealth(logger));
    const overlay = (this.overlay = new Overlay({
      layerRecords: allLimits.checkpointRecords,
      layerBytes: allLimits.checkpointBytes,
      through: recovered.appliedThrough,
      head: recovered.appliedHead,
    }));
    const digests = (this.digests = new Digests(recovered.digests));
    for (const layer of recovered.layers) {
      for (const change of layer.records.values()) digests.noteVisible(change);
      overlay.addSynced(layer);
    }
    const damage = (this.damage = new Damage({
      limit: allLimits.damagedRecords,
      logger,
      onTooMany: () => void this.condemn(),
    }));
    const records = (this.records = new Records({ ...parts, overlay, health, damage }));
    this.writer = new LogWriter({
      ...parts,
      limits: allLimits,
      overlay,
      records,
      digests,
      health,
      observeSync,
      flushState: () => this.checkpointer.flush(),
      onSynced: () => {
        this.checkpointer.wake();
        this.quota.wake();
      },
    });
    this.checkpointer = new Checkpointer({
      overlay,
      digests,
      state,
      scheduler: parts.scheduler,
      limits: allLimits,
      appliedThrough: recovered.appliedThrough,
      ceilings: () => ({ sequence: parts.ceilings.sequence, clockMs: parts.ceilings.clockMs }),
      onCheckpoint: () => this.onCheckpoint(),
      onFailure: (error) => health.fail(error),
    });
    health.onFailure((failure) => this.checkpointer.stop(failure));
    const { writer, checkpointer } = this;
    const { partitions, scheduler } = parts;
    this.unlogged = new Unlogged({
      partitions,
      limits: allLimits,
      overlay,
      records,
      digests,
      writer,
      checkpointer,
      health,
      scheduler,
    });
    this.quota = new Quota({
      ...parts,
      limits: allLimits,
      sizes: () => {
        const { bytes, liveBytes } = this.stateStatistics();
        // What waits for a checkpoint will need room in the state as well.
        return { stateBytes: bytes, liveBytes: liveBytes + overlay.waitingBytes, logBytes: log.bytes };
      },
      onFailure: (error) => health.fail(error),
    });
    health.onFailure(() => this.quota.stop());
    this.checkpointer.wake();
  }

  /**
   * Recovers a store from its disk and state, or creates one when both are blank.
   *
   * @throws StoreCorrupt when they contradict themselves or each other: set them aside; StoreUnsupported when they are
   * of a newer format or another number of partitions; errors of the disk as they come.
   */
  static async open(options: LogStoreOptions): Promise<LogStore> {
    return new LogStore(await prepareParts(options));
  }

  get cleanStart(): boolean {
    return this.options.recovered.cleanStart;
  }

  get failed(): Promise<never> {
    return this.health.failed;
  }

  latest(key: Buffer): StoredRecord | undefined {
    this.health.check();
    checkKey(key);
    return this.records.newest(key);
  }

  get(key: Buffer): StoredRecord | undefined {
    this.health.check();
    checkKey(key);
    return this.records.synced(key);
  }

  apply(mutations: readonly Mutation[], cursor?: LogCursor): ApplyResult {
    return this.writer.apply(mutations, cursor);
  }

  write(
    key: Buffer,
    make: (held: StoredRecord | undefined) => StoredRecord | undefined,
    requestId?: RequestId,
  ): WriteResult | undefined {
    return this.writer.write(key, make, requestId);
  }

  async load(records: readonly KeyedRecord[]): Promise<number> {
    this.health.check();
    return this.unlogged.load(records);
  }

  async removeWhere(partition: number, predicate: RecordPredicate): Promise<number> {
    this.health.check();
    return this.unlogged.removeWhere(partition, predicate);
  }

  async scan(partition: number, range: ScanRange): Promise<readonly KeyedRecord[]> {
    await this.prepareScan(range);
    return this.records.scan(partition, range);
  }

  async scanKeys(partition: number, range: KeyRange): Promise<readonly Buffer[]> {
    await this.prepareScan(range);
    return this.records.keys(partition, range);
  }

  digest(partition: number): PartitionDigest {
    this.health.check();
    return this.digests.digest(partition);
  }

  get head(): number {
    return this.writer.head;
  }

  get logStart(): number {
    return this.log.start;
  }

  get sequenceCeiling(): number {
    return this.options.ceilings.sequence;
  }

  async readLog(after: number, maxBytes: number): Promise<LogSlice> {
    this.health.check();
    const { tail } = this.writer;
    if (after < this.log.start) throw outOfRange(after, this.log.start);
    if (after >= this.head) return { after, through: after, entries: [] };
    if (after >= tail.start) return tail.read(after, this.sequenceCeiling, maxBytes);
    return this.reader.read({ after, until: tail.start, maxBytes, ownOnly: true });
  }

  onAppend(listener: () => void): () => void {
    return this.writer.onAppend(listener);
  }

  get syncedHead(): number {
    return this.writer.syncedHead;
  }

  get syncedThrough(): number {
    return this.writer.syncedThrough;
  }

  async readEntries(after: number, maxBytes: number): Promise<EntrySlice> {
    this.health.check();
    const until = this.syncedThrough;
    if (after < this.log.start) throw outOfRange(after, this.log.start);
    if (after >= until) return { after, through: after, entries: [] };
    return this.reader.read({ after, until, maxBytes, ownOnly: false });
  }

  onSync(listener: () => void): () => void {
    return this.writer.onSync(listener);
  }

  sequenceSince(wallMs: number): number {
    return this.log.sequenceSince(wallMs);
  }

  trimLog(acknowledgedThrough: number): void {
    this.acknowledgedThrough = acknowledgedThrough;
    this.trim();
  }

  cursors(): readonly LogCursor[] {
    return this.writer.cursors();
  }

  get clockCeilingMs(): number {
    return this.options.ceilings.clockMs;
  }

  raiseClockCeiling(wallMs: number): Promise<void> {
    return this.writer.raiseClockCeiling(wallMs);
  }

  readMeta(name: string): Buffer | undefined {
    this.health.check();
    return this.writer.meta(name);
  }

  writeMeta(name: string, value: Buffer): Promise<void> {
    return this.writer.writeMeta(name, value);
  }

  async scrub(partition: number, after: Buffer | undefined, limit: number): Promise<ScrubResult> {
    this.health.check();
    const range = { after, limit, maxBytes: SCRUB_BYTES };
    checkRange(range);
    return Promise.resolve(this.records.scrub(partition, range));
  }

  statistics(): StoreStatistics {
    // Metrics are read until the very end.
    const isOpen = this.closing === undefined && this.health.failure === undefined;
    if (isOpen) this.lastStatistics = this.readStatistics();
    return this.lastStatistics;
  }

  private readStatistics(): StoreStatistics {
    const { records, bytes } = this.stateStatistics();
    return {
      records,
      stateBytes: bytes,
      logBytes: this.log.bytes,
      usedBytes: this.quota.usedBytes,
      quotaBytes: this.quota.quotaBytes,
      overlayBytes: this.overlay.pendingBytes + this.overlay.waitingBytes,
      versionConflicts: this.records.versionConflicts,
      damagedRecords: this.damage.count,
    };
  }

  get quotaExceeded(): boolean {
    return this.quota.exceeded;
  }

  async checkpoint(): Promise<void> {
    this.health.check();
    await this.checkpointer.flush();
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Too much is damaged to be mended record by record (PROTOCOL 35): the next start sets the store aside. */
  private async condemn(): Promise<void> {
    const reason = `more than ${this.options.allLimits.damagedRecords} records fail their checksum`;
    try {
      await this.options.condemn?.(reason);
    } catch (error) {
      this.options.logger.error(
        { error },
        'the store could not be marked as corrupt: the next start finds out anew',
      );
    }
    this.health.fail(new StoreCorrupt(reason));
  }

  private stateStatistics(): StateStatistics {
    return this.health.guard(() => this.options.state.statistics());
  }

  private async prepareScan(range: KeyRange): Promise<void> {
    this.health.check();
    checkRange(range);
    // Merging looks at every record of the overlay; a large one is better moved into the state first.
    if (this.overlay.waitingRecords <= 4 * this.options.allLimits.transactionRecords) return;
    await this.checkpoint();
    this.health.check();
  }

  private onCheckpoint(): void {
    this.writer.kick();
    this.trim();
    this.quota.wake();
  }

  private trim(): void {
    const acknowledged =
      this.acknowledgedThrough >= this.writer.newestHead ? Infinity : this.acknowledgedThrough;
    this.log
      .trim({ checkpointed: this.checkpointer.appliedThrough, acknowledged })
      .catch((error: unknown) => this.health.fail(error));
  }

  private async shutDown(): Promise<void> {
    const { health, checkpointer, writer, log } = this;
    const { ceilings, state, release } = this.options;
    health.close();
    this.quota.stop();
    try {
      await writer.idle();
      if (health.failure === undefined) await checkpointer.flush();
      checkpointer.stop(new KvError('UNAVAILABLE', 'the store is closed'));
      if (health.failure === undefined) await endLog(log, ceilings, writer.lastSequence);
    } finally {
      await log.close().catch(() => undefined);
      await state.close().catch(() => undefined);
      await release?.();
    }
  }
}
