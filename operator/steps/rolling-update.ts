import { messageOf } from '../../common/errors.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { availabilityOf } from '../availability.ts';
import { isHealthy, isPodReady, isTerminating, type NodeView, stateOf } from '../nodes.ts';
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
  | { readonly kind: 'delete'; readonly nodes: readonly NodeView[]; readonly message: string }
  | { readonly kind: 'evict'; readonly node: NodeView; readonly message: string };

export interface RollFacts {
  readonly set: Json<V1StatefulSet> | undefined;
  readonly nodes: readonly NodeView[];
  /** Names of members that there should be. */
  readonly expected: readonly string[];
  readonly map: ClusterMap | undefined;
}

/** Decides which pods are restarted for a changed template: one that serves at a time, and only while all others do. */
export function planRoll({ set, nodes, expected, map }: RollFacts): RollPlan {
  const revision = updateRevisionOf(set);
  if (set === undefined || revision === undefined) return { kind: 'done' };
  const ours = nodes.filter(({ pod }) => pod !== undefined && isControlledBy(pod, set));
  const due = ours.filter(
    ({ pod }) =>
      pod !== undefined && !isTerminating(pod) && pod.metadata.labels?.[REVISION_LABEL] !== revision,
  );
  if (due.length === 0) return { kind: 'done' };
  const progress = `${expected.length - due.length} of ${expected.length} pods run the new template`;
  const broken = due.filter((node) => !isPodReady(node.pod) && !completesQuorum(node, nodes, map));
  if (broken.length > 0) {
    return { kind: 'delete', nodes: broken, message: `${progress}; replacing ${namesOf(broken)}.` };
  }
  const unhealthy = expected.filter((nodeId) => {
    const view = nodes.find((node) => node.nodeId === nodeId);
    return view === undefined || !isHealthy(view);
  });
  if (unhealthy.length > 0) {
    return { kind: 'wait', message: `${progress}; waiting for ${unhealthy.join(', ')} to be in sync.` };
  }
  const node = due.at(-1);
  if (node === undefined) return { kind: 'done' };
  return { kind: 'evict', node, message: `${progress}; replacing ${node.nodeId}.` };
}

/** The revision that pods should have; undefined while the controller has not seen the set as it is. */
function updateRevisionOf(set: Json<V1StatefulSet> | undefined): string | undefined {
  const observed = set?.status?.observedGeneration ?? 0;
  return observed >= (set?.metadata.generation ?? 0) ? set?.status?.updateRevision : undefined;
}

function isControlledBy(pod: Json<V1Pod>, set: Json<V1StatefulSet>): boolean {
  return pod.metadata.ownerReferences?.some(({ uid }) => uid === set.metadata.uid) === true;
}

/** Whether the cluster has a write quorum with this node and would have none without it. */
function completesQuorum(node: NodeView, nodes: readonly NodeView[], map: ClusterMap | undefined): boolean {
  if (map === undefined || node.answer === undefined) return false;
  const asked = nodes.map((view) => ({
    nodeId: view.nodeId,
    running: view.answer !== undefined,
    answer: view.answer,
  }));
  const without = asked.map((view) => (view.nodeId === node.nodeId ? { ...view, answer: undefined } : view));
  // Its peers' word for it would keep it in the picture.
  const silenced = without.map((view) =>
    view.answer === undefined
      ? view
      : {
          ...view,
          answer: { ...view.answer, peers: view.answer.peers.filter((peer) => peer.nodeId !== node.nodeId) },
        },
  );
  return availabilityOf(map, asked).status === 'True' && availabilityOf(map, silenced).status !== 'True';
}

function namesOf(nodes: readonly NodeView[]): string {
  return nodes.map(({ nodeId }) => nodeId).join(', ');
}

/** Restarts the pods that are due. */
export async function rollPods(context: StepContext): Promise<StepResult> {
  const { cache, cluster, nodes, replicas, memory, log } = context;
  const names = objectNames(cluster.name);
  const plan = planRoll({
    set: cache.get('statefulSets', cluster.namespace, names.statefulSet),
    nodes,
    expected: Array.from({ length: replicas }, (_, ordinal) => names.pod(ordinal)),
    map: memory.map,
  });
  switch (plan.kind) {
    case 'done':
      return proceed;
    case 'wait':
      return requeueAfter(SOON_MS, 'RollingUpdate', plan.message);
    case 'delete':
      log.info(
        { pods: plan.nodes.map((node) => [node.nodeId, stateOf(node)]) },
        'deleting pods that do not serve',
      );
      for (const { pod } of plan.nodes) if (pod !== undefined) await deletePod(context, pod);
      return requeueAfter(SOON_MS, 'RollingUpdate', plan.message);
    case 'evict':
      log.info({ pod: plan.node.nodeId }, 'evicting a pod of an older template');
      return evict(context, plan.node, plan.message);
  }
}

async function evict(context: StepContext, { pod }: NodeView, message: string): Promise<StepResult> {
  if (pod === undefined) return proceed;
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
