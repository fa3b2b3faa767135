import { expect } from 'chai';
import { partitionOf } from '../../../model/key-hash.ts';

describe('partitionOf', () => {
  it('never changes: clients and stored data rely on it', () => {
    const golden: Record<string, number> = {};
    for (const key of ['a', 'b', 'user:1', 'user:2', 'ключ', 'x'.repeat(1024)]) {
      golden[key.length > 100 ? 'long' : key] = partitionOf(Buffer.from(key), 256);
    }
    expect(golden).to.deep.equal(GOLDEN);
  });

  it('spreads sequential keys within four standard deviations of even', () => {
    const partitions = 256;
    const keys = 100_000;
    const counts = new Array<number>(partitions).fill(0);
    for (let index = 0; index < keys; index += 1) {
      const partition = partitionOf(Buffer.from(`key-${index}`), partitions);
      counts[partition] = (counts[partition] ?? 0) + 1;
    }
    const even = keys / partitions;
    for (const count of counts) expect(Math.abs(count - even)).to.be.below(4.5 * Math.sqrt(even));
  });
});

const GOLDEN = { a: 183, b: 60, 'user:1': 136, 'user:2': 223, ключ: 166, long: 220 };
