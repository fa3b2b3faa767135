import type { Clock, Scheduler } from '../../../common/clock.ts';
import { KvError } from '../../../common/errors.ts';
import { compareVersions, NO_VERSION, type Version } from '../../../model/version.ts';
import type { RequestId } from '../../../proto/gen/kvstore.ts';
import type { LookupReply, LookupRequest } from '../../../proto/gen/peer.ts';
import { decodeRecord } from '../../storage/record.ts';
import { type Settled, settleBy } from '../deadline.ts';
import type { Consistency } from '../engine.ts';
import { isCovered } from '../horizon/rules.ts';
import { describeQuorum, type Holders, isWriteQuorum } from '../quorum.ts';
import type { NamedWrite, RepairReason, Repairs, SentRecord } from '../repairs.ts';
import type { Topology } from '../topology.ts';
import { judgeRetry, type RetryAnswer, type RetryVerdict } from './judge-retry.ts';
import { type Lookup, lookUp, type LookupSources } from './lookup.ts';
import type { RequestMetrics } from './metrics.ts';
import type { Newcomers } from './newcomers.ts';
import type { Replaced } from './request-index.ts';

/** Another replica, as far as retries need it. */
export interface RetryReplica {
  lookup(request: Omit<LookupRequest, 'id'>): Promise<LookupReply>;
  /** Resolves when it durably holds the records or newer ones. */
  repair(records: readonly SentRecord[], reason: RepairReason): Promise<void>;
}

export interface RetriesOptions extends LookupSources {
  readonly topology: Pick<Topology, 'nodeId' | 'setsOf' | 'partitionOf' | 'holds' | 'isReadable'>;
  readonly repairs: Pick<Repairs, 'apply'>;
  /** A connected member. */
  readonly replica: (nodeId: string) => RetryReplica | undefined;
  readonly newcomers: Pick<Newcomers, 'has'>;
  /** The member that has this incarnation. */
  readonly memberOf: (incarnation: number) => string | undefined;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly metrics: RequestMetrics;
}

/** A write of which it is not known what became of it: its client sent it again, or a replica held something newer. */
export interface Retry {
  readonly key: Buffer;
  readonly requestId: RequestId | undefined;
  /** The version that this node has minted it with and has been at it since; at least one of the two is known. */
  readonly version: Version | undefined;
  readonly consistency: Consistency;
  readonly deadlineMs: number;
  readonly signal: AbortSignal | undefined;
}

export type RetryOutcome =
  /** It is done: enough replicas durably hold this version or a newer one. */
  | { readonly kind: 'done'; readonly version: Version; readonly replaced: Replaced | undefined }
  /** It is to be written now, above this version. */
  | { readonly kind: 'write'; readonly above: Version };

type Conclusion = Exclude<RetryVerdict, { readonly kind: 'wait' }>;

/**
 * Finds out what became of a write that is sent again, and finishes it (PROTOCOL 8). Only writes that are not a client's
 * first attempt cost anything here.
 */
export class Retries {
  private readonly options: RetriesOptions;

  constructor(options: RetriesOptions) {
    this.options = options;
  }

  /**
   * Whether a write must be looked into before it is written: a retry, or a first attempt that was overtaken by one.
   */
  concerns(requestId: RequestId | undefined, key: Buffer): requestId is RequestId {
    if (requestId === undefined) return false;
    return requestId.attempt > 0 || this.options.index.versionOf(requestId, key) !== undefined;
  }

