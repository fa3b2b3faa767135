import type { Clock, Scheduler } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import { compareVersions, newestVersion, NO_VERSION, type Version } from '../../model/version.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import { liveRecord, tombstoneRecord } from '../storage/record.ts';
import type { Store, StoredRecord } from '../storage/store.ts';
import { type Settled, settleBy } from './deadline.ts';
import type { Consistency, DeleteOperation, LiveValue, OperationOptions, PutOperation } from './engine.ts';
import type { Halts } from './halts.ts';
import type { HybridClock } from './hybrid-clock.ts';
import type { InFlight } from './in-flight.ts';
import { liveValue } from './live-value.ts';
import type { ReplicationMetrics } from './metrics.ts';
import type { OwnLog } from './own-log.ts';
import type { PendingWrites, WriteAnswer } from './pending-writes.ts';
import { describeQuorum, type Holders, isWriteQuorum } from './quorum.ts';
import type { Replaced, RequestIndex } from './requests/request-index.ts';
import type { Retries, RetryOutcome } from './requests/retries.ts';
import type { SafetyRules } from './safety-rules.ts';
import { standingOutside, type Topology } from './topology.ts';

export interface CoordinatorOptions {
  readonly store: Store;
  readonly ownLog: OwnLog;
  readonly hybridClock: HybridClock;
  readonly pending: PendingWrites;
  readonly topology: Topology;
  /** What every version minted for a partition must exceed. */
  readonly mintFloor: (partition: number) => Version;
  /** Why this node coordinates no write although it serves reads; undefined when it does. */
  readonly writeRefusal: (kind: 'put' | 'delete') => KvError | undefined;
  readonly retries: Pick<Retries, 'concerns' | 'resolve'>;
  readonly halts: Pick<Halts, 'mayBeLate'>;
  /** What is remembered of requests, for retries. */
  readonly requests: Pick<RequestIndex, 'note' | 'noteVersion'>;
  readonly inFlight: InFlight;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly metrics: ReplicationMetrics;
  readonly rules: SafetyRules;
}

interface Write {
  readonly key: Buffer;
  readonly partition: number;
  readonly consistency: Consistency;
  readonly requestId: RequestId | undefined;
  readonly deadlineMs: number;
  readonly signal: AbortSignal | undefined;
  readonly encode: (version: Version) => StoredRecord;
  /** Every version that it has been given, under `placeOf`. */
  readonly minted: number[];
}

/** A version given to a write that is not acknowledged. */
interface OpenMint {
  readonly version: Version;
  readonly requestId: RequestId | undefined;
}

interface Commit {
  readonly version: Version;
  readonly sequence: number;
  readonly previous: StoredRecord | undefined;
  readonly durable: Promise<void>;
}

const WRITE_OVERHEAD_BYTES = 256;
const MOST_UNKNOWN_MINTS = 1000;
const HELD: WriteAnswer = { kind: 'held' };

/**
 * Coordinates writes: commits locally, lets the log carry the record to the other replicas beside the local sync, and
 * answers when W replicas hold it durably, of every write set that the map has by then. Before the commit a failure is
 * UNAVAILABLE or RESOURCE_EXHAUSTED and nothing was applied anywhere; after it, DEADLINE_EXCEEDED and the outcome is
 * unknown (PROTOCOL 6).
 */
export class Coordinator {
  private readonly options: CoordinatorOptions;
  private readonly waiting = new Set<WaitingWrite>();
  /** The group that the last writes are synced with. */
  private group: { readonly durable: Promise<void>; readonly writes: WaitingWrite[] } | undefined;
  /** Of writes that are under way, and the last of those that ended with an unknown outcome; under `placeOf`. */
  private readonly open = new Map<number, OpenMint>();
  /** Those that ended, oldest first. */
  private readonly unknownMints: number[] = [];

  constructor(options: CoordinatorOptions) {
    this.options = options;
  }

  put(operation: PutOperation): Promise<{ version: Version; old: LiveValue | undefined }> {
    const { key, value, ttlMs } = operation;
    const expiresAtMs = ttlMs === undefined ? undefined : this.options.clock.wallMs() + ttlMs;
    return this.write('put', operation, key.length + value.length, (version) =>
      liveRecord(key, value, version, expiresAtMs),
    );
  }

