import { messageOf } from '../../common/errors.ts';
import {
  type BootstrapDecision,
  decideBootstrap,
  type ExpectedMember,
  type VolumeAnswer,
} from '../../model/bootstrap.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { firstMap, mintClusterId, withInitialised } from '../../model/next-map.ts';
import { isHealthy, isTerminating, type NodeView, podTrouble, stateOf } from '../nodes.ts';
import { objectNames } from '../resources/names.ts';
import { readTopology } from '../resources/topology.ts';
import { memberOfNode } from './members.ts';
import { publishMap } from './publish-map.ts';
import { pushMap } from './push-map.ts';
import { blocked, proceed, requeueAfter, type StepContext, type StepResult } from './step.ts';
import { noteOf, noteOnVolumes } from './volume-notes.ts';

/** How long volumes that belong to a cluster may be silent, while their pods start, before a person is asked. */
const SILENCE_MS = 60_000;
const SOON_MS = 1000;

/** Sees to it that there is one cluster map, published, and that every node that can be reached has it. */
export async function ensureTopology(context: StepContext): Promise<StepResult> {
  const published = publishedMap(context);
  const decision = decideBootstrap({ members: await hearMembers(context, published), published });
  if (decision.kind !== 'ambiguous') context.memory.silentSinceMs = undefined;
  switch (decision.kind) {
    case 'wait':
      // It may have members in pods that there are not yet, because the spec asks for fewer than there were.
      context.memory.map = decision.map ?? context.memory.map;
      return waitForNodes(context, decision.why);
    case 'ambiguous':
      return refuse(context, decision);
    case 'mint':
      return startCluster(context, decision.clusterId ?? mintClusterId(context.random));
    case 'adopt':
      return carryOn(context, decision.map, published);
  }
}

/** The map in the ConfigMap; a damaged one counts as none and is replaced by what the nodes hold. */
function publishedMap({ cache, cluster, log }: StepContext): ClusterMap | undefined {
  const found = readTopology(cache.get('configMaps', cluster.namespace, objectNames(cluster.name).topology));
  if (found.kind === 'damaged') log.warn({ why: found.why }, 'the published cluster map is damaged');
  return found.kind === 'map' ? found.map : undefined;
}

async function hearMembers(
  context: StepContext,
  published: ClusterMap | undefined,
): Promise<readonly ExpectedMember[]> {
  return Promise.all(
    context.nodes.map(async (node) => ({
      nodeId: node.nodeId,
      noted: noteOf(node),
      answer: await volumeAnswer(context, node, published),
    })),
  );
}

async function volumeAnswer(
  { memory, signal }: StepContext,
  { nodeId, pod, answer, target, silence }: NodeView,
  published: ClusterMap | undefined,
): Promise<VolumeAnswer> {
  if (pod !== undefined && isTerminating(pod))
    return { kind: 'unreachable', why: 'the pod is being deleted' };
  if (answer === undefined || target === undefined) return { kind: 'unreachable', why: silence };
  const clusterId = answer.volume?.clusterId ?? '';
  if (clusterId === '') return { kind: 'blank' };
  if (answer.epoch === 0) return { kind: 'holds', clusterId, map: undefined };
  if (published?.epoch === answer.epoch && published.hash === answer.mapHash) {
    return { kind: 'holds', clusterId, map: published };
  }
  // An older map than the published one decides nothing, so it need not be read.
  if (published !== undefined && published.epoch > answer.epoch)
    return { kind: 'holds', clusterId, map: undefined };
  try {
    return { kind: 'holds', clusterId, map: await memory.admin?.getMap(target, signal) };
  } catch (error) {
    signal.throwIfAborted();
    return { kind: 'unreachable', why: `${nodeId} does not tell its map: ${messageOf(error)}` };
  }
}

function waitForNodes({ nodes }: StepContext, why: string): StepResult {
  const troubles = nodes.flatMap(({ nodeId, pod }) => {
    const trouble = pod === undefined ? undefined : podTrouble(pod);
    return trouble === undefined ? [] : [`${nodeId}: ${trouble}`];
  });
  if (troubles.length > 0)
    return blocked('PodFailing', `${troubles.join('; ')}. Correct the spec or the pod's node.`);
  return requeueAfter(
    SOON_MS,
    'Bootstrapping',
    `Waiting for every node to say what its volume holds: ${why}.`,
  );
}

