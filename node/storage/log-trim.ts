import type { StoreLimits } from './limits.ts';

/** What decides which segments can go. */
export interface TrimProgress {
  /** The state holds everything up to this sequence. */
  readonly checkpointed: number;
  /** Every peer holds everything up to this sequence. */
  readonly acknowledged: number;
  /** Wall clock. */
  readonly nowMs: number;
}

interface TrimmableSegment {
  readonly firstSequence: number;
  readonly madeAtMs: number;
  readonly bytes: number;
}

/**
 * How many of the oldest segments can go. Never the newest, and never one that the state does not hold yet; of the
 * others those that every peer has acknowledged and that are old enough, and those beyond the caps, whose loss sends a peer to a comparison.
 */
export function segmentsToDrop(
  segments: readonly TrimmableSegment[],
  progress: TrimProgress,
  caps: Pick<StoreLimits, 'logBytes' | 'logAgeMs' | 'logKeepMs'>,
): number {
  let bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0);
  let count = 0;
  for (const segment of segments) {
    const following = segments[count + 1];
    if (following === undefined) break;
    const last = following.firstSequence - 1;
    if (last > progress.checkpointed) break;
    // Of its newest entry.
    const ageMs = progress.nowMs - following.madeAtMs;
    const isWanted = last > progress.acknowledged || ageMs < caps.logKeepMs;
    if (isWanted && bytes <= caps.logBytes && ageMs <= caps.logAgeMs) break;
    bytes -= segment.bytes;
    count += 1;
  }
  return count;
}
