import { SAFETY_RULES, type SafetyRules } from '../../node/replication/safety-rules.ts';
import { STORAGE_RULES, type StorageRules } from '../../node/storage/storage-rules.ts';

/** A rule of PROTOCOL.md that can be broken on purpose, to show that the simulation notices. */
export type PlantedRule = keyof SafetyRules | keyof StorageRules;

export const PLANTED_RULES = [
  ...new Set([...Object.keys(SAFETY_RULES), ...Object.keys(STORAGE_RULES)]),
] as readonly PlantedRule[];

/** All rules but one. */
export function rulesWithout(broken: PlantedRule | undefined): {
  safety: SafetyRules;
  storage: StorageRules;
} {
  if (broken === undefined) return { safety: SAFETY_RULES, storage: STORAGE_RULES };
  return {
    safety: broken in SAFETY_RULES ? { ...SAFETY_RULES, [broken]: false } : SAFETY_RULES,
    storage: broken in STORAGE_RULES ? { ...STORAGE_RULES, [broken]: false } : STORAGE_RULES,
  };
}

/** A planted bug, and a seed that catches it: CI replays exactly those. */
export interface PlantedBug {
  readonly rule: PlantedRule;
  readonly seed: number;
}

export const PLANTED_BUGS: readonly PlantedBug[] = [
  { rule: 'mintAgainWhenSuperseded', seed: 23 },
  { rule: 'acknowledgeAfterSync', seed: 33 },
  { rule: 'deleteAlwaysWrites', seed: 13 },
  { rule: 'renewAfterRollback', seed: 440 },
  { rule: 'sequencesBehindCeiling', seed: 385 },
  { rule: 'fallenOffAcknowledgedNothing', seed: 455 },
  { rule: 'freezeAfterNewIncarnation', seed: 261 },
  { rule: 'freezeAfterUncleanStart', seed: 252 },
  { rule: 'judgeByHorizon', seed: 48 },
  { rule: 'awaitBarrier', seed: 256 },
  { rule: 'compareWithEnough', seed: 27 },
];
