import { byteString } from '../../common/bytes.ts';
import type { Clock, Scheduler } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { compareVersions } from '../../model/version.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import type { ApplyLog } from './apply-log.ts';
import type { Ceilings } from './ceilings.ts';
import { digestKey } from './digest.ts';
import type { Digests } from './digests.ts';
import type { CeilingValues } from './entry.ts';
import { GroupCommit, type CommitGroup, type GroupSink } from './group-commit.ts';
import type { StoreLimits } from './limits.ts';
import { overlayRecord, type Overlay } from './overlay.ts';
import { OwnTail } from './own-tail.ts';
import type { Records } from './records.ts';
import type { Recovered } from './recovery.ts';
import { cursorName } from './state-meta.ts';
import type { StoreHealth } from './store-health.ts';
import { damagedRecord } from './record.ts';
import type { ApplyOutcome, ApplyResult, LogCursor, Mutation, StoredRecord, WriteResult } from './store.ts';
import { withinLimit } from './watchdog.ts';
import { checkCursor, checkKey, checkMeta, checkMutation } from './validation.ts';

export interface LogWriterOptions {
  readonly partitions: number;
  readonly recovered: Recovered;
  readonly limits: StoreLimits;
  readonly log: ApplyLog;
  readonly ceilings: Ceilings;
  readonly overlay: Overlay;
  readonly records: Records;
  readonly digests: Digests;
  readonly health: StoreHealth;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly observeSync: ((entries: number, seconds: number) => void) | undefined;
  /** Resolves when everything that waits for a checkpoint now is in the state. */
  readonly flushState: () => Promise<void>;
  /** A group is synced, and its layer of the overlay waits for a checkpoint. */
  readonly onSynced: () => void;
}

/** What became of one mutation, and what makes that durable. */
interface Decided {
  readonly outcome: ApplyOutcome;
  /** Undefined: it is synced. */
  readonly group: CommitGroup | undefined;
  /** It speaks of a record that was loaded without the log. */
  readonly awaitsState: boolean;
}

const DONE = Promise.resolve();

/**
 * Decides about mutations, gives out sequences, and brings everything into the log: the way of a record from `apply`
 * until its group is synced (PROTOCOL 2, 9, 12).
 */
export class LogWriter {
  /** The newest own entries. */
  readonly tail: OwnTail;
  /** Newest sequence given out. */
  lastSequence: number;
  /** Newest sequence that is synced. */
  syncedThrough: number;
  /** Sequence of the newest own record that is synced. */
  syncedHead: number;
  private readonly options: LogWriterOptions;
  private readonly groups: GroupCommit;
  private readonly syncedCursors: Map<string, LogCursor>;
  /** Cursors that wait for their sync are here as well. */
  private readonly newestCursors: Map<string, LogCursor>;
  private readonly syncedMeta: Map<string, Buffer>;
  private readonly appendListeners = new Set<() => void>();
  private readonly syncListeners = new Set<() => void>();
  /** Sequence of the newest own record. */
  private ownHead: number;

  constructor(options: LogWriterOptions) {
    const { recovered, limits, scheduler, log, health } = options;
    this.options = options;
    this.lastSequence = recovered.startAfter;
    this.ownHead = recovered.head;
    this.syncedHead = recovered.head;
    this.syncedThrough = recovered.lastSequence;
    this.syncedCursors = recovered.cursors;
    this.newestCursors = new Map(recovered.cursors);
    this.syncedMeta = recovered.meta;
    this.tail = new OwnTail(limits.tailBytes, recovered.head);
    this.groups = new GroupCommit({ sink: this.groupSink(), scheduler, seed: log.seed });
    health.onFailure((failure) => this.groups.fail(failure));
  }

  /** Sequence of the newest own entry that others may see: never above the ceiling. */
  get head(): number {
    const { sequence } = this.options.ceilings;
    return this.ownHead <= sequence ? this.ownHead : this.tail.headUpTo(sequence);
  }

  /** Sequence of the newest own entry. */
  get newestHead(): number {
    return this.ownHead;
  }

  apply(mutations: readonly Mutation[], cursor?: LogCursor): ApplyResult {
    this.checkWritable();
    for (const mutation of mutations) checkMutation(mutation);
    if (cursor !== undefined) checkCursor(cursor);
    const headBefore = this.ownHead;
    const outcomes: ApplyOutcome[] = [];
    /** The newest group that anything said here depends on. */
    let group: CommitGroup | undefined;
    let awaitsState = false;
    for (const mutation of mutations) {
      const decided = this.applyOne(mutation);
      outcomes.push(decided.outcome);
      group = later(group, decided.group);
      awaitsState ||= decided.awaitsState;
    }
    if (cursor !== undefined) group = later(group, this.applyCursor(cursor));
    if (this.ownHead !== headBefore) this.notifyAppend();
    const synced = group?.durable ?? DONE;
    return { outcomes, durable: awaitsState ? this.whenInState(synced) : synced };
  }

