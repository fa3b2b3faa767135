import { once } from 'node:events';
import type { KvctlContext } from './context.ts';

/** Writes bytes or text to standard output, waiting while the reader is behind. */
export async function write(context: KvctlContext, data: string | Uint8Array): Promise<void> {
  if (!context.stdout.write(data)) await once(context.stdout, 'drain', { signal: context.signal });
}

/** Writes one line. */
export function writeLine(context: KvctlContext, line: string): Promise<void> {
  return write(context, `${line}\n`);
}

/** Writes a value as indented JSON. */
export function writeJson(context: KvctlContext, value: unknown): Promise<void> {
  return writeLine(context, JSON.stringify(value, undefined, 2));
}

/** Writes rows under headings, in columns. */
export function writeTable(
  context: KvctlContext,
  headings: readonly string[],
  rows: readonly (readonly string[])[],
): Promise<void> {
  const lines = [headings, ...rows];
  const widths = headings.map((_heading, column) =>
    Math.max(...lines.map((line) => (line[column] ?? '').length)),
  );
  const text = lines.map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  return write(context, `${text.join('\n')}\n`);
}

/** Bytes for a person: `1.2 MiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const amount = bytes / 1024 ** power;
  return `${power === 0 ? amount : amount.toFixed(1)} ${units[power] ?? 'B'}`;
}

/** A length of time for a person, in the largest unit of which there are two: `75s`, `12m`. */
export function formatDuration(ms: number): string {
  const units = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['m', 60_000],
  ] as const;
  const [unit, unitMs] = units.find(([, size]) => ms >= 2 * size) ?? ['s', 1000];
  return `${Math.floor(ms / unitMs)}${unit}`;
}

/** Bytes in JSON: as text when they are UTF-8, otherwise in base64. */
export function jsonBytes(bytes: Buffer): { readonly text: string } | { readonly base64: string } {
  const text = bytes.toString('utf8');
  return Buffer.from(text, 'utf8').equals(bytes) ? { text } : { base64: bytes.toString('base64') };
}
