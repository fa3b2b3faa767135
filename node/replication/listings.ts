import type { Clock, Scheduler } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { PartitionSet } from '../cluster/partition-set.ts';
import type { Store } from '../storage/store.ts';
import type { Consistency, KeyPage, ListKeysOperation } from './engine.ts';
import { settleBy } from './deadline.ts';
import { isLive } from './live-value.ts';
import { type ListedPage, listLocal } from './local-listing.ts';
import type { ReplicationMetrics } from './metrics.ts';
import { requiredReplicas } from './quorum.ts';
import { mergePages } from './quorum-listing.ts';
import type { RemoteRequests } from './remote-requests.ts';
import { standingOutside, type Topology } from './topology.ts';

export interface ListingsOptions {
  readonly store: Store;
  readonly topology: Topology;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly metrics: ReplicationMetrics;
  /** Questions to a connected replica. */
  readonly remote: (nodeId: string) => RemoteRequests | undefined;
}

/** Which member is asked for a page of which partitions. */
type Cover = ReadonlyMap<string, readonly number[]>;

/**
 * Listings of clients over all partitions, whoever holds them: of each partition one readable replica is asked at ONE,
 * R of them otherwise (PROTOCOL 21).
 */
export class Listings {
  private readonly options: ListingsOptions;

  constructor(options: ListingsOptions) {
    this.options = options;
  }

  /** A page of live keys in byte order. */
  async listKeys(operation: ListKeysOperation): Promise<KeyPage> {
    const { topology, clock } = this.options;
    const outside = standingOutside(topology.map, topology.nodeId);
    if (outside !== undefined) throw this.unavailable(`${outside}; ask another node`);
    const keys: Buffer[] = [];
    let bytes = 0;
    let after = operation.startAfter;
    for (;;) {
      if (clock.monotonicMs() >= operation.deadlineMs) {
        throw timeUp();
      }
      const limit = operation.limit - keys.length;
      const merged = mergePages(await this.pages(operation, after, limit));
      const nowMs = clock.wallMs();
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

  /** Pages that together speak for every partition as often as the consistency asks, all beginning at the same place. */
  private async pages(
    operation: ListKeysOperation,
    after: Buffer | undefined,
    limit: number,
  ): Promise<readonly ListedPage[]> {
    const failed = new Set<string>();
    for (;;) {
      const cover = this.cover(operation.consistency, failed);
      const epoch = this.options.topology.epoch;
      const answers = await this.inTime(
        operation,
        Promise.all(
          [...cover].map(async ([nodeId, partitions]) => {
            try {
              return await this.page(nodeId, partitions, operation, after, limit);
            } catch (error) {
              // Of the others the page is asked again, of whoever is left.
              if (nodeId === this.options.topology.nodeId) throw error;
              failed.add(nodeId);
              return undefined;
            }
          }),
        ),
      );
      const pages = answers.flatMap((page) => page ?? []);
      if (pages.length === answers.length && this.options.topology.epoch === epoch) return pages;
    }
  }

  /** What peers that never answer hold is let go at the deadline, or when nobody waits any more. */
  private async inTime<T>({ deadlineMs, signal }: ListKeysOperation, work: Promise<T>): Promise<T> {
    const settled = settleBy<T>(this.options, deadlineMs, timeUp, signal);
    work.then(settled.resolve, (error: unknown) => settled.reject(error as Error));
    return settled.promise;
  }

  private page(
    nodeId: string,
    partitions: readonly number[],
    { prefix, maxBytes }: ListKeysOperation,
    after: Buffer | undefined,
    limit: number,
  ): Promise<ListedPage> {
    const { store, topology, remote } = this.options;
    if (nodeId === topology.nodeId) {
      return listLocal(store, { prefix, after, limit, maxBytes, partitions, withRecords: false });
    }
    const requests = remote(nodeId);
    if (requests === undefined)
      return Promise.reject(new KvError('UNAVAILABLE', `${nodeId} is not connected`));
    return requests.list({
      prefix,
      startAfter: after ?? Buffer.alloc(0),
      limit,
      maxBytes,
      partitions: PartitionSet.of(partitions, store.partitions).toBytes(),
      withRecords: false,
    });
  }

  /**
   * Chooses whom to ask: this node for what it serves, then members that are asked anyway, so that few are.
   *
   * @throws KvError UNAVAILABLE when a partition has too few readable replicas in reach: a listing has no gaps.
   */
  private cover(consistency: Consistency, failed: ReadonlySet<string>): Cover {
    const { topology, store } = this.options;
    const cover = new Map<string, number[]>();
    for (let partition = 0; partition < store.partitions; partition += 1) {
      const { read } = topology.setsOf(partition);
      const required = requiredReplicas(consistency, read.length);
      const serving = read.filter((nodeId) =>
        nodeId === topology.nodeId
          ? topology.serves(partition)
          : !failed.has(nodeId) && topology.isServing(nodeId, partition),
      );
      if (serving.length < required) {
        throw this.unavailable(
          `the listing needs ${required} of ${read.length} replicas of each partition, and partition ${partition} has ${serving.length} in reach`,
        );
      }
      const rank = (nodeId: string): number => (nodeId === topology.nodeId ? 0 : cover.has(nodeId) ? 1 : 2);
      for (const nodeId of serving.toSorted((a, b) => rank(a) - rank(b)).slice(0, required)) {
        const partitions = cover.get(nodeId);
        if (partitions === undefined) cover.set(nodeId, [partition]);
        else partitions.push(partition);
      }
    }
    return cover;
  }

  private unavailable(message: string): KvError {
    this.options.metrics.count('unavailable');
    return new KvError('UNAVAILABLE', message);
  }
}

function timeUp(): KvError {
  return new KvError('DEADLINE_EXCEEDED', 'the deadline passed during the listing: ask for smaller pages', {
    retryable: true,
  });
}
