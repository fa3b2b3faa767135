import { messageOf } from '../../common/errors.ts';
import { buildBackupClaim, buildBackupCronJob } from '../resources/backup.ts';
import { objectNames } from '../resources/names.ts';
import { isConflict, isInvalid, isNotFound } from '../runtime/api.ts';
import { ownershipOf } from '../runtime/ownership.ts';
import { pathOf, resources } from '../runtime/resource.ts';
import { assertLeading, blocked, proceed, type StepContext, type StepResult } from './step.ts';

/** Makes the scheduled backups be as they should; without them, removes the schedule and keeps the volume. */
export async function applyBackup(context: StepContext): Promise<StepResult> {
  const { cluster, spec, image, cache, writer, signal } = context;
  const { backup } = spec;
  if (backup === undefined) {
    await removeSchedule(context);
    return proceed;
  }
  const name = objectNames(cluster.name).backup;
  // Made once: a claim cannot be changed, and what is in it outlives the cluster.
  if (cache.get('volumeClaims', cluster.namespace, name) === undefined) {
    await writer.apply('volumeClaims', buildBackupClaim(cluster, backup), signal);
  }
  try {
    await writer.apply('cronJobs', buildBackupCronJob({ cluster, spec, backup, image }), signal);
  } catch (error) {
    if (!isInvalid(error)) throw error;
    return blocked('InvalidSchedule', `The API server refuses CronJob ${name}: ${messageOf(error)}`);
  }
  return proceed;
}

async function removeSchedule(context: StepContext): Promise<void> {
  const { api, cache, cluster, signal } = context;
  const name = objectNames(cluster.name).backup;
  const live = cache.get('cronJobs', cluster.namespace, name);
  if (live === undefined || ownershipOf(live, cluster) !== 'ours') return;
  assertLeading(context);
  const { uid, resourceVersion } = live.metadata;
  try {
    await api.request({
      method: 'DELETE',
      path: pathOf(resources.cronJobs, { namespace: cluster.namespace, name }),
      body: {
        apiVersion: 'v1',
        kind: 'DeleteOptions',
        propagationPolicy: 'Background',
        preconditions: { uid, resourceVersion },
      },
      signal,
    });
  } catch (error) {
    if (!isConflict(error) && !isNotFound(error)) throw error;
  }
  await cache.waitUntil('cronJobs', cluster.namespace, name, (cached) => cached?.metadata.uid !== uid);
}
