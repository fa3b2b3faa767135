import type { Backoff } from '../../common/backoff.ts';
import type { Timer } from '../../common/clock.ts';
import type { PeerLink } from './peer-link.ts';
import type { PeerSession } from './peer-session.ts';
import type { PeerAddress } from './transport.ts';
import type { UnsyncedTail } from './unsynced-tail.ts';

/** One candidate or member, over all its streams. */
export interface PeerEntry {
  readonly nodeId: string;
  readonly backoff: Backoff;
  readonly tail: UnsyncedTail;
  readonly displacement: Displacement;
  address: PeerAddress | undefined;
  /** The stream this node has opened and not yet finished the handshake on. */
  dialing: PeerLink | undefined;
  session: PeerSession | undefined;
  retry: Timer | undefined;
  /** Since when there is no session, by the monotonic clock. */
  aloneSinceMs: number;
}

/** How many failure detections another process may hold this node's place before this one gives up. */
const PATIENCE = 5;

/**
 * Tells a predecessor that is dead, and whose place its peers free soon, from a second process with the same identity
 * that lives on.
 */
export class Displacement {
  private readonly detectionMs: number;
  private sinceMs = 0;
  private lastMs = -Infinity;

  constructor(detectionMs: number) {
    this.detectionMs = detectionMs;
  }

  /** A peer said that another process has this node's place; true when it has said so for too long. */
  told(nowMs: number): boolean {
    if (nowMs - this.lastMs > 2 * this.detectionMs) this.sinceMs = nowMs;
    this.lastMs = nowMs;
    return nowMs - this.sinceMs > PATIENCE * this.detectionMs;
  }

  /** The peer has taken this process. */
  reset(): void {
    this.lastMs = -Infinity;
  }
}
