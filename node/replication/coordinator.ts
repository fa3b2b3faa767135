import type { Clock, Scheduler } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { newestVersion, NO_VERSION, type Version } from '../../model/version.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import { liveRecord, tombstoneRecord } from '../storage/record.ts';
import type { Mutation, Store, StoredRecord } from '../storage/store.ts';
import { type Settled, settleBy } from './deadline.ts';
import type { DeleteOperation, LiveValue, OperationOptions, PutOperation } from './engine.ts';
import type { HybridClock } from './hybrid-clock.ts';
import type { InFlight } from './in-flight.ts';
import { liveValue } from './live-value.ts';
import type { ReplicationMetrics } from './metrics.ts';
import type { OwnLog } from './own-log.ts';
import type { PendingWrites, WriteAnswer } from './pending-writes.ts';
import { requiredReplicas } from './quorum.ts';

/** What operations need to know of the cluster. */
export interface ReplicaView {
  /** Why this node may not serve reads and coordinate writes; undefined when it may. */
  readonly refusal: string | undefined;
  /** Names of the other replicas of a partition. */
  othersOf(partition: number): readonly string[];
  /** Whether a replica is connected and takes writes. */
  isWritable(nodeId: string): boolean;
  /** Whether a replica is connected and serves reads. */
  isReadable(nodeId: string): boolean;
}

export interface CoordinatorOptions {
  readonly store: Store;
  readonly ownLog: OwnLog;
  readonly hybridClock: HybridClock;
  readonly pending: PendingWrites;
  readonly view: ReplicaView;
  readonly inFlight: InFlight;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly metrics: ReplicationMetrics;
}

interface Write {
  readonly key: Buffer;
  readonly requestId: RequestId | undefined;
  readonly deadlineMs: number;
  readonly signal: AbortSignal | undefined;
  /** Answers that make it a success, of how many replicas. */
  readonly required: number;
  readonly replicas: number;
  readonly encode: (version: Version) => StoredRecord;
}

interface Commit {
  readonly version: Version;
  readonly sequence: number;
  readonly previous: StoredRecord | undefined;
  readonly durable: Promise<void>;
}

const WRITE_OVERHEAD_BYTES = 256;

/**
 * Coordinates writes: commits locally, lets the log carry the record to the other replicas beside the local sync, and
 * answers when W replicas hold it durably. Before the commit a failure is UNAVAILABLE or RESOURCE_EXHAUSTED and nothing was
 * applied anywhere; after it, DEADLINE_EXCEEDED and the outcome is unknown (PROTOCOL 6).
 */
export class Coordinator {
  private readonly options: CoordinatorOptions;
  private readonly waiting = new Set<Settled<WriteAnswer>>();

  constructor(options: CoordinatorOptions) {
    this.options = options;
  }

  async put(operation: PutOperation): Promise<{ version: Version; old: LiveValue | undefined }> {
    const { clock, inFlight } = this.options;
    const { key, value, ttlMs } = operation;
    return inFlight.run(key.length + value.length + WRITE_OVERHEAD_BYTES, async () => {
      const expiresAtMs = ttlMs === undefined ? undefined : clock.wallMs() + ttlMs;
      return this.write(operation, (version) => liveRecord(key, value, version, expiresAtMs));
    });
  }

  async delete(operation: DeleteOperation): Promise<{ version: Version; existed: boolean }> {
    const { key } = operation;
    const { version, old } = await this.options.inFlight.run(key.length + WRITE_OVERHEAD_BYTES, () =>
      this.write(operation, (minted) => tombstoneRecord(key, minted)),
    );
    return { version, existed: old !== undefined };
  }

  /** Ends every write under way with an unknown outcome. */
  abandon(reason: string): void {
    const error = new KvError('DEADLINE_EXCEEDED', `outcome unknown: ${reason}`);
    for (const settled of this.waiting) settled.reject(error);
  }

