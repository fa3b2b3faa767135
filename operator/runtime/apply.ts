import { createHash } from 'node:crypto';
import type { Logger } from '../../common/log.ts';
import { canonicalJson } from '../../model/cluster-map.ts';
import { annotations, FIELD_MANAGER } from '../resources/names.ts';
import { isNotFound, type KubernetesApi, type KubernetesObject } from './api.ts';
import type { Cache } from './cache.ts';
import { isAtLeast } from './informer.ts';
import { firstDifference } from './live-compare.ts';
import type { WatchedKind, WatchedObjects } from './objects.ts';
import { pathOf, resources } from './resource.ts';

export interface WriterOptions {
  readonly api: KubernetesApi;
  readonly cache: Cache;
  readonly log: Logger;
}

/** An object as rendered; namespaced. */
export type RenderedObject = KubernetesObject & { readonly metadata: { readonly namespace?: string } };

/**
 * Writes owned objects by server-side apply, as one field manager, forced, and only when something is to be changed.
 * Whether an object may be written at all has been decided before (ownership.ts).
 */
export class Writer {
  private readonly options: WriterOptions;

  constructor(options: WriterOptions) {
    this.options = options;
  }

  /**
   * Makes the object be as rendered. Resolves when the cache shows it, with whether anything was written.
   *
   * @throws ApiError: 409 when the object is not the cached one any more, 422 when it was refused.
   */
  async apply(kind: WatchedKind, rendered: RenderedObject, signal: AbortSignal): Promise<boolean> {
    const { name, namespace = '' } = rendered.metadata;
    const live = this.options.cache.get(kind, namespace, name);
    const hash = hashOf(rendered);
    const why = reasonToWrite(rendered, hash, live);
    if (why === undefined) return false;
    this.options.log.info({ kind: resources[kind].kind, namespace, name, why }, 'applying');
    const { uid } = live?.metadata ?? {};
    const written = await this.options.api.request<KubernetesObject>({
      method: 'PATCH',
      path: pathOf(resources[kind], { namespace, name }),
      query: { fieldManager: FIELD_MANAGER, force: 'true' },
      contentType: 'application/apply-patch+yaml',
      body: {
        ...rendered,
        metadata: {
          ...rendered.metadata,
          // Another object of the same name is not ours to overwrite.
          ...(uid === undefined ? {} : { uid }),
          annotations: { ...rendered.metadata.annotations, [annotations.appliedHash]: hash },
        },
      },
      signal,
    });
    await this.untilSeen(kind, written);
    return true;
  }

  /** The object as the API server has it, past the cache; undefined when there is none. */
  async getLive<Kind extends WatchedKind>(
    kind: Kind,
    namespace: string,
    name: string,
    signal: AbortSignal,
  ): Promise<WatchedObjects[Kind] | undefined> {
    try {
      return await this.options.api.request<WatchedObjects[Kind]>({
        method: 'GET',
        path: pathOf(resources[kind], { namespace, name }),
        signal,
      });
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** Resolves when the cache is as new as an object that was written. */
  async untilSeen(kind: WatchedKind, written: KubernetesObject): Promise<void> {
    const { name, namespace = '', resourceVersion = '0' } = written.metadata;
    await this.options.cache.waitUntil(kind, namespace, name, (cached) => isAtLeast(cached, resourceVersion));
  }
}

/** Why an object must be written; undefined when it is as rendered. */
export function reasonToWrite(
  rendered: RenderedObject,
  hash: string,
  live: KubernetesObject | undefined,
): string | undefined {
  if (live === undefined) return 'it does not exist';
  if (live.metadata.annotations?.[annotations.appliedHash] !== hash) return 'what it should be has changed';
  // Objects that were listed do not repeat their kind.
  const difference = firstDifference({ ...rendered, apiVersion: undefined, kind: undefined }, live);
  return difference === undefined ? undefined : `${difference} was changed by somebody else`;
}

/** Of the whole object as rendered. */
export function hashOf(rendered: RenderedObject): string {
  return createHash('sha256').update(canonicalJson(rendered)).digest('hex').slice(0, 16);
}
