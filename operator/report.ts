import { canonicalJson, memberOf } from '../model/cluster-map.ts';
import type { Condition, KVClusterStatus, NodeStatus } from '../model/kvcluster-status.ts';
import { type Availability, availabilityOf } from './availability.ts';
import { backupStatusOf } from './backup-status.ts';
import type { ClusterMemory } from './cluster-memory.ts';
import {
  asConditions,
  countMisses,
  type Finding,
  findConditions,
  MISSES_TO_TURN,
  transitionsOf,
} from './conditions.ts';
import { isHealthy, isPodReady, nodeStatusOf, type NodeView, stateOf } from './nodes.ts';
import { FIELD_MANAGER, selectorOf } from './resources/names.ts';
import { isNotFound } from './runtime/api.ts';
import type { EventRecorder } from './runtime/events.ts';
import type { StoredKVCluster } from './runtime/objects.ts';
import { pathOf, resources } from './runtime/resource.ts';
import type { Runtime, StepContext, StepResult } from './steps/step.ts';

export interface Reporter extends Runtime {
  readonly events: EventRecorder;
}

/** Least time between two looks that count, milliseconds. */
const MISS_SPACING_MS = 1000;

/** What the steps came to. */
export interface Work {
  readonly progress: StepResult;
  /** The backup step's own outcome: it never stops the data path. */
  readonly backupStep: StepResult;
}

/** Writes Ready=False first when the spec is new: a wait right after an edit must not see the old True. */
export async function announceGeneration(
  options: Reporter,
  object: StoredKVCluster,
  signal: AbortSignal,
): Promise<StoredKVCluster> {
  const { generation = 0 } = object.metadata;
  const before = object.status ?? {};
  if (before.observedGeneration === generation) return object;
  const finding: Finding = {
    type: 'Ready',
    status: 'False',
    reason: 'NewGeneration',
    message: 'The spec has changed; looking at what is to be done.',
  };
  const standing = before.conditions ?? [];
  const others = standing.filter(({ type }) => type !== 'Ready');
  const ready = asConditions([finding], standing, stamp(options, generation));
  const status = { ...before, observedGeneration: generation, conditions: [...ready, ...others] };
  return (await writeStatus(options, object, status, signal)) ?? object;
}

/** Says what is wrong with a spec that got past the API server; nothing else is looked at. */
export async function reportInvalid(
  options: Reporter,
  object: StoredKVCluster,
  problems: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const before = object.status ?? {};
  const message = `The spec is refused: ${problems.join('; ')}.`;
  const reason = 'InvalidSpec';
  const findings: readonly Finding[] = [
    { type: 'Ready', status: 'False', reason, message },
    { type: 'Progressing', status: 'False', reason: 'Blocked', message },
    { type: 'Degraded', status: 'True', reason, message },
  ];
  const standing = before.conditions ?? [];
  const changed = asConditions(findings, standing, stamp(options, object.metadata.generation ?? 0));
  const kept = standing.filter(({ type }) => changed.every((condition) => condition.type !== type));
  await writeReport(options, object, { ...before, conditions: [...changed, ...kept] }, signal);
}

/** Writes how the cluster stands, once, last, and only when it changed; one Event for each transition. */
export async function reportStatus(
  options: Reporter,
  context: StepContext,
  object: StoredKVCluster,
  work: Work,
): Promise<void> {
  const { cache, cluster, memory, nodes, spec, signal } = context;
  const { generation = 0 } = object.metadata;
  const before = object.status ?? {};
  const ofBackup = selectorOf(cluster, 'backup');
  const backup = backupStatusOf(
    before.backup,
    cache.list('jobs', cluster.namespace, ofBackup),
    cache.list('pods', cluster.namespace, ofBackup),
  );
  const isNew = isNewLook(memory, options.clock.monotonicMs());
  const missed = new Set(countMisses(memory.misses, nodes, isNew));
  const down = nodes.filter((node) => missed.has(node) && isExpectedToServe(node, memory));
  const availability = settle(memory, availabilityOfNodes(memory, nodes), isNew, before.conditions ?? []);
  const findings = findConditions({
    spec,
    availability,
    down,
    initialised: memory.map?.initialised === true,
    ...work,
    backup,
  });
  const shown = nodes.map((node) => shownStatusOf(node, memory, before.nodes ?? []));
  const pods = nodes.filter(({ worker }) => worker === 0);
  const status: KVClusterStatus = {
    observedGeneration: generation,
    replicas: pods.filter(({ pod }) => pod !== undefined).length,
    readyReplicas: pods.filter(({ pod }) => isPodReady(pod)).length,
    inSyncReplicas: pods.filter(({ podName }) =>
      shown.every((node) => node.inSync || (node.pod ?? node.name) !== podName),
    ).length,
    selector: labelSelector(selectorOf(cluster, 'node')),
    image: context.image,
    nodes: shown,
    conditions: asConditions(findings, before.conditions ?? [], stamp(options, generation)),
    ...(memory.map === undefined ? {} : { clusterId: memory.map.clusterId, epoch: memory.map.epoch }),
    ...(backup === undefined ? {} : { backup }),
  };
  await writeReport(options, object, status, signal);
}

