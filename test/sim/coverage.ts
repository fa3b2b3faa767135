/** Something that must happen in the seeds of a run, or the run proves nothing about it. */
export interface CoverageRow {
  readonly name: string;
  /** What says that it happened: any of these, as counted in a seed (trace.ts). */
  readonly signs: readonly string[];
}

/** Fewer seeds than this say little about what is rare. */
export const FEWEST_SEEDS = 100;

const row = (name: string, ...signs: string[]): CoverageRow => ({ name, signs });
export const COVERAGE: readonly CoverageRow[] = [
  row('SUPERSEDED led to a second mint', 'second_mints'),
  row('a peer fell off the log', 'a stream began beyond a gap'),
  row(
    'a rolled-back volume was detected',
    'log: this volume has lost what it acknowledged or sent; it goes on as a new incarnation',
  ),
  row('a replica was rebuilt', 'log: partitions are filled and readable'),
  row('a comparison brought a record', 'pulled_records', 'pushed_records'),
  row('a tombstone or an expired record was collected', 'collected_records'),
  row('a lost tail was given back', 'returned_entries'),
  row('a full disk stopped a store', 'log: the store has failed'),
  row('a read wrote back', 'repaired_records'),
  row('an outcome was unknown', 'unknown_outcomes'),
  row('too few replicas could be reached', 'unavailable'),
  row('the map changed under load', 'map changed'),
  row('a version beyond the skew bound arrived', 'skewed_versions'),
  row('an operation was sent on', 'forwarded'),
  row('a move wrote to both owners and read from the old (phase 1)', 'barrier phase 1'),
  row('a move wrote to both owners and read from the new (phase 2)', 'barrier phase 2'),
  row('a move was completed', 'a move was completed'),
  row('a move was cancelled', 'a move was cancelled'),
  row('a member joined', 'a member joined'),
  row('a member left', 'a member left'),
  row('a member was marked down', 'marked down'),
  row('a retry found its write by its request id', 'retries_finished'),
  row('a retry was a new write', 'retries_written'),
  row('a clock was so far off that its node refused writes', 'a clock is off'),
];

/** In how many of the seeds each row happened. */
export function coverageOf(
  seenIn: ReadonlyMap<string, number>,
  rows: readonly CoverageRow[] = COVERAGE,
): readonly { readonly row: CoverageRow; readonly seeds: number }[] {
  return rows.map((each) => ({ row: each, seeds: seenIn.get(each.name) ?? 0 }));
}

/** The rows that happened in one seed, by name. */
export function rowsSeen(seen: ReadonlyMap<string, number>): readonly string[] {
  return COVERAGE.filter(({ signs }) => signs.some((sign) => (seen.get(sign) ?? 0) > 0)).map(
    ({ name }) => name,
  );
}
