import { expect } from 'chai';
import { Halts } from '../../../node/replication/halts.ts';
import { ManualTime } from '../../support/manual-time.ts';

const HALT_MS = 250;

describe('a node that stands still', () => {
  let time: ManualTime;
  let stoodMs: number;
  let halts: Halts;

  /** Nothing runs meanwhile, and no timer is on time. */
  const standStill = (forMs: number): void => void (stoodMs += forMs);

  beforeEach(() => {
    time = new ManualTime();
    stoodMs = 0;
    const clock = { ...time.clock(), monotonicMs: () => time.monotonicMs + stoodMs };
    halts = new Halts({ clock, scheduler: time.scheduler(), haltMs: HALT_MS });
    halts.start();
  });

  afterEach(() => halts.stop());

  it('takes nothing for late in ordinary running, however seldom it is asked', async () => {
    for (const passedMs of [0, 1, HALT_MS, 10 * HALT_MS, 60_000]) {
      await time.advance(passedMs);
      expect(halts.mayBeLate(), `after ${passedMs} ms`).to.equal(false);
    }
  });

  it('takes nothing for late after a moment that is no halt', async () => {
    standStill(HALT_MS);
    expect(halts.mayBeLate()).to.equal(false);
    await time.advance(HALT_MS);
    expect(halts.mayBeLate()).to.equal(false);
  });

  it('takes what comes for late, before any timer runs, for as long as it stood and a little longer', async () => {
    standStill(4000);
    expect(halts.mayBeLate()).to.equal(true);
    await time.advance(4000 + HALT_MS - 1);
    expect(halts.mayBeLate()).to.equal(true);
    await time.advance(1);
    expect(halts.mayBeLate()).to.equal(false);
    await time.advance(60_000);
    expect(halts.mayBeLate()).to.equal(false);
  });

  it('does so as well when a timer is the first to notice', async () => {
    standStill(4000);
    await time.advance(HALT_MS);
    expect(halts.mayBeLate()).to.equal(true);
    await time.advance(4000 - 1);
    expect(halts.mayBeLate()).to.equal(true);
    await time.advance(HALT_MS);
    expect(halts.mayBeLate()).to.equal(false);
  });

  it('does so after every halt, counting from the last one', async () => {
    standStill(1000);
    await time.advance(1000);
    standStill(1000);
    await time.advance(1000 + HALT_MS - 1);
    expect(halts.mayBeLate()).to.equal(true);
    await time.advance(HALT_MS);
    expect(halts.mayBeLate()).to.equal(false);
  });
});
