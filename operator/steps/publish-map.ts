import type { ClusterMap } from '../../model/cluster-map.ts';
import { objectNames } from '../resources/names.ts';
import { buildTopology, readTopology, type TopologyConfigMap } from '../resources/topology.ts';
import { firstDifference } from '../runtime/live-compare.ts';
import { pathOf, resources } from '../runtime/resource.ts';
import type { StepContext } from './step.ts';

/**
 * Writes the map to its ConfigMap by compare-and-set: what stands there now is read, a newer map is left alone, and the
 * write holds only if nothing came between. Never by apply, which would overwrite.
 *
 * @throws ApiError 409 when somebody else wrote; Error when a map of the same or a higher epoch stands there.
 */
export async function publishMap(context: StepContext, map: ClusterMap): Promise<void> {
  const { api, cluster, writer, signal } = context;
  const { namespace } = cluster;
  const name = objectNames(cluster.name).topology;
  const live = await writer.getLive('configMaps', namespace, name, signal);
  const wanted = buildTopology(cluster, map);
  if (live === undefined) {
    const path = pathOf(resources.configMaps, { namespace });
    await writer.untilSeen(
      'configMaps',
      await api.request<TopologyConfigMap>({ method: 'POST', path, body: wanted, signal }),
    );
    return;
  }
  const standing = readTopology(live);
  if (standing.kind === 'map' && standing.map.hash !== map.hash && standing.map.epoch >= map.epoch) {
    throw new Error(`the published map has epoch ${standing.map.epoch} already, ${map.epoch} is not written`);
  }
  if (firstDifference({ ...wanted, apiVersion: undefined, kind: undefined }, live) === undefined) return;
  const body = {
    ...wanted,
    metadata: {
      ...wanted.metadata,
      uid: live.metadata.uid,
      resourceVersion: live.metadata.resourceVersion,
      labels: { ...live.metadata.labels, ...wanted.metadata.labels },
      annotations: { ...live.metadata.annotations, ...wanted.metadata.annotations },
    },
  };
  const path = pathOf(resources.configMaps, { namespace, name });
  await writer.untilSeen(
    'configMaps',
    await api.request<TopologyConfigMap>({ method: 'PUT', path, body, signal }),
  );
}
