import { keyName } from './work.ts';

/** More keys than these are made anew each time: their memory would slow the load process down. */
const MOST_KEPT = 100_000;

const kept = new Map<string, Buffer[]>();

/** The bytes of a key, made once: a load generator that builds strings measures itself. */
export function keyBuffer(prefix: string, index: number): Buffer {
  if (index >= MOST_KEPT) return Buffer.from(keyName(prefix, index));
  let keys = kept.get(prefix);
  if (keys === undefined) kept.set(prefix, (keys = []));
  return (keys[index] ??= Buffer.from(keyName(prefix, index)));
}
