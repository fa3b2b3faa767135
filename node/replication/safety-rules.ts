/**
 * Rules of PROTOCOL.md that the simulation switches off, one at a time, to show that it would notice. Nothing but tests
 * ever passes anything else than `SAFETY_RULES`.
 */
export interface SafetyRules {
  /** 3: a write that a newer version has beaten is minted again, above it. */
  readonly mintAgainWhenSuperseded: boolean;
  /** 4: nothing is acknowledged to a peer before it is synced. */
  readonly acknowledgeAfterSync: boolean;
  /** 5: a delete writes its tombstone whatever the coordinator holds. */
  readonly deleteAlwaysWrites: boolean;
  /** 1, 13: a volume that was rolled back goes on under a new incarnation. */
  readonly renewAfterRollback: boolean;
  /** 15: a peer that fell off the log counts as having acknowledged nothing until it has been compared with. */
  readonly fallenOffAcknowledgedNothing: boolean;
  /** 23: collection waits for comparisons after a new incarnation. */
  readonly freezeAfterNewIncarnation: boolean;
  /** 12: what a node sent before its own sync and lost in an unclean start is given back to it. */
  readonly returnLostTail: boolean;
  /** 23: collection waits for comparisons after an unclean start. */
  readonly freezeAfterUncleanStart: boolean;
  /** 24: a record outside the live log is judged by its sender's horizon. */
  readonly judgeByHorizon: boolean;
  /** 31: what permits the next phase of a move begins after every member has announced the present one. */
  readonly awaitBarrier: boolean;
  /** 32: a replica becomes readable only after comparisons with enough others. */
  readonly compareWithEnough: boolean;
}

export const SAFETY_RULES: SafetyRules = {
  mintAgainWhenSuperseded: true,
  acknowledgeAfterSync: true,
  deleteAlwaysWrites: true,
  renewAfterRollback: true,
  fallenOffAcknowledgedNothing: true,
  freezeAfterNewIncarnation: true,
  returnLostTail: true,
  freezeAfterUncleanStart: true,
  judgeByHorizon: true,
  awaitBarrier: true,
  compareWithEnough: true,
};
