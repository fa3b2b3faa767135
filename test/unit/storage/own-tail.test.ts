import { expect } from 'chai';
import { OwnTail } from '../../../node/storage/own-tail.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import type { OwnEntry } from '../../../node/storage/store.ts';

const KEY = Buffer.from('k');

function entry(sequence: number): OwnEntry {
  const record = liveRecord(KEY, Buffer.alloc(70), { wallMs: sequence, counter: 0, writer: 1 });
  return { sequence, key: KEY, record, requestId: undefined };
}

describe('the tail of own entries', () => {
  const filled = (maxBytes: number): OwnTail => {
    const tail = new OwnTail(maxBytes, 4);
    for (const sequence of [6, 7, 10, 12]) tail.add(entry(sequence));
    return tail;
  };
  const sequences = (tail: OwnTail, after: number, ceiling: number, maxBytes: number): number[] =>
    tail.read(after, ceiling, maxBytes).entries.map(({ sequence }) => sequence);

  it('reads what is after a sequence, up to a ceiling, bounded in bytes and never without an entry', () => {
    const tail = filled(1e6);
    expect(sequences(tail, 4, 100, 1e6)).to.deep.equal([6, 7, 10, 12]);
    expect(sequences(tail, 7, 100, 1e6)).to.deep.equal([10, 12]);
    expect(sequences(tail, 8, 11, 1e6)).to.deep.equal([10]);
    expect(sequences(tail, 4, 100, 1)).to.deep.equal([6]);
    expect(sequences(tail, 4, 100, 450)).to.deep.equal([6, 7]);
    expect(tail.read(12, 100, 1e6)).to.deep.equal({ after: 12, through: 12, entries: [] });
    expect([tail.headUpTo(100), tail.headUpTo(9), tail.headUpTo(5)]).to.deep.equal([12, 7, 4]);
  });

  it('drops the oldest beyond its bound, and nothing that is not synced', () => {
    const tail = filled(250);
    tail.shrink(5);
    expect(tail.start).to.equal(4);
    tail.shrink(6);
    expect(tail.start).to.equal(6);
    tail.shrink(100);
    expect(tail.start).to.equal(10);
    expect(sequences(tail, 10, 100, 1e6)).to.deep.equal([12]);
  });

  it('stays the same over many entries', () => {
    const tail = new OwnTail(10_000, 0);
    for (let sequence = 1; sequence <= 5000; sequence += 1) {
      tail.add(entry(sequence));
      tail.shrink(sequence);
    }
    expect(sequences(tail, tail.start, 1e6, 1e6).at(0)).to.equal(tail.start + 1);
    expect(sequences(tail, tail.start, 1e6, 1e6).at(-1)).to.equal(5000);
  });
});
