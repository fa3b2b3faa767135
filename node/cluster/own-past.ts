import type { Cursor } from '../../proto/gen/peer.ts';

/** What this node knows of itself when it judges its own past. */
export interface OwnVolume {
  readonly bootCounter: number;
  /** Newest own entry found at start. */
  readonly recoveredHead: number;
  /** No sequence above this one has been used. */
  readonly sequenceCeiling: number;
  /** How far this node has durably applied the peer's log. */
  readonly appliedOfPeer: number;
}

/** What a peer remembers of this node. */
export interface RememberedByPeer {
  /** The peer's cursor on the log of this incarnation. */
  readonly cursor: Cursor | undefined;
  /** How far, by the peer's durable copy, this incarnation has acknowledged the peer's log. */
  readonly acknowledged: number;
  /** Whether another incarnation has taken the place of this one since. */
  readonly isReplaced: boolean;
}

/**
 * - `intact`: nothing that this node ever acknowledged is missing.
 * - `tail-lost`: entries that were sent before their own sync did not survive; the peer still has them and gives them back.
 * - `replaced`: another volume, or a later state of this one, has gone on under a new incarnation.
 * - `rolled-back`: the volume is older than what this node has acknowledged.
 * - `unclear`: one of the last two, and the peer can no longer tell or help.
 */
export type OwnPast = 'intact' | 'tail-lost' | 'replaced' | LostPast;
/** After these a node goes on under a new incarnation. */
export type LostPast = 'rolled-back' | 'unclear';

/** Judges from what a peer remembers whether this volume still holds what this node acknowledged (PROTOCOL 13, 28). */
export function judgeOwnPast(own: OwnVolume, remembered: RememberedByPeer): OwnPast {
  if (remembered.isReplaced) return 'replaced';
  if (remembered.acknowledged > own.appliedOfPeer) return 'rolled-back';
  const cursor = remembered.cursor;
  if (cursor === undefined) return 'intact';
  if (cursor.bootCounter > own.bootCounter || cursor.sequence > own.sequenceCeiling) return 'rolled-back';
  const fromThisStart = cursor.bootCounter === own.bootCounter;
  if (fromThisStart || cursor.sequence <= own.recoveredHead) return 'intact';
  if (cursor.durableHead > own.recoveredHead) return 'rolled-back';
  return cursor.tailAfter <= own.recoveredHead ? 'tail-lost' : 'unclear';
}