  /**
   * @throws KvError UNAVAILABLE when too few replicas can tell: this attempt has applied nothing. FAILED_PRECONDITION when
   *   the request is too old: what became of it is unknown, and asking again does not help. DEADLINE_EXCEEDED when it was
   *   found and did not reach enough replicas.
   */
  async resolve(retry: Retry): Promise<RetryOutcome> {
    const { index, metrics } = this.options;
    const { requestId, version } = retry;
    if (requestId !== undefined && version === undefined && this.isForgotten(requestId, retry.key)) {
      metrics.count('retries_refused');
      throw new KvError(
        'FAILED_PRECONDITION',
        `the write was first sent more than ${index.windowMs / 1000} s ago, and whether it was applied is not remembered: ` +
          'read the key, and write with a new request id if need be; nothing was applied by this attempt',
      );
    }
    const inquiry = new Inquiry(this.options, retry);
    const verdict = await inquiry.conclude();
    if (verdict.kind === 'write') {
      metrics.count('retries_written');
      return { kind: 'write', above: inquiry.newest?.record.version ?? NO_VERSION };
    }
    metrics.count('retries_finished');
    await this.finish(retry, verdict.version, inquiry.newest);
    const replaced = requestId === undefined ? undefined : index.replacedBy(requestId);
    return { kind: 'done', version: verdict.version, replaced };
  }

  private isForgotten(requestId: RequestId, key: Buffer): boolean {
    const { index } = this.options;
    return index.versionOf(requestId, key) === undefined && index.hasForgotten(requestId);
  }

  /** Brings the write, or what has overwritten it, to enough replicas. */
  private async finish(retry: Retry, version: Version, newest: SentRecord | undefined): Promise<void> {
    const { topology, clock, scheduler, horizonMs } = this.options;
    const partition = topology.partitionOf(retry.key);
    // Collected since: every replica had it.
    if (newest === undefined && isCovered(version, horizonMs(partition))) return;
    if (newest === undefined || compareVersions(newest.record.version, version) < 0) {
      throw new KvError('UNAVAILABLE', 'the replica that holds the write cannot show it; try again');
    }
    const { requestId, key } = retry;
    const finished = requestId === undefined ? undefined : { requestId, key, version };
    const held = new Map<string, boolean>();
    const holders: Holders = {
      has: (nodeId) => held.has(nodeId),
      wasReadable: (nodeId) => held.get(nodeId) === true,
    };
    const unknown = (): KvError => {
      const applied = describeQuorum(topology.setsOf(partition), retry.consistency, holders);
      return new KvError('DEADLINE_EXCEEDED', `outcome unknown: applied on ${applied}`);
    };
    const settled = settleBy<undefined>({ clock, scheduler }, retry.deadlineMs, unknown, retry.signal);
    const members = topology.setsOf(partition).holders;
    let open = members.length;
    for (const nodeId of members) {
      this.bring(nodeId, newest, finished)
        .then(() => {
          const isReadable = nodeId === topology.nodeId || topology.isReadable(nodeId, partition);
          held.set(nodeId, isReadable);
        })
        .catch(() => undefined) // One less; the others may be enough.
        .finally(() => {
          open -= 1;
          if (isWriteQuorum(topology.setsOf(partition), retry.consistency, holders))
            settled.resolve(undefined);
          else if (open === 0) settled.reject(unknown());
        });
    }
    await settled.promise;
  }

  private async bring(nodeId: string, shown: SentRecord, finished: NamedWrite | undefined): Promise<void> {
    const { topology, repairs, replica } = this.options;
    if (nodeId === topology.nodeId) {
      await repairs.apply([shown], { finished });
      return;
    }
    const other = replica(nodeId);
    if (other === undefined) throw new KvError('UNAVAILABLE', `${nodeId} is not connected`);
    await other.repair([shown], { finished });
  }
}

/** Asks all replicas about one request until the answers tell what to do. */
class Inquiry {
  private readonly options: RetriesOptions;
  private readonly retry: Retry;
  private readonly partition: number;
  private readonly answers = new Map<string, RetryAnswer>();
  private readonly settled: Settled<Conclusion>;
  /** The version that they are asked about. */
  private asked: Version | undefined;
  private round = 0;
  private open = 0;
  private concluded = false;
  private shown: SentRecord | undefined;

