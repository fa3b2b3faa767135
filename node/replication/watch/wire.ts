import { KvError } from '../../../common/errors.ts';
import {
  type PeerHeader,
  type WatchChunk,
  type WatchPartitionsRequest,
  WatchPartitionsRequest_Start as Start,
} from '../../../proto/gen/peer.ts';
import { decodeRecord } from '../../storage/record.ts';
import { badKey, badKeyBound, badNumber, MAX_UINT48 } from '../field-bounds.ts';
import { decodeMarks, encodeMarks, type Marks } from './marks.ts';
import type { PartitionWatchRequest, WatchPiece, WatchStart } from './partition-watch.ts';

/** What Peer/WatchPartitions carries. */

export function encodeRequest(
  header: PeerHeader,
  { prefix, start, marks }: PartitionWatchRequest,
  partitions: number,
): WatchPartitionsRequest {
  const place = start.kind === 'log' ? start : { incarnation: 0, sequence: 0 };
  return {
    header,
    prefix,
    start: START[start.kind],
    incarnation: place.incarnation,
    sequence: place.sequence,
    marks: encodeMarks(marks, partitions),
  };
}

const START: Readonly<Record<WatchStart['kind'], Start>> = {
  now: Start.NOW,
  log: Start.LOG,
  state: Start.STATE,
};

/** @throws KvError INVALID_ARGUMENT when no sound peer sends it. */
export function decodeRequest(request: WatchPartitionsRequest, partitions: number): PartitionWatchRequest {
  const problem =
    badKeyBound('prefix', request.prefix) ??
    badNumber('incarnation', request.incarnation, 0) ??
    badNumber('sequence', request.sequence, 0);
  if (problem !== undefined) throw new KvError('INVALID_ARGUMENT', problem);
  const marks = decodeMarks(request.marks, partitions);
  return { prefix: request.prefix, start: decodeStart(request), marks };
}

function decodeStart({ start, incarnation, sequence }: WatchPartitionsRequest): WatchStart {
  if (start === Start.NOW) return { kind: 'now' };
  if (start === Start.LOG) return { kind: 'log', incarnation, sequence };
  if (start === Start.STATE) return { kind: 'state' };
  throw new KvError('INVALID_ARGUMENT', `start ${start} is not known to this version`);
}

export function encodePiece(
  { incarnation, sequence, records, marks }: WatchPiece,
  partitions: number,
): WatchChunk {
  return {
    incarnation,
    sequence,
    records: records.map(({ key, record }) => ({ key, record: record.bytes })),
    marks: encodeMarks(marks, partitions),
  };
}

/**
 * @param asked the marks of the partitions that were asked for: others do not count.
 * @throws KvError when no sound peer sends it, DATA_LOSS when a record is damaged.
 */
export function decodePiece(chunk: WatchChunk, asked: Marks, partitions: number): WatchPiece {
  const { incarnation, sequence, records, marks } = chunk;
  if (incarnation > MAX_UINT48 || (sequence ?? 0) > MAX_UINT48) {
    throw new KvError('INVALID_ARGUMENT', 'the place in a log is out of bounds');
  }
  const risen = decodeMarks(marks, partitions);
  for (const partition of risen.keys()) if (!asked.has(partition)) risen.delete(partition);
  return {
    incarnation,
    sequence,
    records: records.map(({ key, record }) => {
      const problem = badKey(key);
      if (problem !== undefined) throw new KvError('INVALID_ARGUMENT', problem);
      return { key, record: decodeRecord(key, record) };
    }),
    marks: risen,
  };
}
