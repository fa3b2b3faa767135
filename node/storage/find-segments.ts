import type { Segment } from './apply-log.ts';
import type { Disk } from './disk.ts';
import { decodeGroup, entrySeed, groupFollows, readFrame } from './entry.ts';
import {
  decodeSegmentHead,
  SEGMENT_HEAD_BYTES,
  segmentName,
  segmentNumber,
  type SegmentHead,
} from './segment.ts';
import { scanSegment } from './segment-scan.ts';
import { StoreCorrupt } from './store-errors.ts';

/** The segments that count. */
export interface FoundSegments {
  /** Oldest first, without gaps. */
  readonly segments: readonly Segment[];
  /** Whether a crash can have torn the end of the last one. */
  readonly mayBeTorn: boolean;
}

/**
 * Finds the segments of a store. A newest one without a whole group is what a crash left of a write that never counted,
 * and is removed: head and first group are one write, any later group is begun when both are synced.
 *
 * @throws StoreCorrupt when a head is damaged that had been synced.
 */
export async function findSegments(disk: Disk, storeId: Buffer): Promise<FoundSegments> {
  const numbers = await segmentNumbers(disk);
  const segments: Segment[] = [];
  let mayBeTorn = true;
  for (const number of numbers) {
    const headBytes = await disk.read(segmentName(number), { offset: 0, length: SEGMENT_HEAD_BYTES });
    const head = decodeSegmentHead(headBytes, { storeId, number });
    if (number === numbers.at(-1) && (await neverCounted(disk, { number, head, storeId }))) {
      await disk.remove(segmentName(number));
      await disk.syncDir();
      mayBeTorn = false;
      continue;
    }
    if (head === undefined) throw new StoreCorrupt(`log segment ${number} has a damaged head`);
    const { firstSequence, madeAtMs } = head;
    segments.push({ number, firstSequence, madeAtMs, bytes: await disk.size(segmentName(number)) });
  }
  return { segments: await withoutTrimmed(disk, segments), mayBeTorn };
}

async function neverCounted(
  disk: Disk,
  segment: { number: number; head: SegmentHead | undefined; storeId: Buffer },
): Promise<boolean> {
  const bytes = await disk.read(segmentName(segment.number));
  const seed = entrySeed(segment.storeId);
  if (segment.head !== undefined) {
    const frame = readFrame(bytes, SEGMENT_HEAD_BYTES, seed);
    if (frame !== undefined && decodeGroup(bytes, frame) !== undefined) return false;
  }
  return !groupFollows(bytes, SEGMENT_HEAD_BYTES, seed);
}

/** A crash while old segments were dropped may have brought back some of them from before a gap. */
async function withoutTrimmed(disk: Disk, segments: readonly Segment[]): Promise<readonly Segment[]> {
  const gap = segments.findLastIndex(
    ({ number }, index) => index > 0 && number !== (segments[index - 1]?.number ?? 0) + 1,
  );
  if (gap <= 0) return segments;
  for (const { number } of segments.slice(0, gap)) await disk.remove(segmentName(number));
  await disk.syncDir();
  return segments.slice(gap);
}

/**
 * Clears what a crash left of a store that was being created: the log is made before the state, so that a log without
 * a state has never been used.
 *
 * @throws StoreCorrupt when it has been used.
 */
export async function discardUnfinished(disk: Disk): Promise<void> {
  const numbers = await segmentNumbers(disk);
  for (const number of numbers) {
    const bytes = await disk.read(segmentName(number));
    const head = decodeSegmentHead(bytes, { number });
    if (number !== 1 || (head !== undefined && holdsEntries(bytes, head))) {
      throw new StoreCorrupt('there is a log, and its state is missing');
    }
  }
  for (const number of numbers) await disk.remove(segmentName(number));
  if (numbers.length > 0) await disk.syncDir();
}

function holdsEntries(bytes: Buffer, head: SegmentHead): boolean {
  const scan = scanSegment(bytes, {
    number: head.number,
    seed: entrySeed(head.storeId),
    last: true,
    after: Number.MAX_SAFE_INTEGER,
    onEntry: () => undefined,
  });
  return scan.lastSequence !== undefined;
}

async function segmentNumbers(disk: Disk): Promise<number[]> {
  const numbers = (await disk.list()).map(segmentNumber).filter((number) => number !== undefined);
  return numbers.sort((a, b) => a - b);
}
