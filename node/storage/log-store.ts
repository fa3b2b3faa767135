import { byteString } from '../../common/bytes.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { compareVersions } from '../../model/version.ts';
import type { ApplyLog } from './apply-log.ts';
import type { Ceilings } from './ceilings.ts';
import { Checkpointer } from './checkpointer.ts';
import type { CeilingValues } from './entry.ts';
import { GroupCommit, type CommitGroup, type GroupSink } from './group-commit.ts';
import { LogReader, outOfRange } from './log-reader.ts';
import { Overlay, type Layer } from './overlay.ts';
import { OwnTail } from './own-tail.ts';
import { decodeRecord } from './record.ts';
import { scanRecords } from './scan.ts';
import { cursorName } from './state-meta.ts';
import type { IndexedState } from './state.ts';
import { StoreCorrupt } from './store-errors.ts';
import { endLog, prepareParts, type LogStoreOptions, type StoreParts } from './store-parts.ts';
import type {
  ApplyOutcome,
  ApplyResult,
  KeyedRecord,
  KeyRange,
  LogCursor,
  LogSlice,
  Mutation,
  Store,
  StoredRecord,
  StoreStatistics,
} from './store.ts';
import { checkCursor, checkMeta, checkMutation } from './validation.ts';

export type { LogStoreOptions } from './store-parts.ts';

const DONE = Promise.resolve();

/**
 * The store of a node: an apply log that is synced before anything is acknowledged, and an indexed state checkpointed
 * behind it (PROTOCOL 9-12).
 *
 * A record's way: `apply` decides about it and puts it into the group that collects; the group is written and synced
 * as one (group-commit.ts); its layer of the overlay then answers reads until a checkpoint has moved it into the state.
 */
export class LogStore implements Store {
  readonly partitions: number;
  readonly failed: Promise<never>;
  private readonly options: StoreParts;
  private readonly log: ApplyLog;
  private readonly state: IndexedState;
  private readonly ceilings: Ceilings;
  private readonly overlay: Overlay;
  private readonly groups: GroupCommit;
  private readonly checkpointer: Checkpointer;
  private readonly tail: OwnTail;
  private readonly reader: LogReader;
  private readonly syncedCursors: Map<string, LogCursor>;
  /** Cursors that wait for their sync are here as well. */
  private readonly newestCursors: Map<string, LogCursor>;
  private readonly meta: Map<string, Buffer>;
  private readonly appendListeners = new Set<() => void>();
  private readonly rejectFailed: (error: Error) => void;
  /** Newest sequence given out, and the newest one of an own record. */
  private lastSequence: number;
  private ownHead: number;
  /** Newest sequence that is synced. */
  private syncedThrough: number;
  private acknowledgedThrough = 0;
  private versionConflicts = 0;
  private failure: KvError | undefined;
  private closing: Promise<void> | undefined;

  private constructor(parts: StoreParts) {
    const { recovered, allLimits, scheduler } = parts;
    this.options = parts;
    this.partitions = parts.partitions;
    this.log = parts.log;
    this.state = parts.state;
    this.ceilings = parts.ceilings;
    this.lastSequence = recovered.startAfter;
    this.ownHead = recovered.head;
    this.syncedThrough = recovered.lastSequence;
    this.syncedCursors = recovered.cursors;
    this.newestCursors = new Map(recovered.cursors);
    this.meta = recovered.meta;
    this.tail = new OwnTail(allLimits.tailBytes, recovered.head);
    this.reader = new LogReader(parts.disk, parts.log);
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => undefined);
    this.failed = promise;
    this.rejectFailed = reject;
    this.overlay = new Overlay(allLimits.checkpointRecords);
    for (const layer of recovered.layers) this.overlay.addSynced(layer);
    this.groups = new GroupCommit({ sink: this.groupSink(), scheduler, seed: parts.log.seed });
    this.checkpointer = new Checkpointer({
      overlay: this.overlay,
      state: parts.state,
      scheduler,
      limits: allLimits,
      appliedThrough: recovered.appliedThrough,
      ceilings: () => ({ sequence: parts.ceilings.sequence, clockMs: parts.ceilings.clockMs }),
      onCheckpoint: () => this.onCheckpoint(),
      onFailure: (error) => this.fail(error),
    });
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

