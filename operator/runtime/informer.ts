import { Backoff } from '../../common/backoff.ts';
import { type Clock, type Scheduler, sleep } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import type { Random } from '../../common/random.ts';
import { ApiError, isGone, type KubernetesApi, type KubernetesObject, type ObjectMeta } from './api.ts';
import { keyOf, pathOf, type Resource } from './resource.ts';

export interface InformerOptions {
  readonly api: KubernetesApi;
  readonly resource: Resource;
  /** Absent: all namespaces. */
  readonly namespace?: string | undefined;
  readonly labelSelector?: string | undefined;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly log: Logger;
  /** Something happened to this object, or may have (after a relist, and every `resyncMs`). Must not throw. */
  readonly onChange: (object: KubernetesObject) => void;
  /** How often every known object is reported again, milliseconds. @default 600000 */
  readonly resyncMs?: number;
}

const PAGE_SIZE = 500;
const RESYNC_MS = 10 * 60_000;
/** How long the server keeps a watch open, seconds; each informer adds up to as much again so that they spread out. */
const WATCH_SECONDS = 240;
const RESTART = { initialMs: 250, maxMs: 30_000 };

/** A wait for the cache to have seen a write. */
interface Waiter {
  readonly seen: (object: KubernetesObject | undefined) => boolean;
  readonly resolve: () => void;
}

/**
 * A copy of all objects of one kind, kept current by list and watch. Every failure leads to another attempt after a
 * jittered wait; a new list finds what was missed, also deletions. It ends only with its signal.
 */
export class Informer<T extends KubernetesObject = KubernetesObject> {
  private readonly options: InformerOptions;
  private objects = new Map<string, T>();
  private readonly waiters = new Map<string, Set<Waiter>>();
  private readonly backoff: Backoff;
  private synced = false;
  private nextResyncMs: number;

  constructor(options: InformerOptions) {
    this.options = options;
    this.backoff = new Backoff(RESTART, options.random);
    this.nextResyncMs = options.clock.monotonicMs() + this.resyncMs;
  }

  /** Whether a complete list has been read since the start. */
  get hasSynced(): boolean {
    return this.synced;
  }

  get(namespace: string, name: string): T | undefined {
    return this.objects.get(keyOf(namespace, name));
  }

  list(): readonly T[] {
    return [...this.objects.values()];
  }

  /** Keeps the copy current until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const resync = this.resyncLoop(signal);
    while (!signal.aborted) {
      try {
        const version = await this.relist(signal);
        this.backoff.reset();
        await this.followFrom(version, signal);
      } catch (error) {
        if (isAborted(signal)) break;
        await this.recover(error, signal);
      }
    }
    await resync;
  }

  /**
   * Resolves once the copy satisfies `seen` for an object: after a write, before anything is decided on the copy again.
   * Resolves as well, with a warning, after `timeoutMs`: the next decision is then made on what is known.
   */
  async waitUntil(
    namespace: string,
    name: string,
    seen: (object: T | undefined) => boolean,
    timeoutMs = 5000,
  ): Promise<void> {
    const key = keyOf(namespace, name);
    if (seen(this.objects.get(key))) return;
    await new Promise<void>((resolve) => {
      const timer = this.options.scheduler.after(timeoutMs, () => {
        this.options.log.warn(
          { kind: this.options.resource.kind, key, timeoutMs },
          'cache lags behind a write',
        );
        this.removeWaiter(key, waiter);
        resolve();
      });
      const waiter: Waiter = {
        seen: seen as Waiter['seen'],
        resolve: () => {
          timer.cancel();
          resolve();
        },
      };
      this.waiters.set(key, (this.waiters.get(key) ?? new Set()).add(waiter));
    });
  }

  private get resyncMs(): number {
    return this.options.resyncMs ?? RESYNC_MS;
  }

  private get path(): string {
    return pathOf(this.options.resource, { namespace: this.options.namespace });
  }

  private get selection(): Record<string, string> {
    const { labelSelector } = this.options;
    return labelSelector === undefined ? {} : { labelSelector };
  }

