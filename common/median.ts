/**
 * The lower median: of an even number the lower one of the two in the middle, so that it is always one of the values and
 * everybody who knows the same values picks the same; undefined of none.
 */
export function lowerMedian(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)];
}
