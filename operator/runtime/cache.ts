import { type Clock, type Scheduler, sleep } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import type { Random } from '../../common/random.ts';
import type { KubernetesApi, KubernetesObject } from './api.ts';
import { Informer } from './informer.ts';
import type { WatchedKind, WatchedObjects } from './objects.ts';
import { type Resource, resources } from './resource.ts';

const watchedKinds: readonly WatchedKind[] = [
  'kvClusters',
  'statefulSets',
  'services',
  'configMaps',
  'podDisruptionBudgets',
  'cronJobs',
  'jobs',
  'pods',
  'volumeClaims',
];

export interface CacheOptions {
  readonly api: KubernetesApi;
  /** Empty: all namespaces. */
  readonly namespaces: readonly string[];
  /** For every kind but KVClusters. */
  readonly labelSelector: string;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly log: Logger;
  /** An object may have changed. */
  readonly onChange: (kind: WatchedKind, object: KubernetesObject) => void;
}

/** Copies of everything that the operator owns or looks at, one informer for each kind and namespace. */
export class Cache {
  private readonly informers: ReadonlyMap<WatchedKind, ReadonlyMap<string, Informer>>;
  private readonly clusterWide: boolean;
  private readonly scheduler: Scheduler;

  constructor(options: CacheOptions) {
    this.scheduler = options.scheduler;
    this.clusterWide = options.namespaces.length === 0;
    const scopes = this.clusterWide ? [undefined] : options.namespaces;
    this.informers = new Map(
      watchedKinds.map((kind) => [
        kind,
        new Map(scopes.map((namespace) => [namespace ?? '', informerOf(kind, namespace, options)])),
      ]),
    );
  }

  /** Whether every kind has been read once. */
  get hasSynced(): boolean {
    return this.everyInformer().every((informer) => informer.hasSynced);
  }

  /** Resolves when every kind has been read once. Rejects when the signal aborts. */
  async untilSynced(signal: AbortSignal): Promise<void> {
    while (!this.hasSynced) await sleep(this.scheduler, 50, signal);
  }

  /** Every object of a kind. */
  all<Kind extends WatchedKind>(kind: Kind): readonly WatchedObjects[Kind][] {
    const scopes = [...(this.informers.get(kind)?.values() ?? [])];
    return scopes.flatMap((informer) => informer.list() as WatchedObjects[Kind][]);
  }

  /** Keeps the copies current until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.everyInformer().map((informer) => informer.run(signal)));
  }

  get<Kind extends WatchedKind>(
    kind: Kind,
    namespace: string,
    name: string,
  ): WatchedObjects[Kind] | undefined {
    return this.scope(kind, namespace)?.get(namespace, name) as WatchedObjects[Kind] | undefined;
  }

  /** Objects of a namespace that carry all these labels. */
  list<Kind extends WatchedKind>(
    kind: Kind,
    namespace: string,
    labels: Readonly<Record<string, string>>,
  ): readonly WatchedObjects[Kind][] {
    const wanted = Object.entries(labels);
    const objects = this.scope(kind, namespace)?.list() ?? [];
    return objects.filter(
      ({ metadata }) =>
        metadata.namespace === namespace &&
        wanted.every(([label, value]) => metadata.labels?.[label] === value),
    ) as WatchedObjects[Kind][];
  }

  /** Resolves when the copy of an object satisfies `seen`, or after a while with a warning. */
  async waitUntil(
    kind: WatchedKind,
    namespace: string,
    name: string,
    seen: (object: KubernetesObject | undefined) => boolean,
  ): Promise<void> {
    await this.scope(kind, namespace)?.waitUntil(namespace, name, seen);
  }

  private scope(kind: WatchedKind, namespace: string): Informer | undefined {
    return this.informers.get(kind)?.get(this.clusterWide ? '' : namespace);
  }

  private everyInformer(): readonly Informer[] {
    return [...this.informers.values()].flatMap((scopes) => [...scopes.values()]);
  }
}

function informerOf(kind: WatchedKind, namespace: string | undefined, options: CacheOptions): Informer {
  const resource: Resource = resources[kind];
  return new Informer({
    api: options.api,
    resource,
    namespace,
    labelSelector: kind === 'kvClusters' ? undefined : options.labelSelector,
    clock: options.clock,
    scheduler: options.scheduler,
    random: options.random,
    log: options.log,
    onChange: (object) => options.onChange(kind, object),
  });
}
