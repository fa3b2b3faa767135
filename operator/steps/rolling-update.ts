import { messageOf } from '../../common/errors.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { workerNames } from '../../model/workers.ts';
import { type AskedNode, partitionsWithoutQuorum } from '../availability.ts';
import { MISSES_TO_TURN } from '../conditions.ts';
import { isHealthy, isPodReady, isTerminating, type NodeView } from '../nodes.ts';
import { objectNames } from '../resources/names.ts';
import { ApiError, isConflict, isNotFound, type Json, type KubernetesObject } from '../runtime/api.ts';
import type { V1Pod, V1StatefulSet } from '../runtime/kubernetes.ts';
import { pathOf, resources } from '../runtime/resource.ts';
import { assertLeading, proceed, requeueAfter, type StepContext, type StepResult } from './step.ts';

const REVISION_LABEL = 'controller-revision-hash';
const SOON_MS = 1000;

/** What a roll does next. */
export type RollPlan =
  | { readonly kind: 'done' }
  | { readonly kind: 'wait'; readonly message: string }
  /** These do not serve anyway: all at once, so that a corrected spec takes effect. */
  | { readonly kind: 'delete'; readonly pods: readonly Json<V1Pod>[]; readonly message: string }
  | { readonly kind: 'evict'; readonly pod: Json<V1Pod>; readonly message: string };

export interface RollFacts {
  readonly set: Json<V1StatefulSet> | undefined;
  readonly nodes: readonly NodeView[];
  /** Names of members that have to be in sync before one that serves is restarted. */
  readonly expected: readonly string[];
  /** Names of members that have been down at several looks. */
  readonly down: ReadonlySet<string>;
  /** Pods that there should be. */
  readonly replicas: number;
  readonly map: ClusterMap | undefined;
}

/**
 * Decides which pods are restarted for a changed template: one that serves at a time, with all of its nodes, and only
 * while all others do.
 */
export function planRoll(facts: RollFacts): RollPlan {
  const { set, nodes, expected, down, replicas, map } = facts;
  const revision = updateRevisionOf(set);
  if (set === undefined || revision === undefined) return { kind: 'done' };
  const pods = [...new Set(nodes.map(({ pod }) => pod))].filter((pod) => pod !== undefined);
  const due = pods.filter(
    (pod) =>
      isControlledBy(pod, set) && !isTerminating(pod) && pod.metadata.labels?.[REVISION_LABEL] !== revision,
  );
  const last = due.at(-1);
  if (last === undefined) return { kind: 'done' };
  const progress = `${replicas - due.length} of ${replicas} pods run the new template`;
  const notReady = due.filter((pod) => !isPodReady(pod));
  const broken = dispensable(notReady, nodes, map);
  if (broken.length > 0) {
    return {
      kind: 'delete',
      pods: broken,
      message: `${progress}; replacing ${broken.map(nameOf).join(', ')}.`,
    };
  }
  const unhealthy = expected.filter((nodeId) => {
    const view = nodes.find((node) => node.nodeId === nodeId);
    return view === undefined || !isHealthy(view);
  });
  if (unhealthy.length > 0) {
    const podOf = (nodeId: string): Json<V1Pod> | undefined =>
      nodes.find((node) => node.nodeId === nodeId)?.pod;
    // Pods that are only half dead keep each other: nothing but the new template will bring back what is dead in them.
    const isHopeless = unhealthy.every(
      (nodeId) => down.has(nodeId) && notReady.some((pod) => pod === podOf(nodeId)),
    );
    const cheapest = isHopeless ? leastMissed(notReady, nodes, map) : undefined;
    if (cheapest !== undefined)
      return { kind: 'delete', pods: [cheapest], message: `${progress}; replacing ${nameOf(cheapest)}.` };
    return { kind: 'wait', message: `${progress}; waiting for ${unhealthy.join(', ')} to be in sync.` };
  }
  return { kind: 'evict', pod: last, message: `${progress}; replacing ${nameOf(last)}.` };
}

/** The revision that pods should have; undefined while the controller has not seen the set as it is. */
function updateRevisionOf(set: Json<V1StatefulSet> | undefined): string | undefined {
  const observed = set?.status?.observedGeneration ?? 0;
  return observed >= (set?.metadata.generation ?? 0) ? set?.status?.updateRevision : undefined;
}

function isControlledBy(pod: Json<V1Pod>, set: Json<V1StatefulSet>): boolean {
  return pod.metadata.ownerReferences?.some(({ uid }) => uid === set.metadata.uid) === true;
}

/**
 * Those of these pods that do not serve at all, and those without which, all together, no partition loses a write quorum
 * that it has: a pod may be not Ready for one of its nodes, while the others serve.
 */
function dispensable(
  candidates: readonly Json<V1Pod>[],
  nodes: readonly NodeView[],
  map: ClusterMap | undefined,
): readonly Json<V1Pod>[] {
  if (map === undefined) return candidates;
  const lackingWithout = lackingIn(map, nodes);
  const answers = (candidate: Json<V1Pod>): boolean =>
    nodes.some(({ pod, answer }) => pod === candidate && answer !== undefined);
  const chosen = candidates.filter((pod) => !answers(pod));
  const lacking = lackingWithout(chosen);
  for (const pod of candidates.filter(answers))
    if (lackingWithout([...chosen, pod]) === lacking) chosen.push(pod);
  return chosen;
}

/** The pod without which the fewest partitions lack a write quorum. */
function leastMissed(
  candidates: readonly Json<V1Pod>[],
  nodes: readonly NodeView[],
  map: ClusterMap | undefined,
): Json<V1Pod> | undefined {
  if (map === undefined) return candidates.at(-1);
  const lackingWithout = lackingIn(map, nodes);
  const costs = candidates.map((pod) => lackingWithout([pod]));
  return candidates[costs.indexOf(Math.min(...costs))];
}

