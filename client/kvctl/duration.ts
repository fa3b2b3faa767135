const factorsMs: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Reads `500ms`, `30s`, `1h30m`, `7d` as milliseconds; undefined when the text is no such duration. */
export function parseDurationMs(text: string): number | undefined {
  const parts = text.match(/\d+(?:\.\d+)?(?:ms|[smhd])/g);
  if (parts?.join('') !== text) return undefined;
  const totalMs = parts
    .map((part) => /^([\d.]+)(.*)$/.exec(part) ?? [])
    .reduce((sum, [, amount = '', unit = '']) => sum + Number(amount) * (factorsMs[unit] ?? Number.NaN), 0);
  return Number.isSafeInteger(Math.round(totalMs)) ? Math.round(totalMs) : undefined;
}
