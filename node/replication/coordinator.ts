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
import type { RequestIndex } from './requests/request-index.ts';
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

/** A write that waits for replicas. */
interface Waiting {
  readonly settled: Settled<WriteAnswer>;
  /** Looks again whether enough replicas hold it: the map may have changed. */
  readonly evaluate: () => void;
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
  private readonly waiting = new Set<Waiting>();
  /** Of writes that are under way, and the last of those that ended with an unknown outcome; under `placeOf`. */
  private readonly open = new Map<number, OpenMint>();
  /** Those that ended, oldest first. */
  private readonly unknownMints: number[] = [];

  constructor(options: CoordinatorOptions) {
    this.options = options;
  }

  async put(operation: PutOperation): Promise<{ version: Version; old: LiveValue | undefined }> {
    const { clock, inFlight } = this.options;
    const { key, value, ttlMs } = operation;
    return inFlight.run(key.length + value.length + WRITE_OVERHEAD_BYTES, async () => {
      const expiresAtMs = ttlMs === undefined ? undefined : clock.wallMs() + ttlMs;
      return this.write('put', operation, (version) => liveRecord(key, value, version, expiresAtMs));
    });
  }

  async delete(operation: DeleteOperation): Promise<{ version: Version; existed: boolean }> {
    const { key } = operation;
    const { rules, store, hybridClock } = this.options;
    // The rule is that it writes; only the simulation leaves it out, to see that it would notice.
    if (!rules.deleteAlwaysWrites && store.latest(key) === undefined) {
      await hybridClock.raise(NO_VERSION);
      return { version: hybridClock.mint(NO_VERSION) ?? NO_VERSION, existed: false };
    }
    const { version, old } = await this.options.inFlight.run(key.length + WRITE_OVERHEAD_BYTES, () =>
      this.write('delete', operation, (minted) => tombstoneRecord(key, minted)),
    );
    return { version, existed: old !== undefined };
  }

  /** Ends every write under way with an unknown outcome. */
  abandon(reason: string): void {
    const error = new KvError('DEADLINE_EXCEEDED', `outcome unknown: ${reason}`);
    for (const { settled } of this.waiting) settled.reject(error);
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
    for (const { evaluate } of [...this.waiting]) evaluate();
  }

  private async write(
    kind: 'put' | 'delete',
    operation: OperationOptions & { key: Buffer; requestId: RequestId | undefined },
    encode: Write['encode'],
  ): Promise<{ version: Version; old: LiveValue | undefined }> {
    const { key, consistency, requestId, deadlineMs, signal } = operation;
    const partition = this.options.topology.partitionOf(key);
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
    this.admit(kind, write);
    let above = NO_VERSION;
    // A first attempt that waited in the buffers of a halted node may have been sent again elsewhere, and be long done.
    const { retries, halts } = this.options;
    if (requestId !== undefined && (retries.concerns(requestId, key) || halts.mayBeLate())) {
      const outcome = await this.lookInto(write, undefined);
      if (outcome.kind === 'done') return { version: outcome.version, old: outcome.replaced?.value };
      above = outcome.above;
      this.admit(kind, write);
    }
    try {
      const done = await this.carryOut(kind, write, above);
      for (const place of write.minted) this.open.delete(place);
      return done;
    } catch (error) {
      this.unknownMints.push(...write.minted);
      for (const place of this.unknownMints.splice(0, this.unknownMints.length - MOST_UNKNOWN_MINTS))
        this.open.delete(place);
      throw error;
    }
  }

