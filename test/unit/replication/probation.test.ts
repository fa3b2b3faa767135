import { expect } from 'chai';
import { Probation } from '../../../node/replication/probation.ts';
import { ManualTime } from '../../support/manual-time.ts';

const LIMIT_MS = 2000;

describe('the probation of a node that has started', () => {
  let time: ManualTime;
  let probation: Probation;
  let ends: number[];

  const judgedBy = (...judges: string[]): Probation =>
    new Probation({
      judges: () => judges,
      limitMs: LIMIT_MS,
      scheduler: time.scheduler(),
      onOver: () => void ends.push(time.monotonicMs),
    });

  beforeEach(() => {
    time = new ManualTime();
    ends = [];
    probation = judgedBy('kv-1', 'kv-2');
  });

  it('ends when the last of its judges has accepted the volume', async () => {
    probation.begin();
    await time.advance(500);
    probation.judged('kv-2');
    expect(probation.over).to.equal(false);
    probation.judged('kv-1');
    expect(probation.over).to.equal(true);
    await time.advance(60_000);
    expect(ends).to.deep.equal([500]);
  });

  it('ends after the time of a failure detection when a judge is away', async () => {
    probation.begin();
    probation.judged('kv-1');
    await time.advance(60_000);
    expect(ends).to.deep.equal([LIMIT_MS]);
  });

  it('is over at once when nobody has to judge', () => {
    probation = judgedBy();
    probation.begin();
    expect(ends).to.deep.equal([0]);
  });

  it('waits that time anew when a judge is there and takes a predecessor for this node', async () => {
    probation.begin();
    await time.advance(1500);
    probation.postpone();
    await time.advance(LIMIT_MS - 1);
    expect(probation.over).to.equal(false);
    await time.advance(1);
    expect(ends).to.deep.equal([1500 + LIMIT_MS]);
  });

  it('ends no later for having been postponed when all judges accept the volume', async () => {
    probation.begin();
    await time.advance(1500);
    probation.postpone();
    for (const judge of ['kv-1', 'kv-2']) probation.judged(judge);
    await time.advance(60_000);
    expect(ends).to.deep.equal([1500]);
  });

  it('is not postponed when it is over', async () => {
    probation.begin();
    await time.advance(LIMIT_MS);
    probation.postpone();
    expect(probation.over).to.equal(true);
    await time.advance(60_000);
    expect(ends).to.deep.equal([LIMIT_MS]);
  });

  it('does not begin by being postponed', async () => {
    probation.postpone();
    await time.advance(60_000);
    expect(ends).to.deep.equal([]);
  });
});
