import { KVCLUSTER_API_VERSION, KVCLUSTER_KIND, KVCLUSTER_PLURAL } from '../../model/kvcluster.ts';

/** A kind of namespaced objects, as the API server's paths name it. */
export interface Resource {
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
}

export const resources = {
  kvClusters: { apiVersion: KVCLUSTER_API_VERSION, kind: KVCLUSTER_KIND, plural: KVCLUSTER_PLURAL },
  statefulSets: { apiVersion: 'apps/v1', kind: 'StatefulSet', plural: 'statefulsets' },
  services: { apiVersion: 'v1', kind: 'Service', plural: 'services' },
  configMaps: { apiVersion: 'v1', kind: 'ConfigMap', plural: 'configmaps' },
  secrets: { apiVersion: 'v1', kind: 'Secret', plural: 'secrets' },
  podDisruptionBudgets: {
    apiVersion: 'policy/v1',
    kind: 'PodDisruptionBudget',
    plural: 'poddisruptionbudgets',
  },
  cronJobs: { apiVersion: 'batch/v1', kind: 'CronJob', plural: 'cronjobs' },
  jobs: { apiVersion: 'batch/v1', kind: 'Job', plural: 'jobs' },
  pods: { apiVersion: 'v1', kind: 'Pod', plural: 'pods' },
  volumeClaims: { apiVersion: 'v1', kind: 'PersistentVolumeClaim', plural: 'persistentvolumeclaims' },
  events: { apiVersion: 'v1', kind: 'Event', plural: 'events' },
  leases: { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', plural: 'leases' },
} as const satisfies Record<string, Resource>;

export interface ObjectPath {
  /** Absent: the whole cluster. */
  readonly namespace?: string | undefined;
  /** Absent: the collection. */
  readonly name?: string;
  readonly subresource?: 'status' | 'eviction';
}

/** The path of an object or a collection on the API server. */
export function pathOf(resource: Resource, { namespace, name, subresource }: ObjectPath): string {
  const parts = [
    resource.apiVersion.includes('/') ? `apis/${resource.apiVersion}` : `api/${resource.apiVersion}`,
  ];
  if (namespace !== undefined) parts.push('namespaces', namespace);
  parts.push(resource.plural);
  if (name !== undefined) parts.push(name);
  if (subresource !== undefined) parts.push(subresource);
  return `/${parts.map((part) => part.split('/').map(encodeURIComponent).join('/')).join('/')}`;
}

/** How caches and queues name an object. */
export function keyOf(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}
