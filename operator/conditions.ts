import type { KVClusterSpec } from '../model/kvcluster.ts';
import type { BackupStatus, Condition, ConditionType } from '../model/kvcluster-status.ts';
import type { Availability } from './availability.ts';
import { isHealthy, isSurelyDown, type NodeView, stateOf } from './nodes.ts';
import type { StepResult } from './steps/step.ts';

/** A condition before it is compared with the one that stands. */
export type Finding = Pick<Condition, 'type' | 'status' | 'reason' | 'message'>;

/** How often in a row a node must be found wanting by its answers alone before it counts as down. */
export const MISSES_TO_TURN = 3;

/**
 * Counts, per node, how often in a row it was found wanting. What Kubernetes says (no pod, not Ready, being deleted) is
 * certain and turns at once; a question without an answer, or an answer "not in sync", may pass.
 *
 * @param isNewLook whether enough time has passed since the last look for its misses to count.
 * @returns the nodes that count as down.
 */
export function countMisses(
  misses: Map<string, number>,
  nodes: readonly NodeView[],
  isNewLook: boolean,
): readonly NodeView[] {
  for (const node of nodes) {
    if (isHealthy(node)) misses.delete(node.nodeId);
    else if (isSurelyDown(node)) misses.set(node.nodeId, MISSES_TO_TURN);
    else if (isNewLook) misses.set(node.nodeId, (misses.get(node.nodeId) ?? 0) + 1);
  }
  const known = new Set(nodes.map(({ nodeId }) => nodeId));
  for (const nodeId of misses.keys()) if (!known.has(nodeId)) misses.delete(nodeId);
  return nodes.filter(({ nodeId }) => (misses.get(nodeId) ?? 0) >= MISSES_TO_TURN);
}

export interface HealthFacts {
  readonly spec: KVClusterSpec;
  readonly availability: Availability;
  /** Nodes that count as down. */
  readonly down: readonly NodeView[];
  /** Whether the cluster's first map has been taken by all: before, nothing can be degraded. */
  readonly initialised: boolean;
  /** What stopped the steps, `continue` when nothing did. */
  readonly progress: StepResult;
  /** The backup step's own outcome: it never stops the data path. */
  readonly backupStep: StepResult;
  readonly backup: BackupStatus | undefined;
}

/** The conditions, Ready last: it follows from the others. */
export function findConditions(facts: HealthFacts): readonly Finding[] {
  const available = findAvailable(facts);
  const progressing = findProgressing(facts);
  const degraded = findDegraded(facts);
  return [findReady(available, progressing, degraded), available, progressing, degraded, findBackup(facts)];
}

/** Two copies bear no loss at QUORUM: the status says so, and the Event of becoming available (PROTOCOL 30). */
function findAvailable({ spec, availability }: HealthFacts): Finding {
  const type = 'Available';
  if (availability.status !== 'True' || Math.min(spec.replicas, spec.replicationFactor) !== 2) {
    return { type, ...availability };
  }
  const message = `${availability.message} With two copies, a node that is down or drained pauses QUORUM operations.`;
  return { type, ...availability, message };
}

function findProgressing({ spec, progress }: HealthFacts): Finding {
  const type = 'Progressing';
  if (spec.paused) {
    return { type, status: 'False', reason: 'Paused', message: 'spec.paused is true: nothing is changed.' };
  }
  switch (progress.kind) {
    case 'continue':
      return { type, status: 'False', reason: 'Reconciled', message: 'Everything is as specified.' };
    case 'requeueAfter':
      return { type, status: 'True', reason: progress.reason, message: progress.message };
    case 'blocked':
      return { type, status: 'False', reason: 'Blocked', message: progress.message };
  }
}

