import { cpuSeconds } from '../systems/server-process.ts';
import type { Measurement, Work } from '../load/work.ts';

/** A system together with who puts load on it. */
export interface Contender {
  /** As tables and plots call it. */
  readonly name: string;
  /** Process ids of the servers. */
  readonly servers: () => readonly number[];
  readonly run: (work: Work) => Promise<Measurement>;
}

/** One question: the same work for several contenders. */
export interface Cell {
  readonly id: string;
  readonly title: string;
  readonly work: Work;
  readonly contenders: readonly Contender[];
  /** When it is not the usual one. */
  readonly pace?: Pace;
}

/** What one contender did in one cell: medians over the rounds. */
export interface Summary extends Measurement {
  readonly contender: string;
  /** Processors that the servers were busy with, out of those of the machine. */
  readonly serverCpus: number;
  /** Operations per second of each round, to judge the noise by. */
  readonly rounds: readonly number[];
}

export interface CellResult {
  readonly id: string;
  readonly title: string;
  readonly work: Work;
  readonly summaries: readonly Summary[];
}

export interface Pace {
  readonly rounds: number;
  readonly durationMs: number;
}

/** Measures cells one after the other. */
export async function runCells(
  { results, pace }: { results: { addCell(result: CellResult): void }; pace: Pace },
  cells: readonly Cell[],
): Promise<void> {
  for (const cell of cells) results.addCell(await measure(cell, cell.pace ?? pace));
}

/**
 * Measures a cell in rounds, the contenders in turn within each: what else the machine does meets all of them alike.
 * The order is reversed from round to round, so that nobody always comes after the same one.
 */
export async function measure(cell: Cell, pace: Pace): Promise<CellResult> {
  const work = { ...cell.work, durationMs: pace.durationMs };
  const taken = new Map<Contender, { measurement: Measurement; serverCpus: number }[]>(
    cell.contenders.map((contender) => [contender, []]),
  );
  for (let round = 0; round < pace.rounds; round += 1) {
    const order = round % 2 === 0 ? cell.contenders : cell.contenders.toReversed();
    for (const contender of order) taken.get(contender)?.push(await timed(contender, work));
  }
  const summaries = [...taken].map(([{ name }, rounds]) => summarize(name, rounds));
  return { id: cell.id, title: cell.title, work, summaries };
}

async function timed(
  contender: Contender,
  work: Work,
): Promise<{ measurement: Measurement; serverCpus: number }> {
  const cpuBefore = total(contender.servers());
  const startMs = performance.now();
  const measurement = await contender.run(work);
  const seconds = (performance.now() - startMs) / 1000;
  return { measurement, serverCpus: (total(contender.servers()) - cpuBefore) / seconds };
}

function total(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
}

function summarize(
  contender: string,
  taken: readonly { measurement: Measurement; serverCpus: number }[],
): Summary {
  const rounds = taken.map(({ measurement }) => measurement);
  const middle = (of: (measurement: Measurement) => number): number => median(rounds.map(of));
  const pauses = rounds.flatMap(({ longestPauseMs }) => longestPauseMs ?? []);
  return {
    contender,
    operations: rounds.reduce((sum, { operations }) => sum + operations, 0),
    opsPerSecond: middle((each) => each.opsPerSecond),
    p50Ms: middle((each) => each.p50Ms),
    p90Ms: middle((each) => each.p90Ms),
    p99Ms: middle((each) => each.p99Ms),
    p999Ms: middle((each) => each.p999Ms),
    maxMs: Math.max(...rounds.map(({ maxMs }) => maxMs)),
    errors: rounds.reduce((sum, { errors }) => sum + errors, 0),
    firstError: rounds.find(({ firstError }) => firstError !== undefined)?.firstError,
    misses: rounds.reduce((sum, { misses }) => sum + misses, 0),
    longestPauseMs: pauses.length === 0 ? undefined : Math.max(...pauses),
    serverCpus: median(taken.map(({ serverCpus }) => serverCpus)),
    rounds: rounds.map(({ opsPerSecond }) => opsPerSecond),
  };
}

/** Of an even number, the mean of the two in the middle; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? NaN)) / 2;
}