  latest(key: Buffer): StoredRecord | undefined {
    this.check();
    return this.find(key, byteString(key)).record;
  }

  get(key: Buffer): StoredRecord | undefined {
    this.check();
    return this.overlay.get(byteString(key)) ?? this.readState(partitionOf(key, this.partitions), key);
  }

  apply(mutations: readonly Mutation[], cursor?: LogCursor): ApplyResult {
    this.checkWritable();
    for (const mutation of mutations) checkMutation(mutation);
    if (cursor !== undefined) checkCursor(cursor);
    const headBefore = this.ownHead;
    const outcomes: ApplyOutcome[] = [];
    /** The newest group that anything said here depends on. */
    let group: CommitGroup | undefined;
    for (const mutation of mutations) {
      const decided = this.applyOne(mutation);
      outcomes.push(decided.outcome);
      group = later(group, decided.group);
    }
    if (cursor !== undefined) group = later(group, this.applyCursor(cursor));
    if (this.ownHead !== headBefore) this.notifyAppend();
    return { outcomes, durable: group?.durable ?? DONE };
  }

  async scan(partition: number, range: KeyRange): Promise<readonly KeyedRecord[]> {
    this.check();
    // Merging looks at every record of the overlay; a large one is better moved into the state first.
    if (this.overlay.syncedRecords > 4 * this.options.allLimits.checkpointRecords) {
      await this.checkpoint();
      this.check();
    }
    return this.guardState(() => scanRecords({ state: this.state, overlay: this.overlay }, partition, range));
  }

  get head(): number {
    return this.ownHead <= this.ceilings.sequence ? this.ownHead : this.tail.headUpTo(this.ceilings.sequence);
  }

  get logStart(): number {
    return this.log.start;
  }

  get sequenceCeiling(): number {
    return this.ceilings.sequence;
  }

  async readLog(after: number, maxBytes: number): Promise<LogSlice> {
    this.check();
    if (after < this.log.start) throw outOfRange(after, this.log.start);
    if (after >= this.head) return { after, through: after, entries: [] };
    if (after >= this.tail.start) return this.tail.read(after, this.ceilings.sequence, maxBytes);
    return this.reader.read(after, this.tail.start, maxBytes);
  }

  onAppend(listener: () => void): () => void {
    this.appendListeners.add(listener);
    return () => this.appendListeners.delete(listener);
  }

  trimLog(acknowledgedThrough: number): void {
    this.acknowledgedThrough = acknowledgedThrough;
    this.trim();
  }

  cursors(): readonly LogCursor[] {
    return [...this.syncedCursors.values()];
  }

  get clockCeilingMs(): number {
    return this.ceilings.clockMs;
  }

  async raiseClockCeiling(wallMs: number): Promise<void> {
    this.checkWritable();
    if (this.ceilings.clockNeeds(wallMs)) await this.collecting().durable;
  }

  readMeta(name: string): Buffer | undefined {
    this.check();
    return this.meta.get(name);
  }

  async writeMeta(name: string, value: Buffer): Promise<void> {
    this.checkWritable();
    checkMeta(name, value);
    const group = this.collecting();
    // The caller may go on using its buffer; this one lives on until the next checkpoint.
    const copy = Buffer.from(value);
    group.writer.meta(this.nextSequence(group), name, copy);
    group.layer.meta.set(name, copy);
    this.overlay.grow(group.layer, copy.length);
    await group.durable;
  }

  statistics(): StoreStatistics {
    const { records, bytes } = this.guardState(() => this.state.statistics());
    return {
      records,
      stateBytes: bytes,
      logBytes: this.log.bytes,
      overlayBytes: this.overlay.pendingBytes + this.overlay.syncedBytes,
      versionConflicts: this.versionConflicts,
    };
  }