  /** As `Store.write`. */
  write(
    key: Buffer,
    make: (held: StoredRecord | undefined) => StoredRecord | undefined,
    requestId: RequestId | undefined,
  ): WriteResult | undefined {
    this.checkWritable();
    checkKey(key);
    const { records, partitions } = this.options;
    const keyString = byteString(key);
    const keyDigest = digestKey(key);
    const { record: previous, weight } = records.toReplace(key, keyString, keyDigest);
    // What a damaged record was worth nobody knows: the new one might be older.
    if (weight === undefined) throw damagedRecord();
    const record = make(previous);
    if (record === undefined) return undefined;
    const mutation = { key, record, own: true, ...(requestId === undefined ? {} : { requestId }) };
    checkMutation(mutation);
    if (previous !== undefined && compareVersions(record.version, previous.version) <= 0) {
      throw new KvError('INTERNAL', 'a version minted above what the key holds is not above it');
    }
    const partition = partitionOf(key, partitions);
    const { sequence, group } = this.append(mutation, { partition, keyString, keyDigest, previous, weight });
    this.notifyAppend();
    return { sequence, record, previous, durable: group.durable };
  }

  cursors(): readonly LogCursor[] {
    return [...this.syncedCursors.values()];
  }

  meta(name: string): Buffer | undefined {
    return this.syncedMeta.get(name);
  }

  async writeMeta(name: string, value: Buffer): Promise<void> {
    this.checkWritable();
    checkMeta(name, value);
    const group = this.collecting();
    // The caller may go on using its buffer; this one lives on until the next checkpoint.
    const copy = Buffer.from(value);
    const sequence = this.nextSequence(group);
    this.wholly(() => group.writer.meta(sequence, name, copy));
    group.layer.meta.set(name, copy);
    this.options.overlay.grow(group.layer, copy.length);
    await group.durable;
  }

  async raiseClockCeiling(wallMs: number): Promise<void> {
    this.checkWritable();
    if (this.options.ceilings.clockNeeds(wallMs)) await this.collecting().durable;
  }

  onAppend(listener: () => void): () => void {
    this.appendListeners.add(listener);
    return () => this.appendListeners.delete(listener);
  }

  onSync(listener: () => void): () => void {
    this.syncListeners.add(listener);
    return () => this.syncListeners.delete(listener);
  }

  /** The overlay has room again: groups that waited for it may be written. */
  kick(): void {
    this.groups.kick();
  }

  /** Resolves when nothing waits for a sync any more, or the store has failed. */
  idle(): Promise<void> {
    return this.groups.idle();
  }

  /** An entry that was begun and not ended would spoil all that follow it: nothing more may be written. */
  private wholly(write: () => void): void {
    try {
      write();
    } catch (error) {
      throw this.options.health.fail(error);
    }
  }

  private applyOne(mutation: Mutation): Decided {
    const { key, record } = mutation;
    const { records, partitions } = this.options;
    const keyString = byteString(key);
    const keyDigest = digestKey(key);
    const { record: previous, layer, weight, floor } = records.toReplace(key, keyString, keyDigest);
    if (floor !== undefined && mutation.heals !== true && compareVersions(record.version, floor) < 0) {
      return { outcome: { kind: 'superseded', by: floor }, group: undefined, awaitsState: false };
    }
    if (previous !== undefined && !records.wins(record, previous)) {
      const isSame = compareVersions(record.version, previous.version) === 0;
      const outcome: ApplyOutcome = isSame ? { kind: 'same' } : { kind: 'superseded', by: previous.version };
      const group = layer === undefined ? undefined : this.groups.groupOf(layer);
      return { outcome, group, awaitsState: layer?.loaded === true };
    }
    const partition = partitionOf(key, partitions);
    const { sequence, group } = this.append(mutation, { partition, keyString, keyDigest, previous, weight });
    return { outcome: { kind: 'applied', sequence, previous }, group, awaitsState: false };
  }

