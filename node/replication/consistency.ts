import { KvError } from '../../common/errors.ts';
import { Consistency as WireConsistency } from '../../proto/gen/kvstore.ts';
import type { Consistency } from './engine.ts';

const CONSISTENCIES = new Map<WireConsistency, Consistency>([
  [WireConsistency.CONSISTENCY_UNSPECIFIED, 'QUORUM'],
  [WireConsistency.ONE, 'ONE'],
  [WireConsistency.QUORUM, 'QUORUM'],
  [WireConsistency.ALL, 'ALL'],
]);

/** @throws KvError INVALID_ARGUMENT for a number that names none. */
export function consistencyOf(wire: WireConsistency): Consistency {
  const consistency = CONSISTENCIES.get(wire);
  if (consistency === undefined) {
    throw new KvError(
      'INVALID_ARGUMENT',
      `consistency ${wire} is unknown: give ONE (1), QUORUM (2, the default) or ALL (3)`,
    );
  }
  return consistency;
}

export function consistencyToProto(consistency: Consistency): WireConsistency {
  return WireConsistency[consistency];
}