  async delete(operation: DeleteOperation): Promise<{ version: Version; existed: boolean }> {
    const { key } = operation;
    const { rules, store, hybridClock } = this.options;
    // The rule is that it writes; only the simulation leaves it out, to see that it would notice.
    if (!rules.deleteAlwaysWrites && store.latest(key) === undefined) {
      await hybridClock.raise(NO_VERSION);
      return { version: hybridClock.mint(NO_VERSION) ?? NO_VERSION, existed: false };
    }
    const { version, old } = await this.write('delete', operation, key.length, (minted) =>
      tombstoneRecord(key, minted),
    );
    return { version, existed: old !== undefined };
  }

  /** Ends every write under way with an unknown outcome. */
  abandon(reason: string): void {
    const error = new KvError('DEADLINE_EXCEEDED', `outcome unknown: ${reason}`);
    for (const write of this.waiting) write.fail(error);
  }

  /**
   * A quorum read is shown this: should it be of a write of this node's that is not acknowledged, it must not be written again
   * over what follows, by nobody. The request id, for whoever the read brings it to.
   */
  noteShown({ version }: StoredRecord): RequestId | undefined {
    const mint = this.open.get(placeOf(version));
    if (mint === undefined || compareVersions(version, mint.version) !== 0) return undefined;
    this.options.requests.noteVersion(version);
    return mint.requestId;
  }

  /** Writes under way are judged by the newer map from now on. */
  onMapAdopted(): void {
    for (const write of [...this.waiting]) write.evaluate();
  }

  /** On the way of every write: one promise for all of it, and another one for the replicas. */
  private async write(
    kind: 'put' | 'delete',
    operation: OperationOptions & { key: Buffer; requestId: RequestId | undefined },
    bytes: number,
    encode: Write['encode'],
  ): Promise<{ version: Version; old: LiveValue | undefined }> {
    const { inFlight, topology, retries, halts } = this.options;
    const { key, consistency, requestId, deadlineMs, signal } = operation;
    const partition = topology.partitionOf(key);
    const write: Write = {
      key,
      partition,
      consistency,
      requestId,
      deadlineMs,
      signal,
      encode,
      minted: [],
    };
    inFlight.enter(bytes + WRITE_OVERHEAD_BYTES);
    let isKnown = false;
    try {
      this.admit(kind, write);
      let above = NO_VERSION;
      // A first attempt that waited in the buffers of a halted node may have been sent again elsewhere, and be long done.
      if (requestId !== undefined && (retries.concerns(requestId, key) || halts.mayBeLate())) {
        const outcome = await this.lookInto(write, undefined);
        if (outcome.kind === 'done') return { version: outcome.version, old: outcome.replaced?.value };
        above = outcome.above;
        this.admit(kind, write);
      }
      let old: LiveValue | undefined;
      for (let mints = 0; ; mints += 1) {
        const commit =
          this.commit(write, above, mints > 0) ?? (await this.commitLater(kind, write, above, mints > 0));
        // What the write replaced, not what its own first version was.
        if (mints === 0) old = liveValue(commit.previous, this.options.clock.wallMs());
        this.noteMinted(write, commit.version, mints === 0 ? { value: old } : undefined);
        const answer = await this.replicate(write, commit);
        isKnown = answer.kind === 'held';
        if (isKnown) return { version: commit.version, old };
        // PROTOCOL 3: something this coordinator had not seen would win over the write. It must end above it.
        const outcome = await this.lookIntoAgain(write, commit.version);
        isKnown = outcome.kind === 'done';
        if (outcome.kind === 'done') return { version: outcome.version, old };
        const by = answer.kind === 'superseded' ? answer.by : undefined;
        above = [commit.version, by ?? NO_VERSION, outcome.above].reduce(newestVersion);
        this.options.metrics.count('second_mints');
      }
    } finally {
      inFlight.leave(bytes + WRITE_OVERHEAD_BYTES);
      this.forget(write, isKnown);
    }
  }

  private noteMinted(
    { key, requestId, minted }: Write,
    version: Version,
    replaced: Replaced | undefined,
  ): void {
    const place = placeOf(version);
    minted.push(place);
    this.open.set(place, { version, requestId });
    if (requestId !== undefined) this.options.requests.note(requestId, key, version, replaced);
  }

