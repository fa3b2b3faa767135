import { SAFETY_RULES, type SafetyRules } from '../../node/replication/safety-rules.ts';
import { STORAGE_RULES, type StorageRules } from '../../node/storage/storage-rules.ts';

/** A rule of PROTOCOL.md that can be broken on purpose, to show that the simulation notices. */
export type PlantedRule = keyof SafetyRules | keyof StorageRules;

export const PLANTED_RULES = [
  ...new Set([...Object.keys(SAFETY_RULES), ...Object.keys(STORAGE_RULES)]),
] as readonly PlantedRule[];

/**
 * What makes up for a rule so well that its absence alone is never seen, and is switched off with it: what an unclean start
 * has lost is given back before a horizon can rise. By itself that one is made up for by comparisons.
 */
export const COMPANIONS: Partial<Record<PlantedRule, PlantedRule>> = {
  freezeAfterUncleanStart: 'returnLostTail',
};

/** All rules but one, and its companion. */
export function rulesWithout(broken: PlantedRule | undefined): {
  safety: SafetyRules;
  storage: StorageRules;
} {
  if (broken === undefined) return { safety: SAFETY_RULES, storage: STORAGE_RULES };
  const companion = COMPANIONS[broken];
  const off = { [broken]: false, ...(companion === undefined ? {} : { [companion]: false }) };
  return { safety: { ...SAFETY_RULES, ...off }, storage: { ...STORAGE_RULES, ...off } };
}

/** A planted bug, and a seed that catches it: CI replays exactly those. */
export interface PlantedBug {
  readonly rule: PlantedRule;
  readonly seed: number;
}

export const PLANTED_BUGS: readonly PlantedBug[] = [
  { rule: 'mintAgainWhenSuperseded', seed: 7 },
  { rule: 'acknowledgeAfterSync', seed: 2 },
  { rule: 'deleteAlwaysWrites', seed: 2 },
  { rule: 'renewAfterRollback', seed: 5 },
  { rule: 'sequencesBehindCeiling', seed: 66 },
  { rule: 'fallenOffAcknowledgedNothing', seed: 11 },
  { rule: 'freezeAfterNewIncarnation', seed: 59 },
  { rule: 'freezeAfterUncleanStart', seed: 338 },
  { rule: 'judgeByHorizon', seed: 2 },
  { rule: 'awaitBarrier', seed: 16 },
  { rule: 'compareWithEnough', seed: 81 },
];
