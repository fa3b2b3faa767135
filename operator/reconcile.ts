import { type KVClusterSpec, parseKVCluster } from '../model/kvcluster.ts';
import type { KVClusterStatus } from '../model/kvcluster-status.ts';
import { replicasOnAdoption, workersOnAdoption } from '../model/bootstrap.ts';
import type { ClusterMemories } from './cluster-memory.ts';
import { isHealthy, viewNodes } from './nodes.ts';
import { announceGeneration, type Reporter, reportInvalid, reportStatus, type Work } from './report.ts';
import { type ClusterIdentity, NODE_CONTAINER, objectNames, selectorOf } from './resources/names.ts';
import { readTopology } from './resources/topology.ts';
import type { HandlerResult } from './runtime/queue.ts';
import { resources } from './runtime/resource.ts';
import { applyBackup } from './steps/backup.ts';
import { guardNames } from './steps/guard.ts';
import { movePartitions } from './steps/move-partitions.ts';
import { rollPods } from './steps/rolling-update.ts';
import { ensureSecret, recallSecret } from './steps/secret.ts';
import { proceed, type Step, type StepContext, type StepResult } from './steps/step.ts';
import { ensureTopology } from './steps/topology.ts';
import { applyDisruptionBudget, applyServices, applyStatefulSet } from './steps/workload.ts';

/** In this order: nothing is written before the names are known to be free, no pod moves before its set is right. */
const dataPath: readonly Step[] = [
  guardNames,
  ensureSecret,
  applyServices,
  applyDisruptionBudget,
  applyStatefulSet,
  rollPods,
  ensureTopology,
  movePartitions,
];

/** How often a cluster in order is looked at: three misses in a row still turn a condition within 10 s. */
const STEADY_MS = 5000;
/** How often one that is not. */
const UNSTEADY_MS = 1500;

export interface ReconcilerOptions extends Reporter {
  readonly memories: ClusterMemories;
}

/** Brings one cluster nearer to what its KVCluster says, and reports how it stands. */
export async function reconcile(
  key: string,
  options: ReconcilerOptions,
  signal: AbortSignal,
): Promise<HandlerResult> {
  const [namespace = '', name = ''] = key.split('/');
  const object = options.cache.get('kvClusters', namespace, name);
  const uid = object?.metadata.uid;
  if (object === undefined || uid === undefined || object.metadata.deletionTimestamp !== undefined) {
    options.memories.forget(key);
    return {};
  }
  const cluster: ClusterIdentity = { namespace, name, uid };
  const announced = await announceGeneration(options, object, signal);
  const parsed = parseKVCluster({ ...object, ...kindOf }, 'drop');
  if (!parsed.ok) {
    await reportInvalid(options, announced, parsed.problems, signal);
    return { requeueAfterMs: STEADY_MS };
  }
  const memory = options.memories.of(key, uid);
  const isStarting = isBootstrapping(announced.status);
  const context = await look({ ...options, cluster, memory, isStarting, signal }, parsed.cluster.spec);
  const work = await walk(context);
  await reportStatus(options, context, announced, work);
  const delayMs = work.progress.kind === 'requeueAfter' ? work.progress.delayMs : UNSTEADY_MS;
  const steady = work.progress.kind !== 'requeueAfter' && context.nodes.every(isHealthy);
  return { requeueAfterMs: steady ? STEADY_MS : delayMs };
}

const kindOf = { apiVersion: resources.kvClusters.apiVersion, kind: resources.kvClusters.kind };

/** What status says: it is the one thing that must survive a restart of the operator in the middle of a start. */
function isBootstrapping(status: KVClusterStatus = {}): boolean {
  const progressing = status.conditions?.find(({ type }) => type === 'Progressing');
  return progressing?.status === 'True' && progressing.reason === 'Bootstrapping';
}

/** Gathers what the steps decide on. */
async function look(
  base: Omit<StepContext, 'spec' | 'image' | 'replicas' | 'workers' | 'nodes'>,
  spec: KVClusterSpec,
): Promise<StepContext> {
  const { cache, cluster, memory, defaultImage, clusterDomain, signal } = base;
  const names = objectNames(cluster.name);
  const set = cache.get('statefulSets', cluster.namespace, names.statefulSet);
  const running = set?.spec?.template.spec?.containers.find(
    (container) => container.name === NODE_CONTAINER,
  )?.image;
  const published = readTopology(cache.get('configMaps', cluster.namespace, names.topology));
  const map = published.kind === 'map' ? published.map : memory.map;
  memory.map = map;
  const replicas = map === undefined ? spec.replicas : replicasOnAdoption(spec.replicas, map);
  const workers = map === undefined ? spec.workersPerPod : workersOnAdoption(spec.workersPerPod, map);
  const expected = Array.from({ length: replicas }, (_, ordinal) => names.pod(ordinal));
  await recallSecret(base);
  const nodes = await viewNodes(
    {
      cluster,
      clusterDomain,
      expected,
      workers,
      pods: cache.list('pods', cluster.namespace, selectorOf(cluster, 'node')),
      claimOf: (podName) => cache.get('volumeClaims', cluster.namespace, names.volumeClaimOf(podName)),
      admin: memory.admin,
    },
    signal,
  );
  return { ...base, spec, image: spec.image ?? running ?? defaultImage, replicas, workers, nodes };
}

/** Takes the steps until one of them does not go on; backups are looked after whatever the data path does. */
async function walk(context: StepContext): Promise<Work> {
  if (context.spec.paused) return { progress: proceed, backupStep: proceed };
  let progress: StepResult = proceed;
  for (const step of dataPath) {
    progress = await step(context);
    if (progress.kind !== 'continue') {
      tell(context, step.name, progress);
      break;
    }
  }
  if (progress.kind === 'continue') tell(context, 'all steps', progress);
  const ownsNames = progress.kind === 'continue' || context.memory.map !== undefined;
  const backupStep = ownsNames && progress.kind !== 'blocked' ? await applyBackup(context) : proceed;
  return { progress, backupStep };
}

/** Logs how far it came, when that is not what was logged last. */
function tell({ memory, log }: StepContext, step: string, result: StepResult): void {
  const outcome = JSON.stringify([step, result]);
  if (memory.lastOutcome === outcome) return;
  memory.lastOutcome = outcome;
  if (result.kind === 'continue') log.info({}, 'reconciled');
  else log.info({ step, outcome: result.kind, reason: result.reason, why: result.message }, 'not finished');
}
