import { KvError } from '../../common/errors.ts';
import type { PullRecordsRequest } from '../../proto/gen/peer.ts';
import { problemWithHeader } from '../replication/frame-validation.ts';
import { MAX_KEY_BYTES } from './kv-requests.ts';

/**
 * Checks which records are asked for. A partition that is not there must be refused and not left out: whoever asks for it
 * counts partitions otherwise, and would take the end of the stream for having seen everything.
 *
 * @throws KvError INVALID_ARGUMENT.
 */
export function checkRecordsRequest(
  { after, partitions }: Pick<PullRecordsRequest, 'after' | 'partitions'>,
  count: number,
): void {
  for (const partition of after === undefined ? partitions : [...partitions, after.partition]) {
    if (partition >= count) throw invalid(`there is no partition ${partition}: this cluster has ${count}`);
  }
  if (partitions.length > count) {
    throw invalid(`${partitions.length} partitions are asked for, and there are ${count}`);
  }
  if (after !== undefined && after.key.length > MAX_KEY_BYTES) {
    throw invalid(`after.key has ${after.key.length} bytes, and keys have at most ${MAX_KEY_BYTES}`);
  }
}

/**
 * Checks what a peer, in contrast to an administrator, adds to that: who it is, and whom it means.
 *
 * @throws KvError INVALID_ARGUMENT.
 */
export function checkPeerHeader({ header }: Pick<PullRecordsRequest, 'header'>): void {
  if (header === undefined) throw invalid('the header is missing');
  const problem = problemWithHeader(header);
  if (problem !== undefined) throw invalid(`bad header: ${problem}`);
}

function invalid(message: string): KvError {
  return new KvError('INVALID_ARGUMENT', message);
}
