/** Something that must happen in the seeds of a run, or the run proves nothing about it. */
export interface CoverageRow {
  readonly name: string;
  /** What says that it happened: any of these, as counted in a seed (trace.ts). */
  readonly signs: readonly string[];
  /** In what share of the seeds it must happen; 0: in one of them. */
  readonly least: number;
}

/** Fewer seeds than this say little about what is rare. */
export const FEWEST_SEEDS = 100;

/** What the rules are about happens in this share of the seeds at least. */
const OFTEN = 0.05;
const often = (name: string, ...signs: string[]): CoverageRow => ({ name, signs, least: OFTEN });
const row = (name: string, ...signs: string[]): CoverageRow => ({ name, signs, least: 0 });

export const COVERAGE: readonly CoverageRow[] = [
  often('SUPERSEDED led to a second mint', 'second_mints'),
  often('a peer fell off the log', 'a readable replica that had acknowledged entries fell off the log'),
  often(
    'a rolled-back volume was detected',
    'log: this volume has lost what it acknowledged or sent; it goes on as a new incarnation',
  ),
  often('a replica was rebuilt', 'log: partitions are filled and readable'),
  often('a move wrote to both owners and read from the old (phase 1)', 'barrier phase 1'),
  often('a move wrote to both owners and read from the new (phase 2)', 'barrier phase 2'),
  often('a move left the new owners alone (phase 3)', 'a move was completed'),
  often('old copies were dropped', 'log: partitions were removed'),
  often(
    'a larger horizon was taken over from a peer',
    'log: a larger horizon is taken over from another replica',
  ),
  often('a retry found its write by its request id', 'retries_finished'),
  often('a retry was a new write', 'retries_written'),
  row('a comparison brought a record', 'pulled_records', 'pushed_records'),
  row('a tombstone or an expired record was collected', 'collected_records'),
  row('a record that others had collected was refused or removed', 'refused_records', 'removed_ghosts'),
  row('a lost tail was given back', 'returned_entries'),
  row('a full disk stopped a store', 'log: the store has failed'),
  row('a read wrote back', 'repaired_records'),
  row('an outcome was unknown', 'unknown_outcomes'),
  row('too few replicas could be reached', 'unavailable'),
  row('the map changed under load', 'map changed'),
  row('a version beyond the skew bound arrived', 'skewed_versions'),
  row('an operation was sent on', 'forwarded'),
  row('a move was cancelled', 'a move was cancelled'),
  row('a member joined', 'a member joined'),
  row('a member left', 'a member left'),
  row('a member was marked down', 'marked down'),
  row('a clock was so far off that its node refused writes', 'a clock is off'),
];

/** A row, and in how many seeds it happened. */
export interface Seen {
  readonly row: CoverageRow;
  readonly seeds: number;
}

/** The rows that did not happen often enough in so many seeds. */
export function missing(seenIn: ReadonlyMap<string, number>, seeds: number): readonly Seen[] {
  return COVERAGE.map((each) => ({ row: each, seeds: seenIn.get(each.name) ?? 0 })).filter(
    ({ row: { least }, seeds: happened }) => happened === 0 || happened < least * seeds,
  );
}

/** The rows that happened in one seed, by name. */
export function rowsSeen(seen: ReadonlyMap<string, number>): readonly string[] {
  return COVERAGE.filter(({ signs }) => signs.some((sign) => (seen.get(sign) ?? 0) > 0)).map(
    ({ name }) => name,
  );
}
