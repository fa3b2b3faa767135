import { messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { type ClusterMap, compareMaps, hashMatches, memberOf } from '../../model/cluster-map.ts';
import { problemWithMap } from '../../model/map-check.ts';
import type { Store } from '../storage/store.ts';
import type { VolumeIdentity } from './identity.ts';
import { readJsonMeta, writeJsonMeta } from './json-meta.ts';

const META = 'map';
const FORMAT = 1;

interface StoredMap {
  readonly map: ClusterMap;
}

/** What became of a map that was offered. */
export type Adoption =
  | { readonly kind: 'adopted' }
  | { readonly kind: 'same' }
  /** `conflict` must be alarmed: two writers made a map of one epoch. */
  | { readonly kind: 'older' | 'conflict' | 'foreign' | 'refused'; readonly message: string };

export interface MapHolderOptions {
  readonly store: Store;
  readonly identity: VolumeIdentity;
  readonly namespace: string;
  readonly name: string;
  readonly logger: Logger;
  readonly onConflict: () => void;
  /** What must be done before this node may live by a newer map; the map is not taken over when it rejects. */
  readonly prepare: (map: ClusterMap) => Promise<void>;
}

/** The cluster map of this node: persisted, replaced only by a newer one of the same cluster, whoever brings it. */
export class MapHolder {
  private readonly options: MapHolderOptions;
  private readonly listeners = new Set<(map: ClusterMap) => void>();
  private held: ClusterMap | undefined;
  private adopting: Promise<unknown> = Promise.resolve();

  constructor(options: MapHolderOptions) {
    this.options = options;
    this.held = this.load();
  }

  get current(): ClusterMap | undefined {
    return this.held;
  }

  /** Calls back with every map taken over from now on, after it is durable. */
  onAdopted(listener: (map: ClusterMap) => void): void {
    this.listeners.add(listener);
  }

  /** Takes a map over when it is newer; durable when it resolves. Offers are handled one after the other. */
  adopt(map: ClusterMap): Promise<Adoption> {
    const result = this.adopting.then(() => this.decide(map));
    this.adopting = result.catch(() => undefined);
    return result;
  }

  private async decide(map: ClusterMap): Promise<Adoption> {
    const problem = this.problemWith(map);
    if (problem !== undefined) return { kind: 'refused', message: problem };
    const order = compareMaps(map, this.held);
    switch (order) {
      case 'newer':
        await this.take(map);
        return { kind: 'adopted' };
      case 'same':
        return { kind: 'same' };
      case 'older':
        return { kind: 'older', message: `epoch ${map.epoch} is older than ${this.held?.epoch ?? 0}` };
      case 'foreign':
        return { kind: 'foreign', message: `the map is of cluster ${map.clusterId}` };
      case 'conflict':
        this.options.onConflict();
        this.options.logger.error(
          { epoch: map.epoch, offered: map.hash, held: this.held?.hash },
          'a different cluster map of the same epoch was offered and refused: there are two writers of the map',
        );
        return { kind: 'conflict', message: `epoch ${map.epoch} is held with another hash` };
    }
  }

  private problemWith(map: ClusterMap): string | undefined {
    const { store, identity, namespace, name } = this.options;
    if (!hashMatches(map)) return 'the hash of the map does not fit its content';
    if (map.namespace !== namespace || map.name !== name) {
      return `the map is of ${map.namespace}/${map.name}, and this node belongs to ${namespace}/${name}`;
    }
    if (map.partitions !== store.partitions) {
      return `the map has ${map.partitions} partitions, and this volume ${store.partitions}`;
    }
    if (identity.clusterId !== '' && identity.clusterId !== map.clusterId) {
      return `the map is of cluster ${map.clusterId}, and this volume of ${identity.clusterId}`;
    }
    const contradiction = problemWithMap(map);
    if (contradiction !== undefined) return `the map contradicts itself: ${contradiction}`;
    if (this.held === undefined && memberOf(map, identity.nodeId) === undefined) {
      return `the map does not list ${identity.nodeId}`;
    }
    return undefined;
  }

  private async take(map: ClusterMap): Promise<void> {
    const { store, identity, logger, prepare } = this.options;
    await prepare(map);
    // The cluster first: a volume that remembers a map also remembers whose it is.
    if (identity.clusterId === '') await identity.joinCluster(map.clusterId);
    await writeJsonMeta(store, META, FORMAT, { map } satisfies StoredMap);
    this.held = map;
    logger.info({ epoch: map.epoch, hash: map.hash, members: map.members.length }, 'cluster map adopted');
    for (const listener of this.listeners) listener(map);
  }

  /** A stored map that cannot be trusted is as good as none: peers have it. */
  private load(): ClusterMap | undefined {
    const { store, logger } = this.options;
    try {
      const map = (readJsonMeta(store, META, FORMAT) as StoredMap | undefined)?.map;
      if (map === undefined) return undefined;
      if (hashMatches(map)) return map;
      logger.error({ epoch: map.epoch }, 'the stored cluster map does not fit its hash and is ignored');
    } catch (error) {
      logger.error({ error: messageOf(error) }, 'the stored cluster map is not readable and is ignored');
    }
    return undefined;
  }
}
