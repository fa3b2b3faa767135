import { KvError } from '../../common/errors.ts';
import {
  type ReadRequest,
  ReadResult_Outcome,
  type ReadResult,
  type RepairRequest,
} from '../../proto/gen/peer.ts';
import { decodeRecord } from '../storage/record.ts';
import type { Mutation, Store } from '../storage/store.ts';
import type { HybridClock } from './hybrid-clock.ts';
import { listLocal } from './local-listing.ts';
import type { OwnLog } from './own-log.ts';
import type { FrameBody } from './peer-link.ts';

export interface RequestHandlerOptions {
  readonly store: Store;
  readonly ownLog: OwnLog;
  readonly clock: HybridClock;
  /** Whether this node serves reads. */
  readonly readable: () => boolean;
}

type Request = Extract<FrameBody, { $case: 'read' | 'repair' | 'list' }>;

const NOTHING = Buffer.alloc(0);

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
  async answer(request: Request): Promise<FrameBody> {
    switch (request.$case) {
      case 'read':
        return { $case: 'readReply', value: { id: request.value.id, results: this.read(request.value) } };
      case 'repair':
        await this.repair(request.value);
        return { $case: 'repairReply', value: { id: request.value.id } };
      case 'list':
        return this.list(request.value);
    }
  }

  private read({ keys }: ReadRequest): ReadResult[] {
    const { store, readable } = this.options;
    // Never "absent" from a replica that may have lost the key (PROTOCOL 20).
    if (!readable())
      return keys.map(() => ({ outcome: ReadResult_Outcome.WRONG_REPLICA, record: NOTHING, horizonMs: 0 }));
    return keys.map((key) => {
      try {
        const record = store.get(key);
        return record === undefined
          ? { outcome: ReadResult_Outcome.ABSENT, record: NOTHING, horizonMs: 0 }
          : { outcome: ReadResult_Outcome.RECORD, record: record.bytes, horizonMs: 0 };
      } catch (error) {
        if (!isDataLoss(error)) throw error;
        return { outcome: ReadResult_Outcome.DATA_LOSS, record: NOTHING, horizonMs: 0 };
      }
    });
  }

  private async repair({ records, returned }: RepairRequest): Promise<void> {
    const { store, ownLog, clock } = this.options;
    const mutations = records.map(({ key, record }): Mutation => {
      const decoded = decodeRecord(key, record);
      clock.observe(decoded.version);
      return { key, record: decoded, own: returned };
    });
    await (returned ? ownLog.append(mutations) : store.apply(mutations)).durable;
  }

  private async list(request: Extract<Request, { $case: 'list' }>['value']): Promise<FrameBody> {
    const { store, readable } = this.options;
    const { id, prefix, startAfter, limit, maxBytes } = request;
    const after = startAfter.length === 0 ? undefined : startAfter;
    const page = readable()
      ? await listLocal(store, { prefix, after, limit: Math.max(1, limit), maxBytes })
      : undefined;
    // Asked again: the node may have lost its standing while it scanned.
    if (page === undefined || !readable()) {
      return { $case: 'listReply', value: { id, wrongReplica: true, keys: [], more: false } };
    }
    const keys = page.keys.map(({ key, version, tombstone, expiresAtMs }) => ({
      key,
      version,
      tombstone,
      expiresAtMs,
      record: NOTHING,
    }));
    return { $case: 'listReply', value: { id, wrongReplica: false, keys, more: page.more } };
  }
}

/** Whether a store's error is about one damaged record, not about the store. */
export function isDataLoss(error: unknown): boolean {
  return error instanceof KvError && error.code === 'DATA_LOSS';
}