  /** Reads everything, reports every object known before or now, and gives the version to watch from. */
  private async relist(signal: AbortSignal): Promise<string> {
    const listed = new Map<string, T>();
    let next: string | undefined;
    let version: string;
    do {
      const page: ListPage<T> = await this.options.api.request<ListPage<T>>({
        method: 'GET',
        path: this.path,
        query: {
          ...this.selection,
          limit: String(PAGE_SIZE),
          ...(next === undefined ? {} : { continue: next }),
        },
        signal,
        timeoutMs: 60_000,
      });
      for (const item of page.items)
        listed.set(keyOf(item.metadata.namespace ?? '', item.metadata.name), trim(item));
      next = page.metadata.continue === '' ? undefined : page.metadata.continue;
      version = page.metadata.resourceVersion;
    } while (next !== undefined);
    const before = this.objects;
    this.objects = listed;
    this.synced = true;
    for (const key of this.waiters.keys()) this.wake(key);
    for (const [key, object] of before) if (!listed.has(key)) this.options.onChange(object);
    for (const object of listed.values()) this.options.onChange(object);
    return version;
  }

  /** Watch after watch, until one fails or the signal aborts. */
  private async followFrom(listedVersion: string, signal: AbortSignal): Promise<void> {
    let version = listedVersion;
    while (!signal.aborted) version = await this.follow(version, signal);
  }

  /** One watch, until the server ends it; gives the version to go on from. */
  private async follow(fromVersion: string, signal: AbortSignal): Promise<string> {
    const seconds = WATCH_SECONDS + Math.floor(this.options.random.fraction() * WATCH_SECONDS);
    const silence = new AbortController();
    // A connection that died without a sign would otherwise be watched for ever.
    const timer = this.options.scheduler.after((seconds + 30) * 1000, () => {
      silence.abort(new Error('the watch did not end in time'));
    });
    const position = { version: fromVersion };
    try {
      const query = {
        ...this.selection,
        resourceVersion: fromVersion,
        allowWatchBookmarks: 'true',
        timeoutSeconds: String(seconds),
      };
      for await (const event of this.options.api.watch(
        this.path,
        query,
        AbortSignal.any([signal, silence.signal]),
      )) {
        if (event.type === 'ERROR') {
          throw new ApiError(event.object.code ?? 500, 'Watch', event.object.message ?? 'the watch failed');
        }
        position.version = event.object.metadata.resourceVersion ?? position.version;
        if (event.type !== 'BOOKMARK') this.take(event.type, event.object as T);
      }
    } finally {
      timer.cancel();
    }
    return position.version;
  }

  private take(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: T): void {
    const key = keyOf(object.metadata.namespace ?? '', object.metadata.name);
    if (type === 'DELETED') this.objects.delete(key);
    else this.objects.set(key, trim(object));
    this.wake(key);
    this.options.onChange(object);
  }

  private wake(key: string): void {
    for (const waiter of this.waiters.get(key) ?? []) {
      if (!waiter.seen(this.objects.get(key))) continue;
      this.removeWaiter(key, waiter);
      waiter.resolve();
    }
  }

  private removeWaiter(key: string, waiter: Waiter): void {
    const waiters = this.waiters.get(key);
    waiters?.delete(waiter);
    if (waiters?.size === 0) this.waiters.delete(key);
  }

  private async recover(error: unknown, signal: AbortSignal): Promise<void> {
    const { log, resource, scheduler } = this.options;
    if (isGone(error)) {
      log.debug({ kind: resource.kind }, 'watch expired, listing again');
      return;
    }
    const waitMs = this.backoff.nextMs();
    log.warn({ kind: resource.kind, waitMs, error }, 'list or watch failed');
    await sleep(scheduler, waitMs, signal).catch(() => undefined);
  }

  private async resyncLoop(signal: AbortSignal): Promise<void> {
    const { clock, scheduler, onChange } = this.options;
    while (!signal.aborted) {
      await sleep(scheduler, Math.max(1, this.nextResyncMs - clock.monotonicMs()), signal).catch(
        () => undefined,
      );
      if (clock.monotonicMs() < this.nextResyncMs) continue;
      this.nextResyncMs = clock.monotonicMs() + this.resyncMs;
      for (const object of this.objects.values()) onChange(object);
    }
  }
}

interface ListPage<T> {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
  readonly items: readonly T[];
}

/** A signal's state changes while awaiting, which the compiler does not know. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

/** Without the record of who set which field: nobody reads it here and it is often half of the object. */
function trim<T extends KubernetesObject>(object: T): T {
  const metadata: ObjectMeta & { managedFields?: unknown } = { ...object.metadata };
  delete metadata.managedFields;
  return { ...object, metadata };
}

/** Whether a cached object is at least as new as a write: versions of one kind grow. */
export function isAtLeast(object: KubernetesObject | undefined, resourceVersion: string): boolean {
  const version = object?.metadata.resourceVersion;
  return version !== undefined && BigInt(version) >= BigInt(resourceVersion);
}