  private async carryOut(
    kind: 'put' | 'delete',
    write: Write,
    atLeast: Version,
  ): Promise<{ version: Version; old: LiveValue | undefined }> {
    const { requests, clock, metrics } = this.options;
    const { key, requestId } = write;
    let old: LiveValue | undefined;
    let above = atLeast;
    for (let mints = 0; ; mints += 1) {
      const commit = await this.commit(kind, write, above, mints > 0);
      // What the write replaced, not what its own first version was.
      if (mints === 0) old = liveValue(commit.previous, clock.wallMs());
      const place = placeOf(commit.version);
      write.minted.push(place);
      this.open.set(place, { version: commit.version, requestId });
      if (requestId !== undefined) {
        requests.note(requestId, key, commit.version, mints === 0 ? { value: old } : undefined);
      }
      const answer = await this.replicate(write, commit);
      if (answer.kind === 'held') return { version: commit.version, old };
      // PROTOCOL 3: something this coordinator had not seen would win over the write. It must end above it.
      const outcome = await this.lookIntoAgain(write, commit.version);
      if (outcome.kind === 'done') return { version: outcome.version, old };
      above = [commit.version, answer.by ?? NO_VERSION, outcome.above].reduce(newestVersion);
      metrics.count('second_mints');
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

  /** Mints and applies in one go, so that the version is above whatever the key holds. */
  private async commit(
    kind: 'put' | 'delete',
    write: Write,
    above: Version,
    again: boolean,
  ): Promise<Commit> {
    const { hybridClock, ownLog, clock, topology, mintFloor } = this.options;
    for (;;) {
      if (clock.monotonicMs() >= write.deadlineMs) {
        if (again) throw this.unknown(write, new Map());
        throw new KvError('UNAVAILABLE', 'the deadline passed before the write began; nothing was applied');
      }
      // A node that lost its standing meanwhile must mint nothing more.
      if (again && !topology.serves(write.partition)) throw this.unknown(write, new Map());
      const floor = newestVersion(above, mintFloor(write.partition));
      let held = NO_VERSION;
      const written = ownLog.write(
        write.key,
        (record) => {
          held = record?.version ?? NO_VERSION;
          const version = hybridClock.mint(newestVersion(floor, held));
          return version === undefined ? undefined : write.encode(version);
        },
        write.requestId,
      );
      if (written !== undefined) {
        const { record, sequence, previous, durable } = written;
        return { version: record.version, sequence, previous, durable };
      }
      await hybridClock.raise(newestVersion(floor, held));
      if (!again) this.admit(kind, write);
    }
  }

  /** Waits until enough replicas hold it: `superseded` as soon as one of the first that answer says so. */
  private async replicate(write: Write, commit: Commit): Promise<WriteAnswer> {
    const { pending, clock, scheduler, metrics, topology, rules } = this.options;
    /** Whether each holder was readable when it said so. */
    const held = new Map<string, boolean>();
    const late = (): KvError => {
      metrics.count('unknown_outcomes');
      return this.unknown(write, held);
    };
    const settled = settleBy<WriteAnswer>({ clock, scheduler }, write.deadlineMs, late, write.signal);
    const evaluate = (): void => {
      // With ONE it is this replica that counts, so that what it answers next includes the write.
      if (write.consistency === 'ONE' && !held.has(topology.nodeId)) return;
      const sets = topology.setsOf(write.partition);
      if (isWriteQuorum(sets, write.consistency, holdersOf(held))) settled.resolve(HELD);
    };
    const answered = (nodeId: string, answer: WriteAnswer): void => {
      if (answer.kind === 'superseded' && rules.mintAgainWhenSuperseded) {
        settled.resolve(answer);
        return;
      }
      held.set(nodeId, nodeId === topology.nodeId || topology.isReadable(nodeId, write.partition));
      evaluate();
    };
    pending.expect(commit.sequence, answered);
    commit.durable.then(
      () => answered(topology.nodeId, HELD),
      (error: unknown) =>
        settled.reject(
          new KvError('DEADLINE_EXCEEDED', `outcome unknown: the store failed (${messageOf(error)})`, {
            cause: error,
          }),
        ),
    );
    const waiting: Waiting = { settled, evaluate };
    this.waiting.add(waiting);
    try {
      return await settled.promise;
    } finally {
      this.waiting.delete(waiting);
      pending.forget(commit.sequence);
    }
  }

  private unknown({ partition, consistency }: Write, held: ReadonlyMap<string, boolean>): KvError {
    const sets = this.options.topology.setsOf(partition);
    const applied = describeQuorum(sets, consistency, holdersOf(held));
    return new KvError('DEADLINE_EXCEEDED', `outcome unknown: applied on ${applied}`);
  }
}

/** Distinguishes the versions that one node mints within two years. */
function placeOf({ wallMs, counter }: Version): number {
  return (wallMs % 2 ** 36) * 2 ** 16 + counter;
}

function holdersOf(held: ReadonlyMap<string, boolean>): Holders {
  return {
    has: (nodeId) => held.has(nodeId),
    wasReadable: (nodeId) => held.get(nodeId) === true,
  };
}

/** What a node answers that is not a readable replica: nothing was done, another one may be asked. */
export function notServing(topology: Pick<Topology, 'map' | 'nodeId'>): KvError {
  const why =
    standingOutside(topology.map, topology.nodeId) ?? `${topology.nodeId} is not a readable replica`;
  return new KvError('UNAVAILABLE', `${why} of the key; nothing was applied, send it to another node`);
}