  /** Puts a record that has been decided about into the log and over the state. */
  private append(
    { key, record, own, requestId }: Mutation,
    place: {
      readonly partition: number;
      readonly keyString: string;
      readonly keyDigest: number;
      readonly previous: StoredRecord | undefined;
      readonly weight: number | undefined;
    },
  ): { readonly sequence: number; readonly group: CommitGroup } {
    const { overlay, ceilings } = this.options;
    const { partition, keyString, keyDigest, previous, weight } = place;
    const group = this.collecting();
    const sequence = this.nextSequence(group);
    const entry = { sequence, own, partition, key, record, previous: previous?.version, requestId };
    this.wholly(() => group.writer.record(entry));
    overlay.put(group.layer, keyString, overlayRecord({ partition, key, keyDigest }, record, weight));
    if (own) {
      this.ownHead = sequence;
      group.layer.head = sequence;
      this.tail.add({ sequence, key, record, requestId });
      ceilings.minted(record.version.wallMs);
    }
    return { sequence, group };
  }

  private whenInState(synced: Promise<void>): Promise<void> {
    const durable = Promise.all([synced, this.options.flushState()]).then(() => undefined);
    // Whoever waits hears of a failure; that nobody waits is no reason to end the process.
    durable.catch(() => undefined);
    return durable;
  }

  /** Moves forward only. Returns the group that makes a cursor at least this far durable; undefined when one is. */
  private applyCursor(cursor: LogCursor): CommitGroup | undefined {
    const name = cursorName(cursor);
    const newest = this.newestCursors.get(name);
    if (newest !== undefined && newest.sequence >= cursor.sequence) {
      if ((this.syncedCursors.get(name)?.sequence ?? -1) >= cursor.sequence) return undefined;
      const layer = this.options.overlay.pendingLayerOfCursor(name, cursor.sequence);
      return layer === undefined ? undefined : this.groups.groupOf(layer);
    }
    const group = this.collecting();
    const sequence = this.nextSequence(group);
    this.wholly(() => group.writer.cursor(sequence, cursor));
    group.layer.cursors.set(name, cursor);
    this.newestCursors.set(name, cursor);
    return group;
  }

  private collecting(): CommitGroup {
    const group = this.groups.collecting;
    if (group !== undefined && group.writer.bytes < this.options.limits.groupBytes) return group;
    const begun = this.groups.begin(this.lastSequence, this.ownHead);
    this.options.overlay.addPending(begun.layer);
    return begun;
  }

  private nextSequence(group: CommitGroup): number {
    this.lastSequence += 1;
    group.layer.through = this.lastSequence;
    return this.lastSequence;
  }

  private groupSink(): GroupSink {
    const { log, overlay, ceilings, limits, clock, scheduler, health, observeSync } = this.options;
    let carried: CeilingValues | undefined;
    return {
      mayBegin: () => overlay.waitingBytes <= limits.overlayBytes,
      write: async (group) => {
        const buffers = group.writer.finish();
        carried = ceilings.forGroup(group.layer.through);
        const startedMs = clock.monotonicMs();
        const work = log.write({ sequence: group.sequence, buffers, bytes: group.writer.bytes }, carried);
        await withinLimit(scheduler, limits.commitTimeoutMs, work);
        observeSync?.(group.layer.through - group.sequence, (clock.monotonicMs() - startedMs) / 1000);
      },
      synced: (group) => {
        const headBefore = this.head;
        if (carried !== undefined) ceilings.noteSynced(carried);
        this.onSynced(group);
        // Own entries beyond the ceiling were kept back until now.
        if (this.head !== headBefore) this.notifyAppend();
      },
      failed: (error) => health.fail(error),
    };
  }

  private onSynced({ layer }: CommitGroup): void {
    for (const [name, cursor] of layer.cursors) this.syncedCursors.set(name, cursor);
    for (const [name, value] of layer.meta) this.syncedMeta.set(name, value);
    this.syncedThrough = Math.max(this.syncedThrough, layer.through);
    this.syncedHead = Math.max(this.syncedHead, layer.head);
    for (const change of layer.records.values()) this.options.digests.noteVisible(change);
    this.options.overlay.promote(layer);
    this.tail.shrink(this.syncedThrough);
    this.options.onSynced();
    if (layer.records.size > 0) for (const listener of this.syncListeners) listener();
  }

  private notifyAppend(): void {
    for (const listener of this.appendListeners) listener();
  }

  private checkWritable(): void {
    const { health, overlay, limits } = this.options;
    health.check();
    if (overlay.pendingBytes > limits.pendingBytes) {
      throw new KvError('RESOURCE_EXHAUSTED', 'too many writes wait for the disk: retry later', {
        retryable: true,
      });
    }
  }
}

/** Groups are synced in order: the later one speaks for both. */
function later(a: CommitGroup | undefined, b: CommitGroup | undefined): CommitGroup | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return b.order > a.order ? b : a;
}
