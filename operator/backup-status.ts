import { z } from 'zod';
import type { BackupStatus } from '../model/kvcluster-status.ts';
import { BACKUP_CONTAINER } from './resources/backup.ts';
import type { Json } from './runtime/api.ts';
import type { V1Job, V1Pod } from './runtime/kubernetes.ts';

/** What a backup job leaves in its termination message; further fields are ignored. */
const summarySchema = z.object({
  id: z.string().max(253),
  records: z.int().min(0),
  bytes: z.int().min(0),
});
const failureSchema = z.object({ error: z.string() });

const MAX_FAILURE_LENGTH = 512;

/**
 * The backup status with what the jobs that still exist add to it. Times only move forward: a job that was cleaned up
 * has been copied before.
 */
export function backupStatusOf(
  before: BackupStatus | undefined,
  jobs: readonly Json<V1Job>[],
  pods: readonly Json<V1Pod>[],
): BackupStatus | undefined {
  let status: BackupStatus = before ?? {};
  for (const job of jobs) {
    const completed = endOf(job, 'Complete');
    if (completed !== undefined) status = withSuccess(status, completed, job, pods);
    const failed = endOf(job, 'Failed');
    if (failed !== undefined) status = withFailure(status, failed, job, pods);
  }
  return Object.keys(status).length === 0 ? undefined : status;
}

/** When a job came to this end. */
function endOf(job: Json<V1Job>, type: 'Complete' | 'Failed'): string | undefined {
  const condition = job.status?.conditions?.find((entry) => entry.type === type && entry.status === 'True');
  if (condition === undefined) return undefined;
  return (type === 'Complete' ? job.status?.completionTime : undefined) ?? condition.lastTransitionTime;
}

function withSuccess(
  status: BackupStatus,
  time: string,
  job: Json<V1Job>,
  pods: readonly Json<V1Pod>[],
): BackupStatus {
  const summary = summaryOf(job, pods);
  const isNewer = (status.lastSuccessTime ?? '') < time;
  const isSameButUnknown = status.lastSuccessTime === time && status.lastSuccessName === undefined;
  if (!isNewer && !(isSameButUnknown && summary !== undefined)) return status;
  const { lastFailureTime, lastFailureMessage } = status;
  return {
    ...(lastFailureTime === undefined ? {} : { lastFailureTime }),
    ...(lastFailureMessage === undefined ? {} : { lastFailureMessage }),
    lastSuccessTime: time,
    ...(summary === undefined
      ? {}
      : {
          lastSuccessName: summary.id,
          lastSuccessSizeBytes: summary.bytes,
          lastSuccessRecords: summary.records,
        }),
  };
}

function withFailure(
  status: BackupStatus,
  time: string,
  job: Json<V1Job>,
  pods: readonly Json<V1Pod>[],
): BackupStatus {
  if ((status.lastFailureTime ?? '') >= time) return status;
  const last = messagesOf(job, pods).at(-1) ?? '';
  const told = failureSchema.safeParse(jsonOf(last)).data?.error ?? last;
  const reason = job.status?.conditions?.find((entry) => entry.type === 'Failed')?.message;
  const message = [told, reason].filter((part = '') => part !== '').join('; ');
  return {
    ...status,
    lastFailureTime: time,
    lastFailureMessage: `${job.metadata.name}: ${message === '' ? 'failed' : message}`.slice(
      0,
      MAX_FAILURE_LENGTH,
    ),
  };
}

function summaryOf(
  job: Json<V1Job>,
  pods: readonly Json<V1Pod>[],
): z.infer<typeof summarySchema> | undefined {
  for (const message of messagesOf(job, pods)) {
    const parsed = summarySchema.safeParse(jsonOf(message));
    if (parsed.success) return parsed.data;
  }
  return undefined;
}

/** Undefined for what is no JSON: the end of the log of a run that could not write its summary. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Termination messages of a job's pods, oldest first. */
function messagesOf(job: Json<V1Job>, pods: readonly Json<V1Pod>[]): readonly string[] {
  return pods
    .filter((pod) => pod.metadata.ownerReferences?.some(({ uid }) => uid === job.metadata.uid) === true)
    .toSorted((a, b) =>
      (a.metadata.creationTimestamp ?? '') < (b.metadata.creationTimestamp ?? '') ? -1 : 1,
    )
    .flatMap((pod) => {
      const container = pod.status?.containerStatuses?.find(({ name }) => name === BACKUP_CONTAINER);
      const message = container?.state?.terminated?.message?.trim();
      return message === undefined || message === '' ? [] : [message];
    });
}
