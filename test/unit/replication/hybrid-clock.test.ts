import { expect } from 'chai';
import { compareVersions, MAX_COUNTER, NO_VERSION, type Version } from '../../../model/version.ts';
import { HybridClock } from '../../../node/replication/hybrid-clock.ts';
import { ReplicaCluster } from '../../support/replica-cluster.ts';

const SECOND = 1000;
const HOUR = 3_600_000;

describe('the hybrid clock', () => {
  let cluster: ReplicaCluster;
  let clock: HybridClock;
  const wall = { skewMs: 0 };
  const nowMs = (): number => 1_800_000_000_000 + Math.floor(cluster.time.monotonicMs) + wall.skewMs;
  const open = (): HybridClock =>
    new HybridClock({
      clock: { wallMs: nowMs, monotonicMs: () => cluster.time.monotonicMs },
      store: cluster.store(0),
      writer: () => 42,
      skewBoundMs: 2 * SECOND,
      ceilingStepMs: 500,
    });
  /** A version, after whatever raising of ceilings it takes. */
  const mint = async (seen: Version = NO_VERSION): Promise<Version> => {
    for (;;) {
      const version = clock.mint(seen);
      if (version !== undefined) return version;
      await cluster.time.run(clock.raise(seen));
    }
  };

  beforeEach(async () => {
    wall.skewMs = 0;
    cluster = new ReplicaCluster(1);
    await cluster.start(0);
    clock = open();
  });

  afterEach(() => cluster.end());

  it('mints ever higher versions, also while the wall clock stands still or goes back', async () => {
    let last = await mint();
    for (const skewMs of [0, 0, -HOUR, -1, 5]) {
      wall.skewMs = skewMs;
      const version = await mint();
      expect(compareVersions(version, last)).to.be.greaterThan(0);
      last = version;
    }
    expect(last.writer).to.equal(42);
  });

  it('does not mint above the ceiling before the ceiling is durable', async () => {
    const version = await mint();
    expect(cluster.store(0).clockCeilingMs).to.be.at.least(version.wallMs);
    wall.skewMs = HOUR;
    expect(clock.mint(NO_VERSION)).to.equal(undefined);
  });

  it('mints above everything of the time before a restart, although the wall clock went back', async () => {
    const before = await mint();
    cluster.kill(0);
    wall.skewMs = -HOUR;
    await cluster.start(0);
    clock = open();
    expect(compareVersions(await mint(), before)).to.be.greaterThan(0);
  });

  it('carries a full counter into the milliseconds', async () => {
    const seen = { wallMs: nowMs() + 5, counter: MAX_COUNTER, writer: 1 };
    expect(await mint(seen)).to.deep.equal({ wallMs: seen.wallMs + 1, counter: 0, writer: 42 });
  });

  it('mints above the version seen for the key, and follows versions within the skew bound', async () => {
    const near = { wallMs: nowMs() + SECOND, counter: 7, writer: 1 };
    expect(clock.observe(near)).to.equal(true);
    expect(compareVersions(await mint(), near)).to.be.greaterThan(0);
  });

  it('overwrites a version far ahead without being dragged along, also over a restart', async () => {
    const far = { wallMs: nowMs() + HOUR, counter: 7, writer: 1 };
    expect(clock.observe(far)).to.equal(false);
    const above = await mint(far);
    expect(compareVersions(above, far)).to.be.greaterThan(0);
    expect((await mint()).wallMs).to.be.below(nowMs() + 2 * SECOND);
    cluster.kill(0);
    await cluster.start(0);
    clock = open();
    expect((await mint()).wallMs).to.be.below(nowMs() + 2 * SECOND);
    expect(compareVersions(await mint(far), above), 'never the same version twice').to.be.greaterThan(0);
  });

  it('never mints below the floor it tells, also over a restart with the wall clock set back', async () => {
    await cluster.time.run(cluster.store(0).raiseClockCeiling(nowMs() + SECOND));
    for (const aheadMs of [0, 500, HOUR]) {
      clock.leaveBehind(nowMs() + aheadMs);
      const { floorMs } = clock;
      expect(floorMs).to.be.within(nowMs(), cluster.store(0).clockCeilingMs);
      expect((await mint()).wallMs).to.be.at.least(floorMs);
    }
    expect(clock.observe({ wallMs: nowMs() + 2 * SECOND, counter: 0, writer: 1 })).to.equal(true);
    const { floorMs } = clock;
    cluster.kill(0);
    wall.skewMs = -HOUR;
    await cluster.start(0);
    clock = open();
    expect(clock.floorMs).to.be.at.least(floorMs);
    expect((await mint()).wallMs).to.be.at.least(floorMs);
  });
});
