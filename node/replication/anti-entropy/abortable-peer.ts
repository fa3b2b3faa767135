import { abortReason } from '../../../common/clock.ts';
import type { ComparablePeer } from './comparable-peer.ts';

/** The same peer; its answers are not waited for any longer than the signal allows. */
export function abortablePeer(peer: ComparablePeer, signal: AbortSignal): ComparablePeer {
  return {
    nodeId: peer.nodeId,
    get incarnation() {
      return peer.incarnation;
    },
    get mutual() {
      return peer.mutual;
    },
    get fellOff() {
      return peer.fellOff;
    },
    get lag() {
      return peer.lag;
    },
    readableAt: (partition) => peer.readableAt(partition),
    digests: (request) => abortable(peer.digests(request), signal),
    leaves: (request) => abortable(peer.leaves(request), signal),
    fetch: (keys) => abortable(peer.fetch(keys), signal),
    repair: (records) => abortable(peer.repair(records), signal),
    pull: (partitions, after) => peer.pull(partitions, after, signal),
    promote: (head) => abortable(peer.promote(head), signal),
  };
}

function abortable<T>(answer: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(abortReason(signal));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    answer.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