  private async write(
    operation: OperationOptions & { key: Buffer; requestId: RequestId | undefined },
    encode: Write['encode'],
  ): Promise<{ version: Version; old: LiveValue | undefined }> {
    const { key, requestId, deadlineMs, signal } = operation;
    const write: Write = { key, requestId, deadlineMs, signal, encode, ...this.admit(operation) };
    let old: LiveValue | undefined;
    let above = NO_VERSION;
    for (let mints = 0; ; mints += 1) {
      const commit = await this.commit(write, above, mints === 0 ? undefined : () => this.unknown(write, 0));
      // What the write replaced, not what its own first version was.
      if (mints === 0) old = liveValue(commit.previous, this.options.clock.wallMs());
      const answer = await this.replicate(write, commit);
      if (answer.kind === 'held') return { version: commit.version, old };
      // PROTOCOL 3: something this coordinator had not seen would win over the write. It must end above it.
      above = newestVersion(commit.version, answer.by ?? NO_VERSION);
      this.options.metrics.count('second_mints');
    }
  }

  /** Refuses while nothing has been applied anywhere. */
  private admit(operation: OperationOptions & { key: Buffer }): { required: number; replicas: number } {
    const { view, store, metrics } = this.options;
    const refusal = view.refusal;
    if (refusal !== undefined) {
      metrics.count('unavailable');
      throw new KvError('UNAVAILABLE', `${refusal}; nothing was applied, send it to another node`);
    }
    const others = view.othersOf(partitionOf(operation.key, store.partitions));
    const replicas = others.length + 1;
    const required = requiredReplicas(operation.consistency, replicas);
    const reachable = 1 + others.filter((nodeId) => view.isWritable(nodeId)).length;
    if (reachable < required) {
      metrics.count('unavailable');
      throw new KvError(
        'UNAVAILABLE',
        `${operation.consistency} needs ${required} of ${replicas} replicas and ${reachable} can be reached; nothing was applied`,
      );
    }
    return { required, replicas };
  }

  /** Mints and applies in one go, so that the version is above whatever the key holds. */
  private async commit(write: Write, above: Version, late: (() => KvError) | undefined): Promise<Commit> {
    const { store, hybridClock, ownLog, clock, view } = this.options;
    for (;;) {
      if (clock.monotonicMs() >= write.deadlineMs) {
        throw (
          late?.() ??
          new KvError('UNAVAILABLE', 'the deadline passed before the write began; nothing was applied')
        );
      }
      const seen = newestVersion(above, store.latest(write.key)?.version ?? NO_VERSION);
      const version = hybridClock.mint(seen);
      if (version === undefined) {
        await hybridClock.raise(seen);
        const { refusal } = view;
        if (late === undefined && refusal !== undefined) {
          throw new KvError('UNAVAILABLE', `${refusal}; nothing was applied, send it to another node`);
        }
        continue;
      }
      const mutation: Mutation = {
        key: write.key,
        record: write.encode(version),
        own: true,
        ...(write.requestId === undefined ? {} : { requestId: write.requestId }),
      };
      const { outcomes, durable } = ownLog.append([mutation]);
      const outcome = outcomes[0];
      if (outcome?.kind !== 'applied') {
        throw new KvError('INTERNAL', 'a version minted above everything seen was not applied');
      }
      return { version, sequence: outcome.sequence, previous: outcome.previous, durable };
    }
  }

  /** Waits for the first W answers: `superseded` as soon as one of them says so. */
  private async replicate(write: Write, commit: Commit): Promise<WriteAnswer> {
    const { pending, clock, scheduler, metrics } = this.options;
    let held = 0;
    const late = (): KvError => {
      metrics.count('unknown_outcomes');
      return this.unknown(write, held);
    };
    const settled = settleBy<WriteAnswer>({ clock, scheduler }, write.deadlineMs, late, write.signal);
    const count = (answer: WriteAnswer): void => {
      if (answer.kind === 'superseded') settled.resolve(answer);
      else if (++held >= write.required) settled.resolve(answer);
    };
    // With ONE it is this replica that counts, so that what it answers next includes the write.
    if (write.required > 1) pending.expect(commit.sequence, (_peer, answer) => count(answer));
    commit.durable.then(
      () => count({ kind: 'held' }),
      (error: unknown) =>
        settled.reject(
          new KvError('DEADLINE_EXCEEDED', `outcome unknown: the store failed (${messageOf(error)})`, {
            cause: error,
          }),
        ),
    );
    this.waiting.add(settled);
    try {
      return await settled.promise;
    } finally {
      this.waiting.delete(settled);
      pending.forget(commit.sequence);
    }
  }

  private unknown(write: Write, held: number): KvError {
    return new KvError(
      'DEADLINE_EXCEEDED',
      `outcome unknown: applied on ${held} of ${write.replicas} replicas, ${write.required} needed`,
    );
  }
}
