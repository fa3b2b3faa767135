import type { Random } from '../common/random.ts';
import { type ClusterMap, type MapContent, type Member, sealMap } from './cluster-map.ts';
import { compareNatural } from './natural-order.ts';
import { place } from './placement.ts';

/** What a first map is made of. */
export interface FirstMapOptions {
  /** 32 hex digits, from `mintClusterId` or an interrupted start. */
  readonly clusterId: string;
  readonly namespace: string;
  readonly name: string;
  readonly partitions: number;
  readonly replicationFactor: number;
  readonly members: readonly Member[];
}

/** A new cluster id: 32 hex digits. */
export function mintClusterId(random: Random): string {
  return random.bytes(16).toString('hex');
}

/** The map of epoch 1, not initialised: blank members of it become active at once. */
export function firstMap(options: FirstMapOptions): ClusterMap {
  const members = options.members.toSorted((a, b) => compareNatural(a.nodeId, b.nodeId));
  return sealMap({
    clusterId: options.clusterId,
    namespace: options.namespace,
    name: options.name,
    epoch: 1,
    partitions: options.partitions,
    replicationFactor: options.replicationFactor,
    initialised: false,
    members,
    retired: [],
    assignment: place({ ...options, members }),
  });
}

/** The map of the next epoch with these changes. */
export function nextMap(
  map: ClusterMap,
  changes: Partial<Omit<MapContent, 'epoch' | 'clusterId'>>,
): ClusterMap {
  return sealMap({ ...map, ...changes, epoch: map.epoch + 1 });
}

/** The next map once every member has acknowledged the first one; the same map when it says so already. */
export function withInitialised(map: ClusterMap): ClusterMap {
  return map.initialised ? map : nextMap(map, { initialised: true });
}
