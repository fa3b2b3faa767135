import type { Json } from '../runtime/api.ts';
import type { KVClusterBackup, KVClusterSpec } from '../../model/kvcluster.ts';
import type { V1CronJob, V1PersistentVolumeClaim } from '../runtime/kubernetes.ts';
import { annotations, type ClusterIdentity, labelsOf, objectNames, ownedMetadata } from './names.ts';
import { restrictedContainer, restrictedPod } from './pod-security.ts';
import { claimSpec, SECRET_KEY, SECRET_PATH } from './statefulset.ts';

export const BACKUP_CONTAINER = 'backup';
const BACKUP_PATH = '/backup';
const TERMINATION_MESSAGE_PATH = '/dev/termination-log';
/** A job that has not ended by then is stopped and counts as failed: it must not hold up the next for ever. */
const JOB_DEADLINE_SECONDS = 6 * 3600;
/** A run that could not start for this long is skipped. */
const STARTING_DEADLINE_SECONDS = 600;
/** How long a finished job can be looked at. */
const JOB_TTL_SECONDS = 7 * 24 * 3600;

export interface BackupCronJobOptions {
  readonly cluster: ClusterIdentity;
  readonly spec: KVClusterSpec;
  readonly backup: KVClusterBackup;
  /** The nodes' image: what reads their records is of their version. */
  readonly image: string;
}

/** Scheduled backups: jobs that need no access to the API server and tell their result in the termination message. */
export function buildBackupCronJob({ cluster, spec, backup, image }: BackupCronJobOptions): Json<V1CronJob> {
  const names = objectNames(cluster.name);
  const labels = labelsOf(cluster, 'backup');
  return {
    apiVersion: 'batch/v1',
    kind: 'CronJob',
    metadata: ownedMetadata(cluster, names.backup, 'backup'),
    spec: {
      schedule: backup.schedule,
      ...(backup.timeZone === undefined ? {} : { timeZone: backup.timeZone }),
      suspend: backup.suspend,
      concurrencyPolicy: 'Forbid',
      startingDeadlineSeconds: STARTING_DEADLINE_SECONDS,
      successfulJobsHistoryLimit: 3,
      failedJobsHistoryLimit: 3,
      jobTemplate: {
        metadata: { labels },
        spec: {
          backoffLimit: 2,
          activeDeadlineSeconds: JOB_DEADLINE_SECONDS,
          ttlSecondsAfterFinished: JOB_TTL_SECONDS,
          template: {
            metadata: { labels },
            spec: {
              restartPolicy: 'Never',
              securityContext: restrictedPod,
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              containers: [
                {
                  name: BACKUP_CONTAINER,
                  image,
                  args: [
                    'kvctl',
                    'backup',
                    'create',
                    `--service=${names.headlessService}.${cluster.namespace}`,
                    `--secret-file=${SECRET_PATH}/${SECRET_KEY}`,
                    `--target=${BACKUP_PATH}`,
                    `--summary-file=${TERMINATION_MESSAGE_PATH}`,
                  ],
                  terminationMessagePath: TERMINATION_MESSAGE_PATH,
                  terminationMessagePolicy: 'FallbackToLogsOnError',
                  resources: { requests: { cpu: '100m', memory: '256Mi' } },
                  securityContext: restrictedContainer,
                  volumeMounts: [
                    { name: 'backup', mountPath: BACKUP_PATH },
                    { name: 'internal', mountPath: SECRET_PATH, readOnly: true },
                  ],
                },
              ],
              volumes: [
                { name: 'backup', persistentVolumeClaim: { claimName: names.backup } },
                { name: 'internal', secret: { secretName: names.secret, defaultMode: 0o440 } },
              ],
              ...(spec.scheduling?.nodeSelector === undefined
                ? {}
                : { nodeSelector: spec.scheduling.nodeSelector }),
            },
          },
        },
      },
    },
  };
}

/** The volume of backups. It has no owner: backups outlive the cluster. */
export function buildBackupClaim(
  cluster: ClusterIdentity,
  backup: KVClusterBackup,
): Json<V1PersistentVolumeClaim> {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: {
      name: objectNames(cluster.name).backup,
      namespace: cluster.namespace,
      labels: labelsOf(cluster, 'backup'),
      annotations: { [annotations.cluster]: `${cluster.namespace}/${cluster.name}` },
    },
    spec: claimSpec(backup.storage),
  };
}
