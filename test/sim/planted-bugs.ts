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
  { rule: 'deleteAlwaysWrites', seed: 369 },
  { rule: 'renewAfterRollback', seed: 406 },
  { rule: 'sequencesBehindCeiling', seed: 385 },
  { rule: 'fallenOffAcknowledgedNothing', seed: 455 },
  { rule: 'freezeAfterNewIncarnation', seed: 261 },
  { rule: 'judgeByHorizon', seed: 475 },
  { rule: 'awaitBarrier', seed: 465 },
  { rule: 'compareWithEnough', seed: 240 },
];

/** A rule whose absence no seed has shown yet: another mechanism makes up for it. */
export interface MaskedRule {
  readonly rule: PlantedRule;
  /** What makes up for it, and which test shows what the rule is for. */
  readonly by: string;
}

/** To become empty: 500 seeds of each version of the code are looked at for them. */
export const MASKED_RULES: readonly MaskedRule[] = [
  {
    rule: 'freezeAfterUncleanStart',
    by:
      'peers give back what was lost in an unclean start, before a horizon can rise; in the model of collection ' +
      '(test/unit/replication/horizon/model.test.ts) nobody does, and it fails without the rule',
  },
];
