import { KvError } from '../../../common/errors.ts';
import { MAX_WALL_MS } from '../../../model/version.ts';
import type { WatchMark } from '../../../proto/gen/peer.ts';
import { PartitionSet } from '../../cluster/partition-set.ts';

/**
 * The low-water mark of each of some partitions, milliseconds of the versions' clock: everything below it has been told,
 * and every replica holds it. 0: not known.
 */
export type Marks = ReadonlyMap<number, number>;

/** Partitions with one mark are named together: usually all of them have the same one. */
export function encodeMarks(marks: Marks, partitions: number): WatchMark[] {
  const sets = new Map<number, PartitionSet>();
  for (const [partition, markMs] of marks) {
    let set = sets.get(markMs);
    if (set === undefined) sets.set(markMs, (set = new PartitionSet(partitions)));
    set.add(partition);
  }
  return [...sets].map(([markMs, set]) => ({ markMs, partitions: withoutTrailingZeros(set.toBytes()) }));
}

/** @throws KvError INVALID_ARGUMENT when a partition does not exist or is named twice, or a mark is no time. */
export function decodeMarks(wire: readonly WatchMark[], partitions: number): Map<number, number> {
  const marks = new Map<number, number>();
  for (const { partitions: bits, markMs } of wire) {
    if (bits.length > Math.ceil(partitions / 8) || markMs > MAX_WALL_MS) throw malformed();
    for (const partition of PartitionSet.fromBytes(bits, partitions)) {
      if (marks.has(partition)) throw malformed();
      marks.set(partition, markMs);
    }
  }
  return marks;
}

/** Infinity when there are none. */
export function lowestMark(marks: Marks): number {
  let lowest = Infinity;
  for (const markMs of marks.values()) lowest = Math.min(lowest, markMs);
  return lowest;
}

function withoutTrailingZeros(bytes: Buffer): Buffer {
  let length = bytes.length;
  while (length > 0 && bytes[length - 1] === 0) length -= 1;
  return bytes.subarray(0, length);
}

function malformed(): KvError {
  return new KvError('INVALID_ARGUMENT', 'the marks of a watch are malformed');
}
