import type { Json } from '../runtime/api.ts';
import type { V1Service } from '../runtime/kubernetes.ts';
import { type ClusterIdentity, objectNames, ownedMetadata, ports, selectorOf } from './names.ts';

/** Where clients connect: any Ready node. */
export function buildClientService(cluster: ClusterIdentity): Json<V1Service> {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: ownedMetadata(cluster, objectNames(cluster.name).clientService, 'node'),
    spec: {
      type: 'ClusterIP',
      selector: selectorOf(cluster, 'node'),
      ports: [{ port: ports.client, targetPort: 'client', protocol: 'TCP' }],
    },
  };
}

/**
 * Names of the single pods. Nodes find each other through its SRV records, which exist only for named ports, and while
 * starting, so addresses that are not Ready are published.
 */
export function buildHeadlessService(cluster: ClusterIdentity): Json<V1Service> {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: ownedMetadata(cluster, objectNames(cluster.name).headlessService, 'node'),
    spec: {
      type: 'ClusterIP',
      clusterIP: 'None',
      publishNotReadyAddresses: true,
      selector: selectorOf(cluster, 'node'),
      ports: Object.entries(ports).map(([name, port]) => ({ name, port, targetPort: name, protocol: 'TCP' })),
    },
  };
}
