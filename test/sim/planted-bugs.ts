import { SAFETY_RULES, type SafetyRules } from '../../node/replication/safety-rules.ts';

/** A rule of PROTOCOL.md that can be broken on purpose, to show that the simulation notices. */
export type PlantedRule = keyof SafetyRules;

export const PLANTED_RULES = Object.keys(SAFETY_RULES) as readonly PlantedRule[];

/** All rules but one. */
export function rulesWithout(broken: PlantedRule | undefined): SafetyRules {
  return broken === undefined ? SAFETY_RULES : { ...SAFETY_RULES, [broken]: false };
}

/** A planted bug, and a seed that catches it: CI replays exactly those. */
export interface PlantedBug {
  readonly rule: PlantedRule;
  readonly seed: number;
}

export const PLANTED_BUGS: readonly PlantedBug[] = [];
