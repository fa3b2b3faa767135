import type { Clock } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { compareVersions, formatVersion, NO_VERSION, type Version } from '../../model/version.ts';
import type { Store, StoredRecord } from '../storage/store.ts';
import type { ReplicaView } from './coordinator.ts';
import type { Consistency, GetOperation, KeyPage, ListKeysOperation, LiveValue } from './engine.ts';
import { isLive, liveValue } from './live-value.ts';
import { type ListedPage, listLocal } from './local-listing.ts';
import type { ReplicationMetrics } from './metrics.ts';
import { requiredReplicas } from './quorum.ts';
import { mergePages } from './quorum-listing.ts';
import type { QuorumReader, RemoteReplica } from './quorum-reader.ts';
import type { RemoteRequests } from './remote-requests.ts';
import { isDataLoss } from './request-handler.ts';

export interface ReadsOptions {
  readonly store: Store;
  readonly view: ReplicaView;
  readonly quorum: QuorumReader;
  readonly clock: Clock;
  readonly metrics: ReplicationMetrics;
  /** Questions to a connected replica. */
  readonly remote: (nodeId: string) => RemoteRequests | undefined;
}

/** Reads and listings of clients, at ONE from this replica, otherwise from R of them. */
export class Reads {
  private readonly options: ReadsOptions;

  constructor(options: ReadsOptions) {
    this.options = options;
  }

  async get(operation: GetOperation): Promise<LiveValue | undefined> {
    const record = await this.record(operation);
    return liveValue(record, this.options.clock.wallMs());
  }

  private async record(operation: GetOperation): Promise<StoredRecord | undefined> {
    const { key, consistency } = operation;
    this.admit();
    const floor = operation.minVersion ?? NO_VERSION;
    if (consistency === 'ONE') {
      const local = this.local(key);
      if (local.sound && reaches(local.record, floor)) return local.record;
    }
    const others = this.readableOthers(key);
    const replicas = this.replicas(key);
    const required = requiredReplicas(consistency === 'ONE' ? 'QUORUM' : consistency, replicas);
    const { deadlineMs } = operation;
    const found = await this.options.quorum.read({ key, required, deadlineMs, others });
    if (reaches(found, floor)) return found;
    // Written at ONE somewhere: whoever can be reached is asked before the read is refused.
    const everybody = await this.options.quorum.read({
      key,
      required: others.length + 1,
      deadlineMs,
      others,
    });
    if (reaches(everybody, floor)) return everybody;
    throw new KvError(
      'UNAVAILABLE',
      `no replica in reach holds version ${formatVersion(floor)} of the key or a newer one`,
    );
  }

  /** A page of live keys in byte order. */
  async listKeys(operation: ListKeysOperation): Promise<KeyPage> {
    this.admit();
    const keys: Buffer[] = [];
    let bytes = 0;
    let after = operation.startAfter;
    for (;;) {
      if (this.options.clock.monotonicMs() >= operation.deadlineMs) {
        throw new KvError(
          'DEADLINE_EXCEEDED',
          'the deadline passed during the listing: ask for smaller pages',
          {
            retryable: true,
          },
        );
      }
      const limit = operation.limit - keys.length;
      const pages = await this.pages(operation, after, limit);
      const merged = mergePages(pages);
      const nowMs = this.options.clock.wallMs();
      for (const record of merged.keys) {
        if (!isLive(record, nowMs)) continue;
        const full = keys.length >= operation.limit || bytes + record.key.length > operation.maxBytes;
        if (keys.length > 0 && full) return { keys, more: true };
        keys.push(record.key);
        bytes += record.key.length;
      }
      if (merged.through === undefined) return { keys, more: false };
      // Full exactly at the end of what the pages speak of: there may be more behind it.
      if (keys.length >= operation.limit) return { keys, more: true };
      after = merged.through;
    }
  }

  /** Pages from this replica and as many others as the consistency asks for, all beginning at the same place. */
  private async pages(
    operation: ListKeysOperation,
    after: Buffer | undefined,
    limit: number,
  ): Promise<readonly ListedPage[]> {
    const { store } = this.options;
    const { prefix, maxBytes, consistency } = operation;
    const local = listLocal(store, { prefix, after, limit, maxBytes });
    // A rejection while the others are asked must not count as unhandled.
    local.catch(() => undefined);
    const required = this.requiredEverywhere(consistency);
    const request = {
      prefix,
      startAfter: after ?? Buffer.alloc(0),
      limit,
      maxBytes,
      partitions: Buffer.alloc(0),
      withRecords: false,
    };
    const remote = await this.remotePages(required - 1, (requests) => requests.list(request));
    return [await local, ...remote];
  }

  private async remotePages(
    needed: number,
    ask: (remote: RemoteRequests) => Promise<ListedPage>,
  ): Promise<readonly ListedPage[]> {
    const candidates = [...this.readableMembers()];
    const failures: unknown[] = [];
    const askNext = async (): Promise<ListedPage> => {
      for (let next = candidates.shift(); next !== undefined; next = candidates.shift()) {
        try {
          return await ask(next);
        } catch (error) {
          failures.push(error);
        }
      }
      this.options.metrics.count('unavailable');
      throw new KvError('UNAVAILABLE', `the listing needs ${needed} more replicas than answered`, {
        cause: failures[0],
      });
    };
    return Promise.all(Array.from({ length: needed }, askNext));
  }

  private admit(): void {
    const { view, metrics } = this.options;
    if (view.refusal === undefined) return;
    metrics.count('unavailable');
    throw new KvError('UNAVAILABLE', `${view.refusal}; ask another node`);
  }

  private local(key: Buffer): { sound: boolean; record: StoredRecord | undefined } {
    try {
      return { sound: true, record: this.options.store.get(key) };
    } catch (error) {
      // One damaged record: the others have it (PROTOCOL 35).
      if (!isDataLoss(error)) throw error;
      return { sound: false, record: undefined };
    }
  }

  private othersOf(key: Buffer): readonly string[] {
    const { view, store } = this.options;
    return view.othersOf(partitionOf(key, store.partitions));
  }

  private replicas(key: Buffer): number {
    return this.othersOf(key).length + 1;
  }

  private readableOthers(key: Buffer): readonly RemoteReplica[] {
    const { view, remote } = this.options;
    return this.othersOf(key).flatMap((nodeId) => {
      const requests = view.isReadable(nodeId) ? remote(nodeId) : undefined;
      return requests === undefined ? [] : [{ nodeId, remote: requests }];
    });
  }

  /** Every member holds every partition: a page of one member speaks for all partitions. */
  private requiredEverywhere(consistency: Consistency): number {
    return requiredReplicas(consistency, this.options.view.othersOf(0).length + 1);
  }

  private readableMembers(): readonly RemoteRequests[] {
    const { view, remote } = this.options;
    return view.othersOf(0).flatMap((nodeId) => (view.isReadable(nodeId) ? (remote(nodeId) ?? []) : []));
  }
}

function reaches(record: StoredRecord | undefined, floor: Version): boolean {
  return compareVersions(record?.version ?? NO_VERSION, floor) >= 0;
}
