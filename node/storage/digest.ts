import { crc32 } from 'node:zlib';
import type { Version } from '../../model/version.ts';

/**
 * The digest of a partition (PROTOCOL 16). Each key belongs to one of 256 leaves. A leaf is the sum, modulo 2^48, of the
 * weights of its records, and a weight is 48 bits mixed from key, version and checksum: a record can be added to a sum and
 * taken out again in any order, and equal sums mean equal records but for a chance of 2^-48. The root is mixed from the
 * leaves. Doubles hold all of these numbers exactly.
 *
 * Replicas compare them, so the functions here are part of the protocol between nodes and never change.
 */
export const LEAVES = 256;

export interface PartitionDigest {
  /** Equal roots: equal leaves. */
  readonly root: number;
  /** `LEAVES` sums. */
  readonly leaves: readonly number[];
}

/** What a record counts as: what it is, without its value. */
export interface RecordIdentity {
  readonly version: Version;
  readonly checksum: number;
}

const MODULUS = 2 ** 48;
const LOW = 2 ** 32;

/** What the digest knows of a key, 32 bits. */
export function digestKey(key: Uint8Array): number {
  return crc32(key);
}

/** The leaf that a key belongs to; nothing to do with its partition. */
export function leafOf(keyDigest: number): number {
  return finish(keyDigest ^ 0x5bd1e995, 0x7feb352d, 0x846ca68b) >>> 24;
}

/** What a record counts for in its leaf. */
export function weightOf(keyDigest: number, { version, checksum }: RecordIdentity): number {
  const { wallMs, counter, writer } = version;
  const mixer = new Mixer();
  mixer.add(keyDigest);
  mixer.add(wallMs);
  mixer.add(Math.floor(wallMs / LOW) + counter * 0x10000);
  mixer.add(writer);
  mixer.add(Math.floor(writer / LOW));
  mixer.add(checksum);
  return mixer.value();
}

/** `sum` with one weight taken out and another one put in; 0 stands for none. */
export function shifted(sum: number, replaced: number, weight: number): number {
  return (sum - replaced + weight + MODULUS) % MODULUS;
}

/** The root over a partition's leaves. */
export function rootOf(leaves: Iterable<number>): number {
  const mixer = new Mixer();
  for (const leaf of leaves) {
    mixer.add(leaf);
    mixer.add(Math.floor(leaf / LOW));
  }
  return mixer.value();
}

/** The digest of exactly these records of a partition. */
export function digestOfRecords(
  records: Iterable<{ readonly key: Uint8Array; readonly record: RecordIdentity }>,
): PartitionDigest {
  const leaves = new Array<number>(LEAVES).fill(0);
  for (const { key, record } of records) {
    const keyDigest = digestKey(key);
    const leaf = leafOf(keyDigest);
    leaves[leaf] = shifted(leaves[leaf] ?? 0, 0, weightOf(keyDigest, record));
  }
  return { root: rootOf(leaves), leaves };
}

/** Two lanes with steps and constants of their own, after MurmurHash3 (Appleby) and xxHash (Collet). */
class Mixer {
  private low = 0x2f0b4c47;
  private high = 0x61c88647;

  /** Adds the low 32 bits of a number. */
  add(word: number): void {
    const scrambled = Math.imul(rotated(Math.imul(word, 0xcc9e2d51), 15), 0x1b873593);
    this.low = (Math.imul(rotated(this.low ^ scrambled, 13), 5) + 0xe6546b64) | 0;
    this.high = Math.imul(rotated((this.high + Math.imul(word, 0x85ebca77)) | 0, 13), 0x9e3779b1);
  }

  /** 48 bits. */
  value(): number {
    const low = finish(this.low, 0x85ebca6b, 0xc2b2ae35) >>> 0;
    return low + (finish(this.high, 0x85ebca77, 0xc2b2ae3d) >>> 16) * LOW;
  }
}

function rotated(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

function finish(word: number, first: number, second: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), first);
  mixed = Math.imul(mixed ^ (mixed >>> 13), second);
  return mixed ^ (mixed >>> 16);
}