function findDegraded({ progress, backupStep, down, initialised }: HealthFacts): Finding {
  const type = 'Degraded';
  if (progress.kind === 'blocked') {
    return { type, status: 'True', reason: progress.reason, message: progress.message };
  }
  const isStarting = progress.kind === 'requeueAfter' && progress.reason === 'Bootstrapping';
  if (initialised && !isStarting && down.length > 0) {
    const each = down.map((node) => `${node.nodeId} (${describe(node)})`).join(', ');
    return { type, status: 'True', reason: 'MemberDown', message: `Not serving or not in sync: ${each}.` };
  }
  if (backupStep.kind === 'blocked') {
    return { type, status: 'True', reason: backupStep.reason, message: backupStep.message };
  }
  return { type, status: 'False', reason: 'AsExpected', message: 'Nothing needs attention.' };
}

/** Why a node counts as down, without anything that changes from one look to the next. */
function describe(node: NodeView): string {
  const state = stateOf(node);
  return state === 'Active' ? 'not in sync' : state.toLowerCase();
}

function findReady(available: Finding, progressing: Finding, degraded: Finding): Finding {
  const type = 'Ready';
  if (degraded.status === 'True') return { ...degraded, type, status: 'False' };
  if (progressing.status === 'True') return { ...progressing, type, status: 'False' };
  if (available.status !== 'True') return { ...available, type, status: 'False' };
  return { type, status: 'True', reason: 'Serving', message: 'The cluster serves with full redundancy.' };
}

function findBackup({ spec, backup, backupStep }: HealthFacts): Finding {
  const type = 'BackupHealthy';
  if (spec.backup === undefined) {
    return { type, status: 'Unknown', reason: 'NoSchedule', message: 'No backups are scheduled.' };
  }
  if (backupStep.kind === 'blocked') {
    return { type, status: 'False', reason: backupStep.reason, message: backupStep.message };
  }
  const succeeded = backup?.lastSuccessTime ?? '';
  const failed = backup?.lastFailureTime ?? '';
  if (failed > succeeded) {
    const message = backup?.lastFailureMessage ?? 'The last backup failed.';
    return { type, status: 'False', reason: 'LastBackupFailed', message };
  }
  if (spec.backup.suspend) {
    return { type, status: 'Unknown', reason: 'Suspended', message: 'spec.backup.suspend is true.' };
  }
  if (succeeded === '') {
    return { type, status: 'Unknown', reason: 'NoBackupYet', message: 'No backup has ended yet.' };
  }
  return { type, status: 'True', reason: 'LastBackupSucceeded', message: 'The last backup was completed.' };
}

/** The findings as conditions: the time of the last transition stays while the status stays. */
export function asConditions(
  findings: readonly Finding[],
  before: readonly Condition[],
  { generation, now }: { readonly generation: number; readonly now: string },
): readonly Condition[] {
  return findings.map((finding) => {
    const standing = before.find(({ type }) => type === finding.type);
    const lastTransitionTime = standing?.status === finding.status ? standing.lastTransitionTime : now;
    return { ...finding, observedGeneration: generation, lastTransitionTime };
  });
}

/** A transition worth an Event. */
export interface Transition {
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly message: string;
}

/** What is good news of a condition. */
const goodStatus: Readonly<Partial<Record<ConditionType, Condition['status']>>> = {
  Available: 'True',
  Progressing: 'False',
  Degraded: 'False',
  BackupHealthy: 'True',
};

/** One Event for each condition whose status changed; none for Ready, which only sums up the others. */
export function transitionsOf(
  before: readonly Condition[],
  after: readonly Condition[],
): readonly Transition[] {
  return after.flatMap(({ type, status, reason, message }) => {
    const standing = before.find((condition) => condition.type === type);
    const good = goodStatus[type];
    if (good === undefined || standing?.status === status) return [];
    // That a new cluster does not serve yet is no news.
    if (standing === undefined && (status === 'Unknown' || status === good || type === 'Available'))
      return [];
    const isNormal = status === good || type === 'Progressing';
    return [{ type: isNormal ? 'Normal' : 'Warning', reason, message } as const];
  });
}
