import type { CellResult, Summary } from './cells/measure.ts';

/** A figure that is no cell: a size, a time, a share. */
export interface Figure {
  readonly id: string;
  readonly title: string;
  readonly value: number;
  readonly unit: string;
}

/** One size of the growth series. */
export interface GrowthPoint {
  readonly system: string;
  readonly keys: number;
  readonly fillSeconds: number;
  readonly putP99Ms: number;
  readonly getP99Ms: number;
  readonly diskBytes: number;
  readonly memoryBytes: number;
  /** From the start of the process until it is ready, seconds; undefined where it was not measured. */
  readonly startSeconds: number | undefined;
}

/** Everything that a run has measured so far, and what it had to leave out. */
export class Results {
  readonly cells: CellResult[] = [];
  readonly figures: Figure[] = [];
  readonly growth: GrowthPoint[] = [];
  readonly skipped: string[] = [];
  private readonly log: (line: string) => void;

  constructor(log: (line: string) => void) {
    this.log = log;
  }

  addCell(result: CellResult): void {
    this.cells.push(result);
    const parts = result.summaries.map(
      ({ contender, opsPerSecond, p50Ms, p99Ms, errors, misses }) =>
        `${contender} ${Math.round(opsPerSecond)}/s (${p50Ms.toFixed(2)} / ${p99Ms.toFixed(1)} ms)` +
        (errors + misses > 0 ? ` ${errors} ERRORS, ${misses} misses` : ''),
    );
    this.log(`${result.title}: ${parts.join('; ')}`);
  }

  addFigure(figure: Figure): void {
    this.figures.push(figure);
    this.log(`${figure.title}: ${figure.value.toPrecision(3)} ${figure.unit}`);
  }

  skip(what: string, howToGet: string): void {
    this.skipped.push(`${what}: ${howToGet}`);
    this.log(`skipped: ${what}: ${howToGet}`);
  }

  /** What a contender did in a cell; undefined when it was not measured. */
  summary(cell: string, contender: string): Summary | undefined {
    return this.cells.find(({ id }) => id === cell)?.summaries.find((each) => each.contender === contender);
  }
}
