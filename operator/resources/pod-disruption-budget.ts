import type { Json } from '../runtime/api.ts';
import type { V1PodDisruptionBudget } from '../runtime/kubernetes.ts';
import { type ClusterIdentity, objectNames, ownedMetadata, selectorOf } from './names.ts';

/**
 * At most one node down on purpose; pods that do not serve anyway may always go, so that a drain is not stuck on them.
 * None for a single node: it would block every drain.
 */
export function buildPodDisruptionBudget(
  cluster: ClusterIdentity,
  replicas: number,
): Json<V1PodDisruptionBudget> | undefined {
  if (replicas < 2) return undefined;
  return {
    apiVersion: 'policy/v1',
    kind: 'PodDisruptionBudget',
    metadata: ownedMetadata(cluster, objectNames(cluster.name).podDisruptionBudget, 'node'),
    spec: {
      maxUnavailable: 1,
      unhealthyPodEvictionPolicy: 'AlwaysAllow',
      selector: { matchLabels: selectorOf(cluster, 'node') },
    },
  };
}
