import { partitionOf } from '../../model/key-hash.ts';
import { liveRecord, tombstoneRecord } from '../../node/storage/record.ts';
import type { StoredRecord } from '../../node/storage/store.ts';

/**
 * What the store under test is written with: the record of a key is a function of the number it was written with, so that
 * whoever reads one knows whether it is right. Numbers rise over all lives of the store.
 */
export const MOST_KEYS = 1500;
export const PARTITIONS = 8;
/** Numbers of one life are above this times the life. */
export const NUMBERS_OF_LIFE = 10_000_000;
const WRITER = 7;
const LARGEST_BYTES = 40_000;

const keys = Array.from({ length: MOST_KEYS }, (_, index) =>
  Buffer.from(`soak/${'k'.repeat(index % 40)}/${index}`),
);
const partitions = keys.map((key) => partitionOf(key, PARTITIONS));

export function keyAt(index: number): Buffer {
  const key = keys[index];
  if (key === undefined) throw new RangeError(`there is no key ${index}`);
  return key;
}

/** Of a key. */
export function partitionAt(index: number): number {
  return partitions[index] ?? 0;
}

/** The key's place among all keys; undefined for one that nobody writes. */
export function indexOf(key: Buffer): number | undefined {
  const index = Number(key.toString('latin1').split('/').at(-1));
  return keys[index]?.equals(key) === true ? index : undefined;
}

export function recordAt(index: number, number: number): StoredRecord {
  const key = keyAt(index);
  const version = { wallMs: number, counter: 0, writer: WRITER };
  if (isTombstone(index, number)) return tombstoneRecord(key, version);
  const dice = mixed(index, number) % 1000;
  // Most are small; some need pages of their own in LMDB.
  const size = dice < 5 ? mixed(number, index) % LARGEST_BYTES : dice % 600;
  return liveRecord(key, Buffer.alloc(size, `${index}:${number};`), version);
}

/** One in eight. */
export function isTombstone(index: number, number: number): boolean {
  return mixed(index + 1, number) % 8 === 0;
}

/** The number that a record was written with, when it is exactly the one that this number makes. */
export function numberOf(index: number, record: StoredRecord): number | undefined {
  const number = record.version.wallMs;
  return recordAt(index, number).bytes.equals(record.bytes) ? number : undefined;
}

function mixed(a: number, b: number): number {
  let mix = Math.imul(a, 0x9e3779b1) ^ Math.imul(b | 0, 0x85ebca6b);
  mix = Math.imul(mix ^ (mix >>> 15), 0x2c1b3c6d);
  return (mix ^ (mix >>> 13)) >>> 0;
}
