import type { DiskSpace } from './disk.ts';
import type { StoreLimits } from './limits.ts';

const MIB = 1024 * 1024;
const LEAST_HEADROOM_BYTES = 24 * MIB;
const MOST_HEADROOM_BYTES = 1024 * MIB;

/** The log takes at most a quarter of its volume, in at least four segments, so that some can always go. */
export function fitted(limits: StoreLimits, { totalBytes }: DiskSpace): StoreLimits {
  const logBytes = Math.min(limits.logBytes, Math.floor(totalBytes / 4));
  return { ...limits, logBytes, segmentBytes: Math.min(limits.segmentBytes, Math.floor(logBytes / 4)) };
}

/**
 * What must stay free on a volume for the store to go on: the state writes new pages before it gives old ones back, and
 * deletes and collection must work when puts are refused.
 */
export function headroomBytes({ totalBytes }: DiskSpace): number {
  const wanted = Math.min(MOST_HEADROOM_BYTES, Math.max(LEAST_HEADROOM_BYTES, totalBytes / 20));
  return Math.floor(Math.min(wanted, totalBytes / 8));
}

/** Size of the reserve (reserve.ts) on a volume. */
export function reserveBytes(limits: Pick<StoreLimits, 'reserveBytes'>, { totalBytes }: DiskSpace): number {
  return Math.floor(Math.min(limits.reserveBytes, totalBytes / 20));
}
