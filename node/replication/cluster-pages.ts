import type { Clock, Scheduler } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { PartitionSet } from '../cluster/partition-set.ts';
import type { Store } from '../storage/store.ts';
import { type Cover, findCover } from './cover.ts';
import { settleBy } from './deadline.ts';
import type { OperationOptions } from './engine.ts';
import { type ListBounds, type ListedPage, listLocal } from './local-listing.ts';
import type { ReplicationMetrics } from './metrics.ts';
import { requiredReplicas } from './quorum.ts';
import { type MergedPage, mergePages } from './quorum-listing.ts';
import type { RemoteRequests } from './remote-requests.ts';
import { isDataLoss } from './request-handler.ts';
import { standingOutside, type Topology } from './topology.ts';

export interface ClusterPagesOptions {
  readonly store: Store;
  readonly topology: Topology;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly metrics: ReplicationMetrics;
  /** Questions to a connected replica. */
  readonly remote: (nodeId: string) => RemoteRequests | undefined;
}

/** A stretch of keys over all partitions. */
export type PageRequest = Omit<ListBounds, 'partitions'> & OperationOptions;

const NOTHING = Buffer.alloc(0);
/** Keys spread over partitions by chance: what a member has of a page is seldom much more than its part. */
const SHARE_MARGIN = 1.25;

/**
 * Pages over all partitions, whoever holds them: of each partition one readable replica is asked at ONE, R of them
 * otherwise, and their answers are merged (PROTOCOL 21).
 */
export class ClusterPages {
  private readonly options: ClusterPagesOptions;

  constructor(options: ClusterPagesOptions) {
    this.options = options;
  }

  /**
   * The newest records from one place on, tombstones and expired ones included.
   *
   * @throws KvError UNAVAILABLE when a partition has too few readable replicas in reach: a page has no gaps;
   * DEADLINE_EXCEEDED.
   */
  async page(request: PageRequest): Promise<MergedPage> {
    const { topology } = this.options;
    const outside = standingOutside(topology.map, topology.nodeId);
    if (outside !== undefined) throw this.unavailable(`${outside}; ask another node`);
    const failed = new Set<string>();
    for (;;) {
      if (this.options.clock.monotonicMs() >= request.deadlineMs) throw timeUp();
      const cover = this.cover(request, failed);
      const { epoch } = topology;
      const answers = await this.inTime(
        request,
        Promise.all(
          [...cover].map(async ([nodeId, partitions]) => {
            try {
              return await this.ask(nodeId, partitions, request);
            } catch (error) {
              // The page is asked again, of whoever is left: one damaged record here is no reason to fail.
              if (nodeId === topology.nodeId && !isDataLoss(error)) throw error;
              failed.add(nodeId);
              return undefined;
            }
          }),
        ),
      );
      const pages = answers.flatMap((page) => page ?? []);
      // Replicas that a newer map reads no more from say nothing about what the newer ones hold.
      if (pages.length === answers.length && topology.epoch === epoch) return mergePages(pages);
    }
  }

  private ask(nodeId: string, partitions: readonly number[], request: PageRequest): Promise<ListedPage> {
    const { store, topology, remote } = this.options;
    const maxBytes = this.shareOf(partitions, request);
    if (nodeId === topology.nodeId) return listLocal(store, { ...request, partitions, maxBytes });
    const requests = remote(nodeId);
    if (requests === undefined)
      return Promise.reject(new KvError('UNAVAILABLE', `${nodeId} is not connected`));
    const { prefix, from, before, after, limit, withRecords } = request;
    return requests.list({
      prefix,
      from: from ?? NOTHING,
      before: before ?? NOTHING,
      startAfter: after ?? NOTHING,
      limit,
      maxBytes,
      partitions: PartitionSet.of(partitions, store.partitions).toBytes(),
      withRecords,
    });
  }

  /** Of a page with records each member gives about its part, so that few of them are fetched to be dropped. */
  private shareOf(partitions: readonly number[], { maxBytes, withRecords }: PageRequest): number {
    const share = (partitions.length / this.options.store.partitions) * SHARE_MARGIN;
    return withRecords ? Math.ceil(maxBytes * Math.min(1, share)) : maxBytes;
  }

  private cover({ consistency }: PageRequest, failed: ReadonlySet<string>): Cover {
    const { topology, store } = this.options;
    const found = findCover({
      topology,
      partitions: Array(store.partitions).keys(),
      required: (replicas) => requiredReplicas(consistency, replicas),
      failed,
    });
    const [short] = found.short;
    if (short === undefined) return found.cover;
    const { partition, required, replicas, serving } = short;
    throw this.unavailable(
      `the listing needs ${required} of ${replicas} replicas of each partition, and partition ${partition} has ${serving} in reach`,
    );
  }

  /** What peers that never answer hold is let go at the deadline, or when nobody waits any more. */
  private async inTime<T>({ deadlineMs, signal }: PageRequest, work: Promise<T>): Promise<T> {
    const settled = settleBy<T>(this.options, deadlineMs, timeUp, signal);
    work.then(settled.resolve, (error: unknown) => settled.reject(error as Error));
    return settled.promise;
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
