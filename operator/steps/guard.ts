import { objectNames } from '../resources/names.ts';
import type { KubernetesObject } from '../runtime/api.ts';
import type { WatchedKind } from '../runtime/objects.ts';
import { ownershipOf } from '../runtime/ownership.ts';
import { resources } from '../runtime/resource.ts';
import { blocked, proceed, requeueAfter, type StepContext, type StepResult } from './step.ts';

/**
 * Looks at every name that will be used before anything is written: a foreign object stops everything, one of an
 * earlier KVCluster of this name is waited for.
 */
export async function guardNames(context: StepContext): Promise<StepResult> {
  const { cluster } = context;
  const waitingFor: string[] = [];
  const conflicts: string[] = [];
  for (const [kind, name] of usedNames(context)) {
    const object = await lookUp(context, kind, name);
    const what = `${resources[kind].kind} ${name}`;
    const ownership = ownershipOf(object, cluster);
    if (ownership === 'foreign') conflicts.push(what);
    if (ownership === 'earlier') waitingFor.push(what);
  }
  if (conflicts.length > 0) return nameConflict(context, conflicts);
  if (waitingFor.length > 0) {
    return requeueAfter(
      500,
      'Adopting',
      `Waiting for ${waitingFor.join(', ')} of the deleted KVCluster to go.`,
    );
  }
  return proceed;
}

/** Says what is in the way, and that nothing was touched. */
export function nameConflict({ cluster }: StepContext, conflicts: readonly string[]): StepResult {
  return blocked(
    'NameConflict',
    `${conflicts.join(', ')} in namespace ${cluster.namespace} ${conflicts.length === 1 ? 'is' : 'are'} not of this ` +
      'KVCluster; nothing was touched. Delete what is in the way, or give the KVCluster another name.',
  );
}

function usedNames({ cluster, spec, replicas }: StepContext): readonly (readonly [WatchedKind, string])[] {
  const names = objectNames(cluster.name);
  return [
    ['statefulSets', names.statefulSet],
    ['services', names.clientService],
    ['services', names.headlessService],
    ['configMaps', names.topology],
    ...(replicas < 2 ? [] : [['podDisruptionBudgets', names.podDisruptionBudget] as const]),
    ...(spec.backup === undefined
      ? []
      : [['cronJobs', names.backup] as const, ['volumeClaims', names.backup] as const]),
  ];
}

/** The cache holds only objects with our label; somebody else's must be asked for. */
async function lookUp(
  context: StepContext,
  kind: WatchedKind,
  name: string,
): Promise<KubernetesObject | undefined> {
  const { cache, writer, cluster, signal } = context;
  return (
    cache.get(kind, cluster.namespace, name) ?? (await writer.getLive(kind, cluster.namespace, name, signal))
  );
}