function refuse(
  { memory, clock }: StepContext,
  decision: BootstrapDecision & { readonly kind: 'ambiguous' },
): StepResult {
  if (decision.reason === 'unreachable-volume') {
    memory.silentSinceMs ??= clock.monotonicMs();
    if (clock.monotonicMs() - memory.silentSinceMs < SILENCE_MS) {
      return requeueAfter(SOON_MS, 'Adopting', `Waiting for the volumes to be heard: ${decision.message}.`);
    }
  }
  return blocked('AmbiguousVolumes', `Nothing was written: ${decision.message}.`);
}

/** Everybody is blank: the first map. The claims are marked before it, so that no later start can mint another id. */
async function startCluster(context: StepContext, clusterId: string): Promise<StepResult> {
  const { cluster, spec, nodes } = context;
  context.log.info(
    { cluster: cluster.name, namespace: cluster.namespace, clusterId },
    'starting a new cluster',
  );
  await noteOnVolumes(context, { clusterId, initialised: false });
  const map = firstMap({
    clusterId,
    namespace: cluster.namespace,
    name: cluster.name,
    partitions: spec.partitions,
    replicationFactor: spec.replicationFactor,
    members: nodes.map(memberOfNode),
  });
  return carryOn(context, map, undefined);
}

/** Publishes the newest map before anybody is told of it, tells who lacks it, and ends the start when all have it. */
async function carryOn(
  context: StepContext,
  newest: ClusterMap,
  published: ClusterMap | undefined,
): Promise<StepResult> {
  const { memory, cluster } = context;
  if (newest.namespace !== cluster.namespace || newest.name !== cluster.name) {
    const whose = `${newest.namespace}/${newest.name}`;
    return blocked('AmbiguousVolumes', `The volumes hold the cluster ${whose}; nothing was written.`);
  }
  await noteOnVolumes(context, newest);
  if (published?.hash !== newest.hash || topologyDrifted(context)) await publishMap(context, newest);
  memory.map = newest;
  const lacking = await pushMap(context, newest);
  if (newest.initialised) return lacking.length === 0 ? untilServing(context) : notTaken(context, lacking);
  if (lacking.length > 0) {
    return requeueAfter(
      SOON_MS,
      'Bootstrapping',
      `Handing out the first cluster map: ${lacking.join('; ')}.`,
    );
  }
  const initialised = withInitialised(newest);
  await publishMap(context, initialised);
  memory.map = initialised;
  await noteOnVolumes(context, initialised);
  await pushMap(context, initialised);
  return requeueAfter(SOON_MS, 'Bootstrapping', 'Every node has the cluster map; waiting for them to serve.');
}

/** A cluster has started once all of its nodes have served at the same time. */
function untilServing({ isStarting, nodes }: StepContext): StepResult {
  const missing = nodes.filter((node) => !isHealthy(node)).map((node) => `${node.nodeId} (${stateOf(node)})`);
  if (!isStarting || missing.length === 0) return proceed;
  return requeueAfter(SOON_MS, 'Bootstrapping', `Waiting for ${missing.join(', ')} to serve and be in sync.`);
}

/** Whether the ConfigMap lacks our owner reference, as after an adoption. */
function topologyDrifted({ cache, cluster }: StepContext): boolean {
  const live = cache.get('configMaps', cluster.namespace, objectNames(cluster.name).topology);
  return live?.metadata.ownerReferences?.some(({ uid }) => uid === cluster.uid) !== true;
}

/** Members that lack the map: those that are down get it when they are back, and are reported as down elsewhere. */
function notTaken({ nodes }: StepContext, lacking: readonly string[]): StepResult {
  const reachable = nodes.some(
    ({ nodeId, answer }) => answer !== undefined && lacking.some((entry) => entry.startsWith(`${nodeId}: `)),
  );
  if (!reachable) return proceed;
  return requeueAfter(SOON_MS, 'Adopting', `Handing out the cluster map: ${lacking.join('; ')}.`);
}
