import { expect } from 'chai';
import { LowWater, type MintClock } from '../../../../node/replication/horizon/low-water.ts';

const LAG = 10_000;

describe('the low water mark', () => {
  let nowMs: number;
  let wallMs: number;
  let ceilingMs: number;
  let ceilings: number[];
  let mintClock: MintClock & { floorMs: number };
  let lowWater: LowWater;

  const open = (head = 0): LowWater =>
    new LowWater({
      clock: { wallMs: () => wallMs, monotonicMs: () => nowMs },
      mintClock,
      head,
      ceilingMs: () => ceilingMs,
      raiseCeiling: (to) => {
        ceilings.push(to);
        ceilingMs = Math.max(ceilingMs, to);
        return Promise.resolve();
      },
      lagMs: LAG,
    });

  /** Time passes with a heartbeat every half second. */
  async function pass(delayMs: number, acknowledged: number, advance = true): Promise<void> {
    for (const end = nowMs + delayMs; nowMs < end;) {
      nowMs += 500;
      wallMs += 500;
      lowWater.note(acknowledged, advance);
      await Promise.resolve();
    }
  }

  beforeEach(() => {
    nowMs = 0;
    wallMs = 1_000_000;
    ceilingMs = 1_000_000;
    ceilings = [];
    mintClock = {
      floorMs: 1_000_000,
      leaveBehind: (to) => {
        mintClock.floorMs = Math.max(mintClock.floorMs, Math.min(to, ceilingMs));
      },
    };
    lowWater = open();
  });

  it('is not known until everything that was found in the log is acknowledged', async () => {
    lowWater = open(17);
    await pass(30_000, 16);
    expect(lowWater.valueMs).to.equal(0);
    await pass(500, 17);
    expect(lowWater.valueMs).to.be.greaterThan(1_000_000);
  });

  it('stays below an entry until it is acknowledged', async () => {
    await pass(1000, 0);
    lowWater.appended(1, 1_001_000);
    mintClock.floorMs = 1_001_000;
    await pass(60_000, 0);
    expect(lowWater.valueMs).to.be.at.most(1_001_000);
    await pass(1000, 1);
    expect(lowWater.valueMs).to.be.within(1_045_000, 1_062_000);
  });

  it('rises with what is acknowledged while more is written all the time', async () => {
    for (let sequence = 1; sequence <= 200; sequence += 1) {
      lowWater.appended(sequence, wallMs);
      mintClock.floorMs = wallMs;
      await pass(500, sequence - 4);
      if (sequence > 10) expect(wallMs - lowWater.valueMs).to.be.within(1500, 4000);
    }
  });

  it('knows of entries that peers are not shown yet', async () => {
    // Beyond the durable ceiling of sequences an entry exists before the log admits it.
    lowWater.appended(5, 1_000_100);
    mintClock.floorMs = 1_000_200;
    await pass(20_000, 4);
    expect(lowWater.valueMs).to.be.at.most(1_000_100);
  });

  it('goes down for an entry that was given back, until it is acknowledged', async () => {
    await pass(60_000, 0);
    const before = lowWater.valueMs;
    lowWater.appended(1, 1_000_500);
    expect(lowWater.valueMs).to.equal(1_000_500);
    lowWater.appended(2, wallMs);
    await pass(500, 0);
    expect(lowWater.valueMs).to.equal(1_000_500);
    await pass(500, 1);
    expect(lowWater.valueMs).to.be.at.least(before);
  });

  it('follows the clock of a node that writes nothing, at a distance, without writing often', async () => {
    await pass(120_000, 0);
    expect(wallMs - lowWater.valueMs).to.be.within(LAG, 2 * LAG + 1000);
    expect(ceilings.length).to.be.within(8, 14);
    expect(ceilings.every((to) => to <= wallMs)).to.equal(true);
  });

  it('never goes beyond what is durably reserved for minting', async () => {
    lowWater = new LowWater({
      clock: { wallMs: () => wallMs, monotonicMs: () => nowMs },
      mintClock,
      head: 0,
      ceilingMs: () => ceilingMs,
      raiseCeiling: () => new Promise(() => undefined),
      lagMs: LAG,
    });
    await pass(60_000, 0);
    expect(lowWater.valueMs).to.be.at.most(ceilingMs);
  });

  it('does not follow a clock that jumps ahead until that has lasted, nor one that is not trusted', async () => {
    await pass(30_000, 0);
    wallMs += 3_600_000;
    await pass(LAG - 1000, 0);
    expect(lowWater.valueMs).to.be.below(1_060_000);
    await pass(60_000, 0, false);
    expect(lowWater.valueMs, 'refused by then').to.be.below(1_060_000);
    wallMs -= 3_600_000;
    await pass(60_000, 0);
    expect(lowWater.valueMs).to.be.within(wallMs - 3 * LAG, wallMs);
  });

  it('stands still while the clock is behind what was promised', async () => {
    await pass(60_000, 0);
    const before = lowWater.valueMs;
    wallMs -= 3_600_000;
    await pass(60_000, 0);
    expect(lowWater.valueMs).to.be.within(before, before + LAG);
  });

  it('begins anew with a new incarnation', async () => {
    lowWater.appended(9, 1_000_000);
    await pass(60_000, 9);
    expect(lowWater.valueMs).to.be.greaterThan(0);
    lowWater.restart();
    expect(lowWater.valueMs).to.equal(0);
    await pass(5000, 8);
    expect(lowWater.valueMs).to.equal(0);
    await pass(500, 9);
    expect(lowWater.valueMs).to.be.greaterThan(0);
  });

  it('stays right, in bounded memory, while a peer is away for a day of writing', async () => {
    let sequence = 0;
    const written: number[] = [];
    for (let minute = 0; minute < 2000; minute += 1) {
      sequence += 1;
      lowWater.appended(sequence, wallMs);
      written.push(wallMs);
      mintClock.floorMs = wallMs;
      await pass(500, 0);
    }
    for (let acknowledged = 0; acknowledged <= sequence; acknowledged += 1) {
      lowWater.note(acknowledged, false);
      expect(lowWater.valueMs).to.be.at.most(written[acknowledged] ?? Infinity);
    }
    expect(lowWater.valueMs).to.be.at.least(written.at(-1) ?? Infinity);
    expect((lowWater as unknown as { notes: unknown[] }).notes.length).to.be.below(100);
  });
});