/** How many partitions have no write quorum without some pods. */
function lackingIn(map: ClusterMap, nodes: readonly NodeView[]): (without: readonly Json<V1Pod>[]) => number {
  return (pods) => partitionsWithoutQuorum(map, silenced(nodes, pods)).length;
}

/** The nodes as they would be without those of some pods. */
function silenced(nodes: readonly NodeView[], pods: readonly Json<V1Pod>[]): readonly AskedNode[] {
  const gone = new Set(
    nodes.filter(({ pod }) => pod !== undefined && pods.includes(pod)).map(({ nodeId }) => nodeId),
  );
  return nodes.map(({ nodeId, answer: given }) => {
    const answer = gone.has(nodeId) ? undefined : given;
    if (answer === undefined) return { nodeId, running: false, answer };
    // The word of its peers for it would keep it in the picture.
    const peers = answer.peers.filter((peer) => !gone.has(peer.nodeId));
    return { nodeId, running: true, answer: { ...answer, peers } };
  });
}

function nameOf({ metadata }: Json<V1Pod>): string {
  return metadata.name;
}

/** Who has to be in sync: the members of the map; before there is one, every node that there should be. */
function expectedMembers({ cluster, replicas, workers, memory }: StepContext): readonly string[] {
  if (memory.map !== undefined) return memory.map.members.map(({ nodeId }) => nodeId);
  const names = objectNames(cluster.name);
  return Array.from({ length: replicas }, (_, ordinal) => names.pod(ordinal)).flatMap((podName) =>
    workerNames(podName, workers),
  );
}

/** Restarts the pods that are due. */
export async function rollPods(context: StepContext): Promise<StepResult> {
  const { cache, cluster, nodes, replicas, memory, log } = context;
  const names = objectNames(cluster.name);
  const plan = planRoll({
    set: cache.get('statefulSets', cluster.namespace, names.statefulSet),
    nodes,
    expected: expectedMembers(context),
    down: new Set([...memory.misses].flatMap(([nodeId, count]) => (count >= MISSES_TO_TURN ? [nodeId] : []))),
    replicas,
    map: memory.map,
  });
  switch (plan.kind) {
    case 'done':
      return proceed;
    case 'wait':
      return requeueAfter(SOON_MS, 'RollingUpdate', plan.message);
    case 'delete':
      log.info({ pods: plan.pods.map(nameOf) }, 'deleting pods that do not serve');
      for (const pod of plan.pods) await deletePod(context, pod);
      return requeueAfter(SOON_MS, 'RollingUpdate', plan.message);
    case 'evict':
      log.info({ pod: nameOf(plan.pod) }, 'evicting a pod of an older template');
      return evict(context, plan.pod, plan.message);
  }
}

async function evict(context: StepContext, pod: Json<V1Pod>, message: string): Promise<StepResult> {
  const { cluster, api, signal } = context;
  const preconditions = await preconditionsOf(context, pod);
  if (preconditions === undefined) return requeueAfter(SOON_MS, 'RollingUpdate', message);
  const { name } = pod.metadata;
  try {
    await api.request({
      method: 'POST',
      path: pathOf(resources.pods, { namespace: cluster.namespace, name, subresource: 'eviction' }),
      body: {
        apiVersion: 'policy/v1',
        kind: 'Eviction',
        metadata: { name, namespace: cluster.namespace },
        deleteOptions: { preconditions },
      },
      signal,
    });
  } catch (error) {
    // Too many requests: the budget does not allow it now.
    if (error instanceof ApiError && error.status === 429) {
      return requeueAfter(SOON_MS, 'RollingUpdate', `${message} Refused for now: ${messageOf(error)}`);
    }
    if (!isConflict(error) && !isNotFound(error)) throw error;
  }
  await untilGoing(context, pod);
  return requeueAfter(SOON_MS, 'RollingUpdate', message);
}

async function deletePod(context: StepContext, pod: Json<V1Pod>): Promise<void> {
  const { cluster, api, signal } = context;
  const preconditions = await preconditionsOf(context, pod);
  if (preconditions === undefined) return;
  try {
    await api.request({
      method: 'DELETE',
      path: pathOf(resources.pods, { namespace: cluster.namespace, name: pod.metadata.name }),
      body: { apiVersion: 'v1', kind: 'DeleteOptions', preconditions },
      signal,
    });
  } catch (error) {
    if (!isConflict(error) && !isNotFound(error)) throw error;
    return;
  }
  await untilGoing(context, pod);
}

/** What must still hold when the pod is deleted; undefined when it is another pod by now, or has become Ready. */
async function preconditionsOf(
  context: StepContext,
  pod: Json<V1Pod>,
): Promise<{ uid: string; resourceVersion: string } | undefined> {
  assertLeading(context);
  const { writer, cluster, signal } = context;
  const live = await writer.getLive('pods', cluster.namespace, pod.metadata.name, signal);
  const { uid, resourceVersion } = live?.metadata ?? {};
  if (live === undefined || uid === undefined || resourceVersion === undefined) return undefined;
  if (uid !== pod.metadata.uid || isTerminating(live) || isPodReady(live) !== isPodReady(pod))
    return undefined;
  assertLeading(context);
  return { uid, resourceVersion };
}

async function untilGoing({ cache, cluster }: StepContext, pod: Json<V1Pod>): Promise<void> {
  const { name, uid } = pod.metadata;
  const isGoing = (cached: KubernetesObject | undefined): boolean =>
    cached?.metadata.uid !== uid || cached?.metadata.deletionTimestamp !== undefined;
  await cache.waitUntil('pods', cluster.namespace, name, isGoing);
}
