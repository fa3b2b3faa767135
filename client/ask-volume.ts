import { messageOf } from '../common/errors.ts';
import type { VolumeAnswer } from '../model/bootstrap.ts';
import type { AdminClient, AdminTarget } from './admin-client.ts';

/**
 * Asks a member what its volume holds, for the decision how the cluster starts. Never throws for a member that cannot
 * be asked: that is an answer too.
 *
 * @throws the signal's reason when it aborts.
 */
export async function askVolume(
  admin: AdminClient,
  target: AdminTarget,
  signal?: AbortSignal,
): Promise<VolumeAnswer> {
  try {
    const { volume } = await admin.status(target, signal);
    // A volume gets its cluster id with the first map; until then it has an incarnation and nothing else.
    if (volume === undefined || volume.clusterId === '') return { kind: 'blank' };
    const map = await admin.getMap(target, signal);
    return { kind: 'holds', clusterId: volume.clusterId, map };
  } catch (error) {
    signal?.throwIfAborted();
    return { kind: 'unreachable', why: messageOf(error) };
  }
}
