import { expect } from 'chai';
import { KvError } from '../../../../common/errors.ts';
import { Claims } from '../../../../node/replication/anti-entropy/claims.ts';
import { decodeLeaves, encodeLeaves, LeafSet } from '../../../../node/replication/anti-entropy/leaf-set.ts';
import { Pace } from '../../../../node/replication/anti-entropy/pace.ts';
import { ManualTime } from '../../../support/manual-time.ts';

describe('leaves on the wire', () => {
  it('are 6 bytes each, big-endian', () => {
    const leaves = Array.from({ length: 256 }, (_, leaf) => leaf * 2 ** 40 + leaf);
    const bytes = encodeLeaves(leaves);
    expect(bytes.length).to.equal(1536);
    expect(bytes.subarray(6, 12).toString('hex')).to.equal('010000000001');
    expect(decodeLeaves(bytes)).to.deep.equal(leaves);
    expect(() => decodeLeaves(bytes.subarray(1))).to.throw(KvError);
  });

  it('are chosen by bits, the lowest bit of the first byte first', () => {
    const set = LeafSet.fromBytes(Buffer.from([0b10, 0b1]));
    expect([set.has(0), set.has(1), set.has(8), set.size]).to.deep.equal([false, true, true, 2]);
    expect(LeafSet.fromBytes(Buffer.alloc(40, 0xff)).size).to.equal(256);
    expect(
      LeafSet.fromBytes(Buffer.from(set.toBytes())).and(LeafSet.fromBytes(Buffer.from([0xff]))).size,
    ).to.equal(1);
  });
});

describe('a pace', () => {
  it('makes what was spent last as long as it may', async () => {
    const time = new ManualTime();
    const pace = new Pace(1000, time.clock(), time.scheduler());
    const signal = new AbortController().signal;
    const spendAll = async (): Promise<void> => {
      for (let spent = 0; spent < 5000; spent += 100) await pace.spend(100, signal);
    };
    await time.run(spendAll());
    expect(time.monotonicMs).to.be.within(4900, 5000);
    await time.advance(10_000);
    const before = time.monotonicMs;
    await time.run(pace.spend(500, signal));
    expect(time.monotonicMs - before).to.equal(500);
  });

  it('ends with its signal, and costs nothing without a bound', async () => {
    const time = new ManualTime();
    const controller = new AbortController();
    const waiting = new Pace(1, time.clock(), time.scheduler())
      .spend(1000, controller.signal)
      .catch((error: unknown) => error);
    controller.abort(new Error('stop'));
    expect(await waiting).to.have.property('message', 'stop');
    await new Pace(Infinity, time.clock(), time.scheduler()).spend(1e12, controller.signal);
  });
});

describe('claims', () => {
  it('give each partition to one at a time, and tell when one is free again', async () => {
    const claims = new Claims();
    const signal = new AbortController().signal;
    expect(claims.take([1, 2, 3, 4], 2)).to.deep.equal([1, 2]);
    expect(claims.take([1, 2, 3, 4], 5)).to.deep.equal([3, 4]);
    expect(claims.take([1, 2, 3, 4], 5)).to.deep.equal([]);
    const freed = claims.released(signal);
    claims.release([2]);
    await freed;
    expect(claims.take([1, 2], 5)).to.deep.equal([2]);
  });

  it('are not waited for any more when the signal says so', async () => {
    const claims = new Claims();
    const controller = new AbortController();
    const waiting = claims.released(controller.signal).catch((error: unknown) => error);
    controller.abort(new Error('stop'));
    expect(await waiting).to.have.property('message', 'stop');
    expect(await claims.released(controller.signal).catch((error: unknown) => error)).to.have.property(
      'message',
      'stop',
    );
  });
});
