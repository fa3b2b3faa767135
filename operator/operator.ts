import type { AdminClient } from '../client/admin-client.ts';
import type { Clock, Scheduler } from '../common/clock.ts';
import type { Logger } from '../common/log.ts';
import type { Random } from '../common/random.ts';
import { ClusterMemories } from './cluster-memory.ts';
import type { OperatorMetrics } from './metrics.ts';
import { reconcile } from './reconcile.ts';
import { CACHE_SELECTOR } from './resources/names.ts';
import type { KubernetesApi, KubernetesObject } from './runtime/api.ts';
import { Writer } from './runtime/apply.ts';
import { Cache } from './runtime/cache.ts';
import { EventRecorder } from './runtime/events.ts';
import type { WatchedKind } from './runtime/objects.ts';
import { WorkQueue } from './runtime/queue.ts';
import { keyOf } from './runtime/resource.ts';

export interface OperatorOptions {
  readonly api: KubernetesApi;
  readonly namespaces: readonly string[];
  readonly defaultImage: string;
  readonly clusterDomain: string;
  readonly concurrency: number;
  /** Name of this process, for Events. */
  readonly instance: string;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: OperatorMetrics;
  /** Whether the Lease is held, by the local clock. */
  readonly isLeader: () => boolean;
  readonly connectAdmin: (secret: Buffer) => AdminClient;
}

const RETRY = { initialMs: 200, maxMs: 30_000 };
const CLUSTER_LABEL = 'app.kubernetes.io/instance';

/** Watches from its start; reconciles while it leads. */
export class Operator {
  private readonly options: OperatorOptions;
  private readonly cache: Cache;
  private queue: WorkQueue | undefined;

  constructor(options: OperatorOptions) {
    this.options = options;
    const { api, namespaces, clock, scheduler, random, log } = options;
    this.cache = new Cache({
      api,
      namespaces,
      labelSelector: CACHE_SELECTOR,
      clock,
      scheduler,
      random,
      log,
      onChange: (kind, object) => this.queue?.add(clusterKeyOf(kind, object)),
    });
  }

  /** Whether everything has been read once. */
  get hasSynced(): boolean {
    return this.cache.hasSynced;
  }

  get queueDepth(): number {
    return this.queue?.depth ?? 0;
  }

  /** Keeps the cache current until the signal aborts. */
  async watch(signal: AbortSignal): Promise<void> {
    await this.cache.run(signal);
  }

  /** Reconciles every cluster, again and again, until the signal aborts; then waits for what is under way. */
  async lead(signal: AbortSignal): Promise<void> {
    const memories = new ClusterMemories();
    const queue = this.createQueue(memories);
    this.queue = queue;
    try {
      await this.cache.untilSynced(signal);
      for (const cluster of this.cache.all('kvClusters')) queue.add(clusterKeyOf('kvClusters', cluster));
      await new Promise<void>((resolve) => {
        if (signal.aborted) resolve();
        else signal.addEventListener('abort', () => resolve(), { once: true });
      });
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      await queue.stop(new Error('the operator is stopping'));
      this.queue = undefined;
      memories.close();
    }
  }

  private createQueue(memories: ClusterMemories): WorkQueue {
    const { scheduler, random, concurrency, metrics, log, clock } = this.options;
    const { api, instance } = this.options;
    const runtime = {
      ...this.options,
      cache: this.cache,
      writer: new Writer({ api, cache: this.cache, log }),
      events: new EventRecorder({ api, clock, log, instance }),
      memories,
    };
    return new WorkQueue({
      concurrency,
      backoff: RETRY,
      scheduler,
      random,
      handle: async (key, signal) => {
        // Before the cache is complete, an absent object means nothing.
        if (!this.cache.hasSynced) return { requeueAfterMs: RETRY.initialMs };
        const end = metrics.reconcileSeconds.startTimer();
        try {
          const result = await reconcile(key, { ...runtime, log: log.child({ cluster: key }) }, signal);
          metrics.reconciliations.inc({ outcome: 'done' });
          return result;
        } finally {
          end();
        }
      },
      onError: (key, error) => {
        metrics.reconciliations.inc({ outcome: 'failed' });
        log.warn({ cluster: key, error }, 'reconciliation failed, it will be tried again');
      },
    });
  }
}

/** The cluster that an object belongs to, by its label. */
function clusterKeyOf(kind: WatchedKind, { metadata }: KubernetesObject): string {
  const name = kind === 'kvClusters' ? metadata.name : (metadata.labels?.[CLUSTER_LABEL] ?? '');
  return keyOf(metadata.namespace ?? '', name);
}
