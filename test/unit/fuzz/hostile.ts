import { expect } from 'chai';
import fc from 'fast-check';
import { KvError, type ErrorCode } from '../../../common/errors.ts';
import { MAX_COUNTER, MAX_WALL_MS, type Version } from '../../../model/version.ts';

/** Runs of one property: few enough that all of them together take seconds. A failure prints its seed and path. */
export const RUNS = 200;

const MAX_UINT48 = 2 ** 48 - 1;

export function bytes(maxLength: number, minLength = 0): fc.Arbitrary<Buffer> {
  return fc.uint8Array({ minLength, maxLength }).map((array) => Buffer.from(array));
}

export const uint48 = (least = 0): fc.Arbitrary<number> =>
  fc.oneof(
    fc.integer({ min: least, max: least + 1000 }),
    fc.maxSafeNat().map((value) => Math.max(least, value % (MAX_UINT48 + 1))),
    fc.constantFrom(least, MAX_UINT48),
  );

export const keys: fc.Arbitrary<Buffer> = fc.oneof(bytes(20, 1), fc.constant(Buffer.alloc(1024, 'k')));

export const versions: fc.Arbitrary<Version> = fc.record({
  wallMs: uint48().map((value) => Math.min(value, MAX_WALL_MS)),
  counter: fc.integer({ min: 0, max: MAX_COUNTER }),
  writer: uint48(1),
});

/** Damage to an encoding; several may follow each other. */
type Damage =
  | { readonly kind: 'cut'; readonly at: number }
  | { readonly kind: 'flip'; readonly at: number; readonly bit: number }
  | { readonly kind: 'write'; readonly at: number; readonly what: Buffer }
  | { readonly kind: 'insert'; readonly at: number; readonly what: Buffer }
  | { readonly kind: 'remove'; readonly at: number; readonly length: number };

/** Lengths and tags at the ends of their ranges, varints included. */
const extremes = fc.constantFrom(
  ...[
    'ffffffff',
    'ffffffffffffffff',
    '7fffffff',
    '80000000',
    '00000000',
    'ffffffffffffffffff01',
    'ffffffff0f',
  ].map((hex) => Buffer.from(hex, 'hex')),
);
const place = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const damages: fc.Arbitrary<Damage> = fc.oneof(
  fc.record({ kind: fc.constant('cut' as const), at: place }),
  fc.record({ kind: fc.constant('flip' as const), at: place, bit: fc.nat(7) }),
  fc.record({ kind: fc.constant('write' as const), at: place, what: fc.oneof(extremes, bytes(8, 1)) }),
  fc.record({ kind: fc.constant('insert' as const), at: place, what: fc.oneof(extremes, bytes(8, 1)) }),
  fc.record({ kind: fc.constant('remove' as const), at: place, length: fc.integer({ min: 1, max: 8 }) }),
);

/** An encoding after one to three kinds of damage; never equal to the original. */
export function damaged(encodings: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> {
  return fc
    .tuple(encodings, fc.array(damages, { minLength: 1, maxLength: 3 }))
    .map(([original, list]) => ({ original, result: list.reduce(damage, original) }))
    .filter(({ original, result }) => !original.equals(result))
    .map(({ result }) => result);
}

function damage(encoding: Buffer, what: Damage): Buffer {
  const at = Math.floor(what.at * encoding.length);
  const copy = Buffer.from(encoding);
  switch (what.kind) {
    case 'cut':
      return copy.subarray(0, at);
    case 'flip':
      if (at < copy.length) copy[at] = (copy[at] ?? 0) ^ (1 << what.bit);
      return copy;
    case 'write':
      what.what.copy(copy, at);
      return copy;
    case 'insert':
      return Buffer.concat([copy.subarray(0, at), what.what, copy.subarray(at)]);
    case 'remove':
      return Buffer.concat([copy.subarray(0, at), copy.subarray(at + what.length)]);
  }
}

/** Anything at all, the beginnings and ends of numbers more often than chance would have it. */
export const anyBytes: fc.Arbitrary<Buffer> = fc
  .array(fc.oneof(bytes(40), extremes), { maxLength: 8 })
  .map((parts) => Buffer.concat(parts));

/** What a decoder made of something: a value, or one of the errors that it documents. */
export type Outcome<T> = { readonly value: T } | { readonly error: KvError };

/**
 * Runs a decoder.
 *
 * @throws AssertionError when it throws anything but a KvError with one of these codes.
 */
export function attempt<T>(codes: readonly ErrorCode[], decode: () => T): Outcome<T> {
  try {
    return { value: decode() };
  } catch (error) {
    if (error instanceof KvError && codes.includes(error.code)) return { error };
    throw unexpected(error);
  }
}

/** `attempt` for a decoder that is asynchronous. */
export async function attemptLater<T>(
  codes: readonly ErrorCode[],
  decode: () => Promise<T>,
): Promise<Outcome<T>> {
  try {
    return { value: await decode() };
  } catch (error) {
    if (error instanceof KvError && codes.includes(error.code)) return { error };
    throw unexpected(error);
  }
}

function unexpected(error: unknown): Error {
  return new Error(`not an error that is documented: ${String(error)}`, { cause: error });
}

/** Runs the action and fails when it took longer: decoders of hostile input must not be slow either. */
export function within<T>(limitMs: number, action: () => T): T {
  const startedMs = performance.now();
  const result = action();
  expect(performance.now() - startedMs, 'milliseconds').to.be.below(limitMs);
  return result;
}