  async checkpoint(): Promise<void> {
    this.check();
    await this.checkpointer.flush(this.syncedThrough);
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private applyOne(mutation: Mutation): { outcome: ApplyOutcome; group: CommitGroup | undefined } {
    const { key, record, own, requestId } = mutation;
    const keyString = byteString(key);
    const { record: previous, layer } = this.findToReplace(key, keyString);
    if (previous !== undefined) {
      const order = compareVersions(record.version, previous.version);
      if (order < 0 || (order === 0 && !this.winsConflict(record, previous))) {
        const outcome: ApplyOutcome =
          order === 0 ? { kind: 'same' } : { kind: 'superseded', by: previous.version };
        return { outcome, group: layer === undefined ? undefined : this.groups.groupOf(layer) };
      }
    }
    const group = this.collecting();
    const sequence = this.nextSequence(group);
    const partition = partitionOf(key, this.partitions);
    group.writer.record({ sequence, own, partition, key, record, previous: previous?.version, requestId });
    this.overlay.put(group.layer, keyString, { partition, key, record });
    if (own) {
      this.ownHead = sequence;
      group.layer.head = sequence;
      this.tail.add({ sequence, key, record, requestId });
      this.ceilings.minted(record.version.wallMs);
    }
    return { outcome: { kind: 'applied', sequence, previous }, group };
  }

  /** One version with two contents must never be; the larger checksum wins on every replica (PROTOCOL 2). */
  private winsConflict(record: StoredRecord, previous: StoredRecord): boolean {
    if (record.checksum === previous.checksum) return false;
    this.versionConflicts += 1;
    this.options.logger.error(
      { version: record.version },
      'two records have the same version: a writer id is used twice',
    );
    return record.checksum > previous.checksum;
  }

  /** Moves forward only. Returns the group that makes a cursor at least this far durable; undefined when one is. */
  private applyCursor(cursor: LogCursor): CommitGroup | undefined {
    const name = cursorName(cursor);
    const newest = this.newestCursors.get(name);
    if (newest !== undefined && newest.sequence >= cursor.sequence) {
      if ((this.syncedCursors.get(name)?.sequence ?? -1) >= cursor.sequence) return undefined;
      const layer = this.overlay.pendingLayerOfCursor(name, cursor.sequence);
      return layer === undefined ? undefined : this.groups.groupOf(layer);
    }
    const group = this.collecting();
    group.writer.cursor(this.nextSequence(group), cursor);
    group.layer.cursors.set(name, cursor);
    this.newestCursors.set(name, cursor);
    return group;
  }

  private collecting(): CommitGroup {
    const group = this.groups.collecting;
    if (group !== undefined && group.writer.bytes < this.options.allLimits.groupBytes) return group;
    const begun = this.groups.begin(this.lastSequence, this.ownHead);
    this.overlay.addPending(begun.layer);
    return begun;
  }

  private nextSequence(group: CommitGroup): number {
    this.lastSequence += 1;
    group.layer.through = this.lastSequence;
    return this.lastSequence;
  }

  /** Newest record of a key, with the layer it is in when it is not synced. */
  private find(
    key: Buffer,
    keyString: string,
  ): { record: StoredRecord | undefined; layer: Layer | undefined } {
    const layer = this.overlay.pendingLayer(keyString);
    if (layer !== undefined) return { record: layer.records.get(keyString)?.record, layer };
    const record = this.overlay.get(keyString) ?? this.readState(partitionOf(key, this.partitions), key);
    return { record, layer: undefined };
  }

  /** A damaged record counts as none: whatever a peer has replaces it (PROTOCOL 35). */
  private findToReplace(key: Buffer, keyString: string): ReturnType<LogStore['find']> {
    try {
      return this.find(key, keyString);
    } catch (error) {
      if (error instanceof KvError && error.code === 'DATA_LOSS' && this.failure === undefined) {
        return { record: undefined, layer: undefined };
      }
      throw error;
    }
  }

  private readState(partition: number, key: Buffer): StoredRecord | undefined {
    const bytes = this.guardState(() => this.state.get(partition, key));
    return bytes === undefined ? undefined : decodeRecord(key, bytes);
  }

  /** A record that fails its checksum is one key's trouble; a state that cannot be read is the end of the store. */
  private guardState<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      if (error instanceof KvError && !(error instanceof StoreCorrupt)) throw error;
      throw this.fail(error);
    }
  }

  private groupSink(): GroupSink {
    let carried: CeilingValues | undefined;
    return {
      mayBegin: () => this.overlay.syncedBytes <= this.options.allLimits.overlayBytes,
      write: async (group) => {
        const buffers = group.writer.finish();
        carried = this.ceilings.forGroup(group.layer.through);
        const { clock, observeSync } = this.options;
        const startedMs = clock.monotonicMs();
        await this.log.write({ sequence: group.sequence, buffers, bytes: group.writer.bytes }, carried);
        observeSync?.(group.layer.through - group.sequence, (clock.monotonicMs() - startedMs) / 1000);
      },
      synced: (group) => {
        const headBefore = this.head;
        if (carried !== undefined) this.ceilings.noteSynced(carried);
        this.onSynced(group);
        // Own entries beyond the ceiling were kept back until now.
        if (this.head !== headBefore) this.notifyAppend();
      },
      failed: (error) => this.fail(error),
    };
  }

  private onSynced({ layer }: CommitGroup): void {
    for (const [name, cursor] of layer.cursors) this.syncedCursors.set(name, cursor);
    for (const [name, value] of layer.meta) this.meta.set(name, value);
    this.syncedThrough = Math.max(this.syncedThrough, layer.through);
    this.overlay.promote(layer);
    this.tail.shrink(this.syncedThrough);
    this.checkpointer.wake();
  }

  private onCheckpoint(): void {
    this.groups.kick();
    this.trim();
  }

  private trim(): void {
    const acknowledged = this.acknowledgedThrough >= this.ownHead ? Infinity : this.acknowledgedThrough;
    this.log
      .trim({ checkpointed: this.checkpointer.appliedThrough, acknowledged })
      .catch((error: unknown) => this.fail(error));
  }

  private notifyAppend(): void {
    for (const listener of this.appendListeners) listener();
  }

  /** The first failure counts; returns what every later call throws. */
  private fail(error: unknown): KvError {
    if (this.failure !== undefined) return this.failure;
    const failure =
      error instanceof StoreCorrupt
        ? error
        : new KvError('INTERNAL', `the store has failed and must be opened anew: ${messageOf(error)}`, {
            cause: error,
          });
    this.failure = failure;
    this.options.logger.error({ error }, 'the store has failed');
    this.groups.fail(failure);
    this.checkpointer.stop(failure);
    this.rejectFailed(failure);
    return failure;
  }

  private check(): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.closing !== undefined) throw new KvError('UNAVAILABLE', 'the store is closed');
  }

  private checkWritable(): void {
    this.check();
    if (this.overlay.pendingBytes > this.options.allLimits.pendingBytes) {
      throw new KvError('RESOURCE_EXHAUSTED', 'too many writes wait for the disk: retry later', {
        retryable: true,
      });
    }
  }

  private async shutDown(): Promise<void> {
    try {
      await this.groups.idle();
      if (this.failure === undefined) await this.checkpointer.flush(this.syncedThrough);
      this.checkpointer.stop(new KvError('UNAVAILABLE', 'the store is closed'));
      if (this.failure === undefined) await endLog(this.log, this.ceilings, this.lastSequence);
    } finally {
      await this.log.close().catch(() => undefined);
      await this.state.close().catch(() => undefined);
      await this.options.release?.();
    }
  }
}

/** Groups are synced in order: the later one speaks for both. */
function later(a: CommitGroup | undefined, b: CommitGroup | undefined): CommitGroup | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return b.order > a.order ? b : a;
}
