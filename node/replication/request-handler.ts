import { KvError } from '../../common/errors.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import {
  type DigestReply,
  type DigestRequest,
  type LeafReply,
  type LeafRequest,
  type LookupReply,
  type LookupRequest,
  type ListReply,
  type ListRequest,
  type ReadRequest,
  type ReadResult,
  ReadResult_Outcome,
  type RepairRequest,
} from '../../proto/gen/peer.ts';
import { PartitionSet } from '../cluster/partition-set.ts';
import { decodeRecord } from '../storage/record.ts';
import type { Mutation, Store, StoredRecord } from '../storage/store.ts';
import type { Forwarded } from './forwarded.ts';
import type { HybridClock } from './hybrid-clock.ts';
import { type ListBounds, type ListedPage, listLocal } from './local-listing.ts';
import type { OwnLog } from './own-log.ts';
import type { FrameBody } from './peer-link.ts';
import type { NamedWrite, Repairs } from './repairs.ts';
import type { RequestIndex } from './requests/request-index.ts';
import type { Topology } from './topology.ts';

export interface RequestHandlerOptions {
  readonly store: Store;
  readonly ownLog: OwnLog;
  readonly clock: HybridClock;
  readonly topology: Pick<Topology, 'partitionOf' | 'holds' | 'serves'>;
  /** This node's horizon of a partition, for peers to judge its records by (PROTOCOL 24). */
  readonly horizonMs: (partition: number) => number;
  /** Whether a record from outside the live log may be applied here, by the sender's horizon. */
  readonly mayApply: (key: Buffer, mutation: Mutation, senderHorizonMs: number) => boolean;
  readonly repairs: Pick<Repairs, 'apply'>;
  readonly index: Pick<RequestIndex, 'note'>;
  /** A record of this node goes into a quorum read: the request id of a write that is not acknowledged. */
  readonly onShown: (record: StoredRecord) => RequestId | undefined;
  readonly forwarded: Pick<Forwarded, 'answer'>;
  readonly digests: (request: DigestRequest) => Promise<DigestReply>;
  readonly leaves: (request: LeafRequest) => Promise<LeafReply>;
  readonly lookup: (request: LookupRequest) => LookupReply;
}

/** What a peer asks. */
export type RequestBody = Extract<
  FrameBody,
  { $case: 'read' | 'repair' | 'list' | 'forward' | 'digest' | 'leaf' | 'lookup' }
>;

const NOTHING = Buffer.alloc(0);
/** Records in one reply, beyond the first. */
const MOST_REPLY_BYTES = 1024 * 1024;

/** Answers a peer's questions from this node's synced state. */
export class RequestHandler {
  private readonly options: RequestHandlerOptions;

  constructor(options: RequestHandlerOptions) {
    this.options = options;
  }

  /**
   * The reply to a request.
   *
   * @throws KvError when the request is malformed or the store fails; the stream must then end.
   */
  async answer(request: RequestBody): Promise<FrameBody> {
    const { forwarded, digests, leaves, lookup } = this.options;
    switch (request.$case) {
      case 'read':
        return { $case: 'readReply', value: { id: request.value.id, results: this.read(request.value) } };
      case 'repair':
        await this.repair(request.value);
        return { $case: 'repairReply', value: { id: request.value.id } };
      case 'list':
        return { $case: 'listReply', value: await this.list(request.value) };
      case 'forward':
        return { $case: 'forwardReply', value: await forwarded.answer(request.value) };
      case 'digest':
        return { $case: 'digestReply', value: await digests(request.value) };
      case 'leaf':
        return { $case: 'leafReply', value: await leaves(request.value) };
      case 'lookup':
        return { $case: 'lookupReply', value: lookup(request.value) };
    }
  }

  private read({ keys, stored }: ReadRequest): ReadResult[] {
    const results: ReadResult[] = [];
    let bytes = 0;
    for (const key of keys) {
      const result = this.readOne(key, stored);
      bytes += result.record.length;
      // Fewer results than keys: the asker asks again for the rest.
      if (results.length > 0 && bytes > MOST_REPLY_BYTES) break;
      results.push(result);
    }
    return results;
  }

