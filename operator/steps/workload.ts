import { objectNames } from '../resources/names.ts';
import { buildPodDisruptionBudget } from '../resources/pod-disruption-budget.ts';
import { buildClientService, buildHeadlessService } from '../resources/services.ts';
import { buildStatefulSet } from '../resources/statefulset.ts';
import { isInvalid } from '../runtime/api.ts';
import { messageOf } from '../../common/errors.ts';
import { blocked, proceed, type StepContext, type StepResult } from './step.ts';

/** Makes the Services be as they should. */
export async function applyServices({ cluster, writer, signal }: StepContext): Promise<StepResult> {
  await writer.apply('services', buildHeadlessService(cluster), signal);
  await writer.apply('services', buildClientService(cluster), signal);
  return proceed;
}

/** Makes the budget of voluntary disruptions be as it should. */
export async function applyDisruptionBudget(context: StepContext): Promise<StepResult> {
  const budget = buildPodDisruptionBudget(context.cluster, context.replicas);
  if (budget !== undefined) await context.writer.apply('podDisruptionBudgets', budget, context.signal);
  return proceed;
}

/** Makes the set be as it should; which pods are restarted for it is decided in rolling-update.ts. */
export async function applyStatefulSet(context: StepContext): Promise<StepResult> {
  const { cluster, spec, replicas, workers, image, cache, writer, signal } = context;
  const live = cache.get('statefulSets', cluster.namespace, objectNames(cluster.name).statefulSet);
  try {
    await writer.apply(
      'statefulSets',
      buildStatefulSet({ cluster, spec, replicas, workers, image, live }),
      signal,
    );
  } catch (error) {
    if (!isInvalid(error)) throw error;
    return blocked('InvalidPodTemplate', `The API server refuses the StatefulSet: ${messageOf(error)}`);
  }
  return proceed;
}
