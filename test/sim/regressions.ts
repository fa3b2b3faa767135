/** A seed that once showed a defect: it must hold now. */
export interface Regression {
  readonly seed: number;
  /** What it showed. */
  readonly showed: string;
}

/**
 * Seeds that failed. What a seed does changes with the code that runs in it, so a row is worth most while the code is much
 * as it was; what the defect was about has a test of its own besides.
 */
export const REGRESSIONS: readonly Regression[] = [];