  /** What a write with an unknown outcome has minted is remembered for a while. */
  private forget({ minted }: Write, isKnown: boolean): void {
    if (isKnown) {
      for (const place of minted) this.open.delete(place);
      return;
    }
    this.unknownMints.push(...minted);
    for (const place of this.unknownMints.splice(0, this.unknownMints.length - MOST_UNKNOWN_MINTS)) {
      this.open.delete(place);
    }
  }

  private lookInto(write: Write, version: Version | undefined): Promise<RetryOutcome> {
    const { key, requestId, consistency, deadlineMs, signal } = write;
    return this.options.retries.resolve({ key, requestId, version, consistency, deadlineMs, signal });
  }

  /**
   * Before a write is minted again. Its client may have sent it to another node meanwhile, which finished it, or somebody may
   * have read it, and have gone on from there: minted again it would come back over what was written since.
   */
  private async lookIntoAgain(write: Write, version: Version): Promise<RetryOutcome> {
    try {
      return await this.lookInto(write, version);
    } catch (error) {
      // Nothing more was applied, but the first version was.
      throw new KvError('DEADLINE_EXCEEDED', `outcome unknown: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Refuses while nothing has been applied anywhere. */
  private admit(kind: 'put' | 'delete', { partition, consistency }: Write): void {
    const { topology, writeRefusal, metrics } = this.options;
    const refusal = writeRefusal(kind);
    if (refusal !== undefined) throw refusal;
    if (!topology.serves(partition)) {
      metrics.count('unavailable');
      throw notServing(topology);
    }
    const sets = topology.setsOf(partition);
    const reachable: Holders = {
      has: (nodeId) => nodeId === topology.nodeId || topology.isWritable(nodeId),
      wasReadable: (nodeId) => nodeId === topology.nodeId || topology.isReadable(nodeId, partition),
    };
    if (isWriteQuorum(sets, consistency, reachable)) return;
    metrics.count('unavailable');
    throw new KvError(
      'UNAVAILABLE',
      `${consistency}: in reach are ${describeQuorum(sets, consistency, reachable)}; nothing was applied`,
    );
  }

  /**
   * Mints and applies in one go, so that the version is above whatever the key holds; undefined when the clock's ceiling has
   * to be raised first.
   */
  private commit(write: Write, above: Version, again: boolean): Commit | undefined {
    const { hybridClock, ownLog, clock, topology } = this.options;
    if (clock.monotonicMs() >= write.deadlineMs) {
      if (again) throw this.unknown(write, NOBODY);
      throw new KvError('UNAVAILABLE', 'the deadline passed before the write began; nothing was applied');
    }
    // A node that lost its standing meanwhile must mint nothing more.
    if (again && !topology.serves(write.partition)) throw this.unknown(write, NOBODY);
    const floor = this.floorOf(write, above);
    const make = (held: StoredRecord | undefined): StoredRecord | undefined => {
      const version = hybridClock.mint(newestVersion(floor, held?.version ?? NO_VERSION));
      return version === undefined ? undefined : write.encode(version);
    };
    const written = ownLog.write(write.key, make, write.requestId);
    if (written === undefined) return undefined;
    const { record, sequence, previous, durable } = written;
    return { version: record.version, sequence, previous, durable };
  }

  private async commitLater(
    kind: 'put' | 'delete',
    write: Write,
    above: Version,
    again: boolean,
  ): Promise<Commit> {
    const { hybridClock, store } = this.options;
    for (;;) {
      const held = store.latest(write.key)?.version ?? NO_VERSION;
      await hybridClock.raise(newestVersion(this.floorOf(write, above), held));
      if (!again) this.admit(kind, write);
      const commit = this.commit(write, above, again);
      if (commit !== undefined) return commit;
    }
  }

  private floorOf({ partition }: Write, above: Version): Version {
    return newestVersion(above, this.options.mintFloor(partition));
  }

  /** Waits until enough replicas hold it: `superseded` as soon as one of the first that answer says so. */
  private replicate(write: Write, commit: Commit): Promise<WriteAnswer> {
    const { pending, topology, rules } = this.options;
    const waiting = new WaitingWrite({
      write,
      topology,
      rules,
      onEnd: () => {
        this.waiting.delete(waiting);
        pending.forget(commit.sequence);
      },
    });
    pending.expect(commit.sequence, (nodeId, answer) => waiting.answered(nodeId, answer));
    this.waiting.add(waiting);
    const promise = waiting.until(this.options, () => {
      this.options.metrics.count('unknown_outcomes');
      return this.unknown(write, waiting);
    });
    this.awaitSync(commit.durable, waiting);
    return promise;
  }

  /** Writes of one group become durable together. */
  private awaitSync(durable: Promise<void>, waiting: WaitingWrite): void {
    if (this.group?.durable === durable) {
      this.group.writes.push(waiting);
      return;
    }
    const writes = [waiting];
    const group = (this.group = { durable, writes });
    const { nodeId } = this.options.topology;
    durable.then(
      () => {
        if (this.group === group) this.group = undefined;
        for (const write of writes) write.answered(nodeId, HELD);
      },
      (error: unknown) => {
        if (this.group === group) this.group = undefined;
        const what = `outcome unknown: the store failed (${messageOf(error)})`;
        for (const write of writes) write.fail(new KvError('DEADLINE_EXCEEDED', what, { cause: error }));
      },
    );
  }

  private unknown({ partition, consistency }: Write, holders: Holders): KvError {
    const sets = this.options.topology.setsOf(partition);
    return new KvError(
      'DEADLINE_EXCEEDED',
      `outcome unknown: applied on ${describeQuorum(sets, consistency, holders)}`,
    );
  }
}

const NOBODY: Holders = { has: () => false, wasReadable: () => false };

interface WaitingWriteOptions {
  readonly write: Write;
  readonly topology: Topology;
  readonly rules: SafetyRules;
  /** It waits no longer. */
  readonly onEnd: () => void;
}

/** A write that waits for replicas, and who holds it. */
class WaitingWrite implements Holders {
  private readonly options: WaitingWriteOptions;
  private readonly held: string[] = [];
  /** Those that were readable when they said so. */
  private readonly readable: string[] = [];
  private settled: Settled<WriteAnswer> | undefined;
  private ended = false;

  constructor(options: WaitingWriteOptions) {
    this.options = options;
  }

  has(nodeId: string): boolean {
    return this.held.includes(nodeId);
  }

  wasReadable(nodeId: string): boolean {
    return this.readable.includes(nodeId);
  }

  /** Ends at the write's deadline at the latest, and then with `late()`. */
  until(
    time: { readonly clock: Clock; readonly scheduler: Scheduler },
    late: () => KvError,
  ): Promise<WriteAnswer> {
    const { deadlineMs, signal } = this.options.write;
    const onLate = (): KvError => {
      this.end();
      return late();
    };
    this.settled = settleBy<WriteAnswer>(time, deadlineMs, onLate, signal);
    return this.settled.promise;
  }

  answered(nodeId: string, answer: WriteAnswer): void {
    if (this.ended) return;
    const { write, topology, rules } = this.options;
    if (answer.kind === 'superseded' && rules.mintAgainWhenSuperseded) {
      this.resolve(answer);
      return;
    }
    this.held.push(nodeId);
    if (nodeId === topology.nodeId || topology.isReadable(nodeId, write.partition))
      this.readable.push(nodeId);
    this.evaluate();
  }

  /** Looks whether enough replicas hold it, by the map of now. */
  evaluate(): void {
    const { write, topology } = this.options;
    // With ONE it is this replica that counts, so that what it answers next includes the write.
    if (write.consistency === 'ONE' && !this.has(topology.nodeId)) return;
    if (isWriteQuorum(topology.setsOf(write.partition), write.consistency, this)) this.resolve(HELD);
  }

  fail(error: KvError): void {
    this.end();
    this.settled?.reject(error);
  }

  private resolve(answer: WriteAnswer): void {
    this.end();
    this.settled?.resolve(answer);
  }

  private end(): void {
    if (this.ended) return;
    this.ended = true;
    this.options.onEnd();
  }
}

/** Distinguishes the versions that one node mints within two years. */
function placeOf({ wallMs, counter }: Version): number {
  return (wallMs % 2 ** 36) * 2 ** 16 + counter;
}

/** What a node answers that is not a readable replica: nothing was done, another one may be asked. */
export function notServing(topology: Pick<Topology, 'map' | 'nodeId'>): KvError {
  const why =
    standingOutside(topology.map, topology.nodeId) ?? `${topology.nodeId} is not a readable replica`;
  return new KvError('UNAVAILABLE', `${why} of the key; nothing was applied, send it to another node`);
}