  private readOne(key: Buffer, stored: boolean): ReadResult {
    const { store, topology, horizonMs, onShown } = this.options;
    const partition = topology.partitionOf(key);
    // Never "absent" from a replica that may have lost the key (PROTOCOL 20).
    if (!(stored ? topology.holds(partition) : topology.serves(partition))) {
      return withoutRecord(ReadResult_Outcome.WRONG_REPLICA, 0);
    }
    const horizon = horizonMs(partition);
    try {
      const record = store.get(key);
      if (record === undefined) return withoutRecord(ReadResult_Outcome.ABSENT, horizon);
      const requestId = stored ? undefined : onShown(record);
      return { outcome: ReadResult_Outcome.RECORD, record: record.bytes, horizonMs: horizon, requestId };
    } catch (error) {
      if (!isDataLoss(error)) throw error;
      return withoutRecord(ReadResult_Outcome.DATA_LOSS, horizon);
    }
  }

  private async repair({
    records,
    returned,
    returnedWrites,
    finished,
    forRead,
  }: RepairRequest): Promise<void> {
    const { ownLog, clock, topology, repairs, index, mayApply } = this.options;
    const sent = records.flatMap(({ key, record, horizonMs }) => {
      const decoded = decodeRecord(key, record);
      clock.observe(decoded.version);
      return topology.holds(topology.partitionOf(key)) ? [{ key, record: decoded, horizonMs }] : [];
    });
    if (!returned) return repairs.apply(sent, { finished: finishedWrite(finished), forRead });
    const mutations = sent.flatMap(({ key, record, horizonMs }): Mutation[] => {
      const requestId = returnedWrites.find((write) => write.key.equals(key))?.requestId;
      const mutation = { key, record, own: true, ...(requestId === undefined ? {} : { requestId }) };
      return mayApply(key, mutation, horizonMs) ? [mutation] : [];
    });
    const { durable } = ownLog.append(mutations);
    for (const { key, record, requestId } of mutations) {
      if (requestId !== undefined) index.note(requestId, key, record.version);
    }
    await durable;
  }

  private async list(request: ListRequest): Promise<ListReply> {
    const { store, topology } = this.options;
    const { id, prefix, limit, maxBytes, withRecords } = request;
    const partitions = [...PartitionSet.fromBytes(request.partitions, store.partitions)];
    const serves = (): boolean => partitions.every((partition) => topology.serves(partition));
    const [from, before, after] = [request.from, request.before, request.startAfter].map(unlessEmpty);
    const bounds = {
      prefix,
      from,
      before,
      after,
      limit: Math.max(1, limit),
      maxBytes,
      partitions,
      withRecords,
    };
    const page = serves() ? await this.page(bounds) : undefined;
    // Asked again: the node may have lost its standing while it scanned.
    if (page === undefined || !serves()) return { id, wrongReplica: true, keys: [], more: false };
    const keys = page.keys.map(({ key, version, tombstone, expiresAtMs, record }) => ({
      key,
      version,
      tombstone,
      expiresAtMs,
      record: record?.bytes ?? NOTHING,
    }));
    return { id, wrongReplica: false, keys, more: page.more };
  }

  /** Undefined when a record in it is damaged: others have it, and neither leaving it out nor ending the stream is right. */
  private async page(bounds: ListBounds): Promise<ListedPage | undefined> {
    try {
      return await listLocal(this.options.store, bounds);
    } catch (error) {
      if (isDataLoss(error)) return undefined;
      throw error;
    }
  }
}

function withoutRecord(outcome: ReadResult_Outcome, horizonMs: number): ReadResult {
  return { outcome, record: NOTHING, horizonMs, requestId: undefined };
}

/** Checked where the frame came in. */
function finishedWrite(finished: RepairRequest['finished']): NamedWrite | undefined {
  if (finished?.requestId === undefined || finished.version === undefined) return undefined;
  const { requestId, key, version } = finished;
  return { requestId, key, version };
}

function unlessEmpty(bytes: Buffer): Buffer | undefined {
  return bytes.length === 0 ? undefined : bytes;
}

/** Whether a store's error is about one damaged record, not about the store. */
export function isDataLoss(error: unknown): boolean {
  return error instanceof KvError && error.code === 'DATA_LOSS';
}
