import type { ClusterMap } from '../../model/cluster-map.ts';
import type { VolumeNote } from '../../model/bootstrap.ts';
import type { NodeView } from '../nodes.ts';
import { annotations } from '../resources/names.ts';
import type { KubernetesObject } from '../runtime/api.ts';
import { pathOf, resources } from '../runtime/resource.ts';
import type { StepContext } from './step.ts';

/** What an earlier operator noted on a node's volume claim: visible also while the node cannot be asked. */
export function noteOf({ claim }: NodeView): VolumeNote | undefined {
  const clusterId = claim?.metadata.annotations?.[annotations.clusterId];
  if (clusterId === undefined) return undefined;
  return { clusterId, initialised: claim?.metadata.annotations?.[annotations.initialised] === 'true' };
}

/** Notes on every volume claim whose data it may hold, before the map that says so is written. */
export async function noteOnVolumes(
  context: StepContext,
  map: Pick<ClusterMap, 'clusterId' | 'initialised'>,
): Promise<void> {
  for (const { claim, worker } of context.nodes) {
    // The nodes of a pod share its volume.
    if (claim === undefined || worker > 0) continue;
    const wanted = {
      [annotations.cluster]: `${context.cluster.namespace}/${context.cluster.name}`,
      [annotations.clusterId]: map.clusterId,
      ...(map.initialised ? { [annotations.initialised]: 'true' } : {}),
    };
    const present = claim.metadata.annotations ?? {};
    if (Object.entries(wanted).every(([key, value]) => present[key] === value)) continue;
    const written = await context.api.request<KubernetesObject>({
      method: 'PATCH',
      path: pathOf(resources.volumeClaims, {
        namespace: context.cluster.namespace,
        name: claim.metadata.name,
      }),
      contentType: 'application/merge-patch+json',
      body: { metadata: { uid: claim.metadata.uid, annotations: wanted } },
      signal: context.signal,
    });
    await context.writer.untilSeen('volumeClaims', written);
  }
}
