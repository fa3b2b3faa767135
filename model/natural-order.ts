/** Orders names as people do: runs of digits by their number, so that `kv-10` comes after `kv-9`. */
export function compareNatural(a: string, b: string): number {
  const left = runsOf(a);
  const right = runsOf(b);
  for (let index = 0; index < Math.min(left.length, right.length); index += 1) {
    const order = compareRuns(left[index] ?? '', right[index] ?? '');
    if (order !== 0) return order;
  }
  return left.length - right.length || compareText(a, b);
}

function runsOf(text: string): string[] {
  return text.match(/\d+|\D+/g) ?? [];
}

function compareRuns(a: string, b: string): number {
  const numeric = /^\d/.test(a) && /^\d/.test(b);
  return numeric ? Number(a) - Number(b) : compareText(a, b);
}

function compareText(a: string, b: string): number {
  return a === b ? 0 : a < b ? -1 : 1;
}
