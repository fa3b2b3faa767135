import { KvError } from '../../../common/errors.ts';
import { LEAVES } from '../../storage/digest.ts';

const SUM_BYTES = 6;

/** Some of the leaves of a partition; on the wire a bit for each, lowest bit of the first byte first. */
export class LeafSet {
  private readonly bits = Buffer.alloc(LEAVES / 8);

  /** Reads what `toBytes` wrote; missing bits are unset, further ones do not count. */
  static fromBytes(bytes: Uint8Array): LeafSet {
    const set = new LeafSet();
    set.bits.set(bytes.subarray(0, set.bits.length));
    return set;
  }

  /** The leaves whose sums are not the same. */
  static differing(a: readonly number[], b: readonly number[]): LeafSet {
    const set = new LeafSet();
    for (let leaf = 0; leaf < LEAVES; leaf += 1) if (a[leaf] !== b[leaf]) set.add(leaf);
    return set;
  }

  has(leaf: number): boolean {
    return ((this.bits[leaf >> 3] ?? 0) & (1 << (leaf & 7))) !== 0;
  }

  add(leaf: number): void {
    this.bits[leaf >> 3] = (this.bits[leaf >> 3] ?? 0) | (1 << (leaf & 7));
  }

  get size(): number {
    let count = 0;
    for (let leaf = 0; leaf < LEAVES; leaf += 1) if (this.has(leaf)) count += 1;
    return count;
  }

  /** The leaves that are in both. */
  and(other: LeafSet): LeafSet {
    const set = new LeafSet();
    for (const [index, byte] of this.bits.entries()) set.bits[index] = byte & (other.bits[index] ?? 0);
    return set;
  }

  toBytes(): Buffer {
    return Buffer.from(this.bits);
  }
}

/** Sums of leaves as peers send them: 6 bytes each, big-endian. */
export function encodeLeaves(leaves: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(LEAVES * SUM_BYTES);
  for (let leaf = 0; leaf < LEAVES; leaf += 1) {
    bytes.writeUIntBE(leaves[leaf] ?? 0, leaf * SUM_BYTES, SUM_BYTES);
  }
  return bytes;
}

/** @throws KvError INVALID_ARGUMENT when these are not the sums of all leaves. */
export function decodeLeaves(bytes: Buffer): readonly number[] {
  if (bytes.length !== LEAVES * SUM_BYTES) {
    throw new KvError('INVALID_ARGUMENT', `${bytes.length} bytes are not the sums of ${LEAVES} leaves`);
  }
  return Array.from({ length: LEAVES }, (_, leaf) => bytes.readUIntBE(leaf * SUM_BYTES, SUM_BYTES));
}
