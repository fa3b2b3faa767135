import type { RecordPosition, RecordsChunk } from '../../proto/gen/peer.ts';
import type { ComparablePeer } from './anti-entropy/comparable-peer.ts';
import type { PeerSession } from './peer-session.ts';

export interface ComparableSessionOptions {
  /** Sequence of the newest own entry. */
  readonly head: () => number;
  /** A peer's record stream of some partitions. */
  readonly pull: (
    peer: string,
    partitions: readonly number[],
    after: RecordPosition | undefined,
    signal: AbortSignal,
  ) => AsyncIterable<RecordsChunk>;
}

/** A running session as comparisons see it. */
export function comparableSession(session: PeerSession, options: ComparableSessionOptions): ComparablePeer {
  const { peer: nodeId, incarnation, remote } = session;
  return {
    nodeId,
    incarnation,
    get mutual() {
      return session.mutual;
    },
    get fellOff() {
      return session.hasGap;
    },
    get lag() {
      const behind = Math.max(0, session.state.head - session.cursor);
      // A peer with a gap acknowledges nothing; that is no lag.
      const ahead = session.acknowledged === 0 ? 0 : Math.max(0, options.head() - session.acknowledged);
      return behind + ahead;
    },
    readableAt: (partition) => session.state.readable.has(partition),
    digests: (request) => remote.digests(request),
    leaves: (request) => remote.leaves(request),
    fetch: (keys) => remote.fetch(keys),
    repair: (records) => remote.repair(records),
    pull: (partitions, after, signal) => options.pull(nodeId, partitions, after, signal),
    promote: (head) => session.promote(head),
  };
}