  constructor(options: RetriesOptions, retry: Retry) {
    const { clock, scheduler, topology } = options;
    this.options = options;
    this.retry = retry;
    this.partition = topology.partitionOf(retry.key);
    this.settled = settleBy({ clock, scheduler }, retry.deadlineMs, () => this.undecided(), retry.signal);
  }

  /** The newest record of the key that any of them has shown. */
  get newest(): SentRecord | undefined {
    return this.shown;
  }

  conclude(): Promise<Conclusion> {
    this.ask(this.retry.version);
    return this.settled.promise;
  }

  /** All replicas, anew. */
  private ask(version: Version | undefined): void {
    const { options, retry } = this;
    const { topology, replica } = options;
    const { key, requestId } = retry;
    this.asked = version;
    this.answers.clear();
    const round = (this.round += 1);
    const others = topology.setsOf(this.partition).holders.flatMap((nodeId) => {
      const other = nodeId === topology.nodeId ? undefined : replica(nodeId);
      return other === undefined ? [] : [{ nodeId, other }];
    });
    this.open = others.length;
    for (const { nodeId, other } of others) {
      other
        .lookup({ key, requestId, version })
        .then((reply) => {
          if (round === this.round) this.note(nodeId, lookupOf(key, reply));
        })
        .catch(() => undefined) // As if it had not been connected.
        .finally(() => {
          if (round !== this.round) return;
          this.open -= 1;
          this.judge();
        });
    }
    const unsettled = retry.version !== undefined && options.index.isUnsettled(retry.version);
    this.note(topology.nodeId, lookUp(options, { requestId, version }, key), unsettled);
    this.judge();
  }

  private note(nodeId: string, { known, record, horizonMs }: Lookup, unsettled = false): void {
    this.answers.set(nodeId, { known, stored: record?.version, horizonMs, unsettled });
    if (record === undefined) return;
    const before = this.shown?.record.version ?? NO_VERSION;
    if (compareVersions(record.version, before) > 0) this.shown = { key: this.retry.key, record, horizonMs };
  }

  private judge(): void {
    if (this.concluded) return;
    const { topology, memberOf, newcomers } = this.options;
    const verdict = judgeRetry({
      sets: topology.setsOf(this.partition),
      consistency: this.retry.consistency,
      answers: this.answers,
      minted: this.asked,
      minterOf: ({ writer }) => memberOf(writer),
      isNewcomer: (nodeId, version) => newcomers.has(nodeId, this.partition, version),
    });
    if (verdict.kind === 'wait' && this.open > 0) return;
    // A repair may have brought it where its id is not known, and something newer have come over it since.
    const { beaten } = verdict.kind === 'write' ? verdict : { beaten: undefined };
    if (beaten !== undefined && compareVersions(beaten, this.asked ?? NO_VERSION) !== 0) {
      this.ask(beaten);
      return;
    }
    this.concluded = true;
    if (verdict.kind === 'wait') this.settled.reject(this.undecided());
    else this.settled.resolve(verdict);
  }

  private undecided(): KvError {
    const { topology, metrics } = this.options;
    this.concluded = true;
    metrics.count('retries_undecided');
    const { holders } = topology.setsOf(this.partition);
    const telling = holders.filter(
      (nodeId) => (this.answers.get(nodeId)?.known.kind ?? 'unknown') !== 'unknown',
    );
    return new KvError(
      'UNAVAILABLE',
      `what became of the earlier attempt cannot be told yet: ${telling.length} of ${holders.length} replicas can say; ` +
        'nothing was applied by this attempt',
    );
  }
}

/** @throws KvError DATA_LOSS when the record is damaged. */
function lookupOf(key: Buffer, { found, version, record, unknown, horizonMs }: LookupReply): Lookup {
  const decoded = record.length === 0 ? undefined : decodeRecord(key, record);
  if (found && version !== undefined) return { known: { kind: 'held', version }, record: decoded, horizonMs };
  return { known: { kind: unknown ? 'unknown' : 'not-held' }, record: decoded, horizonMs };
}
