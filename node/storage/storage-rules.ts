/**
 * Rules of PROTOCOL.md that the simulation switches off, one at a time, to show that it would notice; those of replication
 * are in node/replication/safety-rules.ts. Nothing but tests ever passes anything else than `STORAGE_RULES`.
 */
export interface StorageRules {
  /** 12: after an unclean start sequences go on behind their durable ceiling. */
  readonly sequencesBehindCeiling: boolean;
}

export const STORAGE_RULES: StorageRules = { sequencesBehindCeiling: true };
