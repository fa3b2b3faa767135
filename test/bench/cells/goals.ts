import { CONTENDERS, IN_FLIGHT_OF_GOALS } from '../bench.ts';
import type { Results } from '../results.ts';
import type { Summary } from './measure.ts';

/** A row of the goal table. */
export interface Goal {
  readonly title: string;
  /** What the value must be, in words. */
  readonly wanted: string;
  /** A ratio or a figure; undefined when it was not measured. */
  readonly value: number | undefined;
  readonly unit: string;
  readonly isReached: boolean | undefined;
  /** What the value was made of. */
  readonly made: string;
}

/** What the Python program that this one descends from did on the same kind of machine, 50 in flight; not measured here. */
const SEED = { put: 926, get: 1815 } as const;

export function goalsOf(results: Results): readonly Goal[] {
  return [
    ...pairs([1, 1.1], [100, 2], [1000, 3]).map(([inFlight, target]) =>
      againstEtcd(
        results,
        `put-3-${inFlight}`,
        target,
        `3 nodes, durable put at QUORUM, our client, ${inFlight} in flight`,
      ),
    ),
    ...pairs([100, 2], [1000, 2]).map(([inFlight, target]) =>
      againstEtcd(
        results,
        `put-1-${inFlight}`,
        target,
        `1 node, durable put, our client, ${inFlight} in flight`,
      ),
    ),
    ...pairs([1, 1.1], [100, 5], [1000, 6]).map(([inFlight, target]) =>
      againstEtcd(
        results,
        `get-one-3-${inFlight}`,
        target,
        `3 nodes, get at ONE, our client, ${inFlight} in flight`,
      ),
    ),
    ...pairs([100, 2], [1000, 3]).map(([inFlight, target]) =>
      againstEtcd(
        results,
        `get-quorum-3-${inFlight}`,
        target,
        `3 nodes, get at QUORUM, our client, ${inFlight} in flight`,
      ),
    ),
    ...(['put', 'get'] as const).flatMap((operation) =>
      IN_FLIGHT_OF_GOALS.map((inFlight) =>
        againstEtcd(
          results,
          `unary-${operation}-3-${inFlight}`,
          1,
          `3 nodes, unary ${operation} by ghz, ${inFlight} in flight`,
        ),
      ),
    ),
    ...IN_FLIGHT_OF_GOALS.flatMap((inFlight) => [
      againstEcho(results, inFlight, 'Get', CONTENDERS.kv1Get, 0.9),
      againstEcho(results, inFlight, 'Put', CONTENDERS.kv1Put, 0.75),
    ]),
    againstSeed(results, 'Put', CONTENDERS.kv1Put, SEED.put, 10),
    againstSeed(results, 'Get', CONTENDERS.kv1Get, SEED.get, 8),
    atMost(results, 'growth-put', 1.5, 'put p99 with 1,000,000 keys against 10,000'),
    atMost(results, 'growth-get', 1.5, 'get p99 with 1,000,000 keys against 10,000'),
    atMost(results, 'idle-memory', 120, 'resident memory of an idle node, without mapped pages'),
    atMost(results, 'operator-memory', 120, 'resident memory of the operator, without mapped pages'),
    atMost(results, 'start-large', 2, 'start of a node with 1,000,000 keys until ready'),
    atMost(results, 'rejoin', 3, 'rejoin after 10,000 missed writes until in sync'),
    atLeast(results, 'rebuild-rate', 50_000, 'rebuild of an empty replica'),
  ];
}

const pairs = (...rows: (readonly [number, number])[]): readonly (readonly [number, number])[] => rows;

/** The faster of etcd's clients counts: what was slow was then not its client. */
function againstEtcd(results: Results, cell: string, target: number, title: string): Goal {
  const summaries = results.cells.find(({ id }) => id === cell)?.summaries ?? [];
  const ours = summaries.find(({ contender }) => contender.startsWith('KVCluster'));
  const [theirs] = summaries
    .filter(({ contender }) => contender.startsWith('etcd'))
    .toSorted((a, b) => b.opsPerSecond - a.opsPerSecond);
  return ratioGoal({ title, target, against: theirs?.contender ?? 'etcd' }, ours, theirs?.opsPerSecond);
}

function againstEcho(
  results: Results,
  inFlight: number,
  method: string,
  contender: string,
  target: number,
): Goal {
  const cell = `unary-1-${inFlight}`;
  return ratioGoal(
    { title: `1 node, unary ${method} by ghz, ${inFlight} in flight`, target, against: CONTENDERS.echoGhz },
    results.summary(cell, contender),
    results.summary(cell, CONTENDERS.echoGhz)?.opsPerSecond,
  );
}

function againstSeed(
  results: Results,
  method: string,
  contender: string,
  recorded: number,
  target: number,
): Goal {
  const title = `1 node, unary ${method} by ghz, 50 in flight`;
  const against = `the first program's recorded ${recorded}`;
  return ratioGoal({ title, target, against }, results.summary('unary-1-50', contender), recorded);
}

function ratioGoal(
  { title, target, against }: { title: string; target: number; against: string },
  ours: Summary | undefined,
  theirs: number | undefined,
): Goal {
  const wanted = `>= ${target}x ${against}`;
  if (ours === undefined || theirs === undefined)
    return { title, wanted, value: undefined, unit: 'x', isReached: undefined, made: '' };
  const value = ours.opsPerSecond / theirs;
  const made = `${Math.round(ours.opsPerSecond)}/s against ${Math.round(theirs)}/s`;
  // Fast answers that are wrong reach nothing.
  const failures = ours.errors + ours.misses;
  const isReached = value >= target && failures === 0;
  return {
    title,
    wanted,
    value,
    unit: 'x',
    isReached,
    made: failures === 0 ? made : `${made}, ${failures} failed`,
  };
}

function atMost(results: Results, id: string, limit: number, title: string): Goal {
  return figureGoal(results, id, title, `<= ${limit}`, (value) => value <= limit);
}

function atLeast(results: Results, id: string, limit: number, title: string): Goal {
  return figureGoal(results, id, title, `>= ${limit}`, (value) => value >= limit);
}

function figureGoal(
  { figures }: Results,
  id: string,
  title: string,
  limit: string,
  holds: (value: number) => boolean,
): Goal {
  const figure = figures.find((each) => each.id === id);
  const unit = figure?.unit ?? '';
  const isReached = figure === undefined ? undefined : holds(figure.value);
  return {
    title,
    wanted: `${limit} ${unit}`.trim(),
    value: figure?.value,
    unit,
    isReached,
    made: figure?.title ?? '',
  };
}
