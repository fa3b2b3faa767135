/** Prints a figure for docs/report.md among the results of the tests. */
export function measured(line: string): void {
  console.log(`      measured: ${line}`);
}

/** Seconds between two readings of performance.now(), with one decimal. */
export function secondsBetween(fromMs: number, toMs: number): string {
  return ((toMs - fromMs) / 1000).toFixed(1);
}