/** A further node of a pod that no map lists yet, or any more, is told of by Progressing. */
function isExpectedToServe({ worker, nodeId }: NodeView, { map }: ClusterMemory): boolean {
  return worker === 0 || map === undefined || memberOf(map, nodeId) !== undefined;
}

function availabilityOfNodes({ map }: ClusterMemory, nodes: readonly NodeView[]): Availability {
  const asked = nodes.map((node) => ({
    nodeId: node.nodeId,
    running: !['Missing', 'Pending'].includes(stateOf(node)),
    answer: node.answer,
  }));
  return availabilityOf(map, asked);
}

/** Looks in quick succession, as when several pods change, count as one. */
function isNewLook(memory: ClusterMemory, nowMs: number): boolean {
  if (memory.countedMs !== undefined && nowMs - memory.countedMs < MISS_SPACING_MS) return false;
  memory.countedMs = nowMs;
  return true;
}

/**
 * Lets an available cluster be found wanting a few times before it is said so, unless no node runs at all. What an
 * earlier process said last counts too.
 */
function settle(
  memory: ClusterMemory,
  found: Availability,
  isNew: boolean,
  before: readonly Condition[],
): Availability {
  if (found.status === 'True') {
    memory.availabilityMisses = 0;
    return found;
  }
  if (isNew) memory.availabilityMisses += 1;
  const certain = found.reason === 'NoNodeRunning' || memory.availabilityMisses >= MISSES_TO_TURN;
  const standing = before.find(({ type }) => type === 'Available');
  if (certain || standing?.status !== 'True') return found;
  return { status: standing.status, reason: standing.reason, message: standing.message };
}

/** A node as shown: single failed questions leave what was shown before. */
function shownStatusOf(node: NodeView, { misses }: ClusterMemory, before: readonly NodeStatus[]): NodeStatus {
  const fresh = nodeStatusOf(node);
  if (isHealthy(node)) return fresh;
  const standing = before.find(({ name }) => name === node.nodeId);
  const counted = misses.get(node.nodeId) ?? 0;
  return standing !== undefined && counted < MISSES_TO_TURN ? standing : { ...fresh, inSync: false };
}

function labelSelector(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join(',');
}

function stamp({ clock }: Runtime, generation: number): { generation: number; now: string } {
  return { generation, now: new Date(clock.wallMs()).toISOString().replace(/\.\d+Z$/, 'Z') };
}

async function writeReport(
  options: Reporter,
  object: StoredKVCluster,
  status: KVClusterStatus,
  signal: AbortSignal,
): Promise<void> {
  const written = await writeStatus(options, object, status, signal);
  if (written === undefined) return;
  const about = { ...object, apiVersion: resources.kvClusters.apiVersion, kind: resources.kvClusters.kind };
  for (const transition of transitionsOf(object.status?.conditions ?? [], status.conditions ?? [])) {
    await options.events.record(about, transition, signal);
  }
}

/** The object as written; undefined when there was nothing to write, or nothing to write to any more. */
async function writeStatus(
  { api, writer, log }: Reporter,
  object: StoredKVCluster,
  status: KVClusterStatus,
  signal: AbortSignal,
): Promise<StoredKVCluster | undefined> {
  if (canonicalJson(comparable(status)) === canonicalJson(comparable(object.status ?? {}))) return undefined;
  const { name, namespace, uid } = object.metadata;
  try {
    const written = await api.request<StoredKVCluster>({
      method: 'PATCH',
      path: pathOf(resources.kvClusters, { namespace, name, subresource: 'status' }),
      query: { fieldManager: FIELD_MANAGER, force: 'true' },
      contentType: 'application/apply-patch+yaml',
      body: {
        apiVersion: resources.kvClusters.apiVersion,
        kind: resources.kvClusters.kind,
        metadata: { name, namespace, uid },
        status,
      },
      signal,
    });
    await writer.untilSeen('kvClusters', written);
    return written;
  } catch (error) {
    if (!isNotFound(error)) throw error;
    log.debug({ namespace, name }, 'the KVCluster is gone');
    return undefined;
  }
}

/** Without what depends on the order in which conditions were merged. */
function comparable(status: KVClusterStatus): KVClusterStatus {
  const { conditions = [], ...rest } = status;
  return { ...rest, conditions: conditions.toSorted((a, b) => (a.type < b.type ? -1 : 1)) };
}
