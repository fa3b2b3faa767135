import { canonicalJson, type ClusterMap, hashMatches } from '../../model/cluster-map.ts';
import type { KubernetesObject } from '../runtime/api.ts';
import { type ClusterIdentity, objectNames, ownedMetadata } from './names.ts';

export interface TopologyConfigMap extends KubernetesObject {
  readonly data?: Readonly<Record<string, string>>;
}

const MAP_KEY = 'map.json';

/** The published cluster map. */
export function buildTopology(cluster: ClusterIdentity, map: ClusterMap): TopologyConfigMap {
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: ownedMetadata(cluster, objectNames(cluster.name).topology, 'node'),
    data: { [MAP_KEY]: canonicalJson(map) },
  };
}

export type ReadTopology =
  | { readonly kind: 'none' }
  | { readonly kind: 'map'; readonly map: ClusterMap }
  /** Somebody edited it. */
  | { readonly kind: 'damaged'; readonly why: string };

/** The map that a ConfigMap holds. */
export function readTopology(configMap: TopologyConfigMap | undefined): ReadTopology {
  const text = configMap?.data?.[MAP_KEY];
  if (text === undefined) return { kind: 'none' };
  try {
    const map = JSON.parse(text) as ClusterMap;
    return hashMatches(map)
      ? { kind: 'map', map }
      : { kind: 'damaged', why: 'its hash does not fit its content' };
  } catch {
    return { kind: 'damaged', why: 'it is not JSON' };
  }
}
