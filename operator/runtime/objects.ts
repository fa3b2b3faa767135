import type { KVClusterStatus } from '../../model/kvcluster-status.ts';
import type { TopologyConfigMap } from '../resources/topology.ts';
import type { Json, KubernetesObject } from './api.ts';
import type {
  V1CronJob,
  V1Job,
  V1PersistentVolumeClaim,
  V1Pod,
  V1PodDisruptionBudget,
  V1Service,
  V1StatefulSet,
} from './kubernetes.ts';

/** A KVCluster as it comes from the server; `spec` is checked before use. */
export interface StoredKVCluster extends KubernetesObject {
  readonly spec?: unknown;
  readonly status?: KVClusterStatus;
}

/** Kinds that are watched, with the shape of their objects. Secrets are not: to watch some means to read all. */
export interface WatchedObjects {
  kvClusters: StoredKVCluster;
  statefulSets: Json<V1StatefulSet>;
  services: Json<V1Service>;
  configMaps: TopologyConfigMap;
  podDisruptionBudgets: Json<V1PodDisruptionBudget>;
  cronJobs: Json<V1CronJob>;
  jobs: Json<V1Job>;
  pods: Json<V1Pod>;
  volumeClaims: Json<V1PersistentVolumeClaim>;
}

export type WatchedKind = keyof WatchedObjects;
