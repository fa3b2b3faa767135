/** A set of partitions as a row of bits, the way peers send it: lowest bit of the first byte first. */
export class PartitionSet {
  private readonly bits: Uint8Array;

  constructor(partitions: number) {
    this.bits = new Uint8Array(Math.ceil(partitions / 8));
  }

  /** Reads what `toBytes` wrote; bits beyond the partitions there are do not count. */
  static fromBytes(bytes: Uint8Array, partitions: number): PartitionSet {
    const set = new PartitionSet(partitions);
    set.bits.set(bytes.subarray(0, set.bits.length));
    const spare = set.bits.length * 8 - partitions;
    if (spare > 0) set.bits[set.bits.length - 1] = (set.bits.at(-1) ?? 0) & (0xff >> spare);
    return set;
  }

  static of(partitions: Iterable<number>, count: number): PartitionSet {
    const set = new PartitionSet(count);
    for (const partition of partitions) set.add(partition);
    return set;
  }

  has(partition: number): boolean {
    return ((this.bits[partition >> 3] ?? 0) & (1 << (partition & 7))) !== 0;
  }

  add(partition: number): void {
    this.bits[partition >> 3] = (this.bits[partition >> 3] ?? 0) | (1 << (partition & 7));
  }

  delete(partition: number): void {
    this.bits[partition >> 3] = (this.bits[partition >> 3] ?? 0) & ~(1 << (partition & 7));
  }

  clear(): void {
    this.bits.fill(0);
  }

  copy(): PartitionSet {
    const set = new PartitionSet(this.bits.length * 8);
    set.bits.set(this.bits);
    return set;
  }

  equals(other: PartitionSet): boolean {
    return Buffer.compare(this.bits, other.bits) === 0;
  }

  /** How many there are. */
  get size(): number {
    let count = 0;
    for (let byte of this.bits) for (; byte !== 0; byte &= byte - 1) count += 1;
    return count;
  }

  *[Symbol.iterator](): Generator<number> {
    for (const [index, byte] of this.bits.entries()) {
      for (let bit = 0; bit < 8; bit += 1) if ((byte & (1 << bit)) !== 0) yield index * 8 + bit;
    }
  }

  /** A copy. */
  toBytes(): Buffer {
    return Buffer.from(this.bits);
  }
}
