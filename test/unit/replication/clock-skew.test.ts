import { expect } from 'chai';
import fc from 'fast-check';
import { lowerMedian } from '../../../common/median.ts';
import { ClockSkew } from '../../../node/replication/clock-skew.ts';
import { seededRandom } from '../../support/seeded-random.ts';

const BOUND = 2000;
const BEAT = 500;
const HOUR = 3_600_000;

describe('the comparison of clocks', () => {
  let nowMs: number;
  let ownMs: number;
  /** Offsets of the members' clocks from the right time. */
  let members: Map<string, number>;
  let skew: ClockSkew;
  let delayMs: () => number;
  let gauges: Map<string, number>;
  /** Everything that was said, to arrive some time. */
  let sent: { atMs: number; member: string; wallMs: number }[];

  const open = (): void => {
    skew = new ClockSkew({
      clock: { wallMs: () => Math.floor(1_800_000_000_000 + nowMs + ownMs), monotonicMs: () => nowMs },
      boundMs: BOUND,
      freshMs: 4000,
    });
  };

  beforeEach(() => {
    nowMs = 1_000_000;
    ownMs = 0;
    members = new Map();
    sent = [];
    delayMs = () => 1;
    gauges = new Map();
    open();
  });

  /** Time passes, and what is sent arrives in its time. */
  const pass = (passMs: number): void => {
    const endMs = nowMs + passMs;
    const due = sent.filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs);
    sent = sent.filter(({ atMs }) => atMs > endMs);
    for (const { atMs, member, wallMs } of due) {
      nowMs = Math.max(nowMs, atMs);
      skew.heard(member, wallMs);
    }
    nowMs = endMs;
  };
  const beats = (count: number): void => {
    for (let beat = 0; beat < count; beat += 1) {
      for (const [member, offsetMs] of members) {
        sent.push({ atMs: nowMs + delayMs(), member, wallMs: 1_800_000_000_000 + nowMs + offsetMs });
      }
      pass(BEAT);
      skew.evaluate({ gauge: (name, value) => void gauges.set(name, value) });
    }
  };
  const others = (...offsets: number[]): void => {
    members = new Map(offsets.map((offsetMs, index) => [`kv-${index + 1}`, offsetMs]));
  };

  it('is content with clocks within the bound, and measures how far the own one is off', () => {
    others(500, -800);
    ownMs = 300;
    beats(10);
    expect(skew.refuses).to.equal(undefined);
    expect(skew.isSound).to.equal(true);
    expect(skew.offsetMs).to.be.closeTo(0, 5);
    ownMs = 1000;
    beats(1);
    expect(skew.offsetMs).to.be.closeTo(500, 5);
    expect(gauges.get('clock_skew_ms')).to.be.closeTo(500, 5);
  });

  for (const [jumpMs, words] of [
    [HOUR, '3600.0 s ahead of'],
    [-HOUR, '3600.0 s behind'],
  ] as const) {
    it(`refuses at once when the own clock jumps by ${jumpMs} ms, and goes on when it is right again`, () => {
      others(0, 0);
      beats(10);
      ownMs = jumpMs;
      expect(skew.refuses).to.contain(words).and.contain('the median of 3 members');
      beats(100);
      expect(skew.refuses).to.contain(words);
      expect(gauges.get('clock_outlier')).to.equal(1);
      ownMs = 0;
      expect(skew.refuses).to.equal(undefined);
      beats(1);
      expect(gauges.get('clock_outlier')).to.equal(0);
    });
  }

  it('refuses a node that starts with a wrong clock, after two looks', () => {
    others(0, 0, 0);
    ownMs = -HOUR;
    open();
    beats(1);
    expect(skew.refuses).to.equal(undefined);
    expect(skew.isSound).to.equal(false);
    beats(1);
    expect(skew.refuses).to.contain('behind the median of 4 members');
  });

  it('goes on when another member is the one that is wrong', () => {
    others(0, HOUR);
    beats(20);
    expect(skew.refuses).to.equal(undefined);
    members.set('kv-2', -HOUR);
    beats(20);
    expect(skew.refuses).to.equal(undefined);
  });

  it('only warns while two members differ, for either may be wrong', () => {
    others(HOUR);
    beats(10);
    expect(skew.refuses).to.equal(undefined);
    expect(skew.alarm).to.match(/this node and kv-1 are 3600\.0 s apart/);
    expect(skew.isSound).to.equal(false);
    members.set('kv-1', 0);
    beats(10);
    expect(skew.alarm).to.equal(undefined);
  });

  it('says nothing alone', () => {
    ownMs = HOUR;
    beats(10);
    expect([skew.refuses, skew.alarm, skew.offsetMs]).to.deep.equal([undefined, undefined, undefined]);
  });

  it('has one side of two equal ones go on, the same for everybody', () => {
    // Two clocks are an hour ahead of the other two.
    others(0, HOUR, HOUR);
    beats(10);
    expect(skew.refuses, 'one of the slower').to.equal(undefined);
    ownMs = HOUR;
    others(0, 0, HOUR);
    beats(10);
    expect(skew.refuses, 'one of the faster').to.contain('ahead of');
  });

  it('notices a clock that drifts away, and bears one that stays near the bound', () => {
    others(0, 0);
    let refusedAt: number | undefined;
    for (let beat = 0; beat < 600; beat += 1) {
      ownMs += 5;
      beats(1);
      if (refusedAt === undefined && skew.refuses !== undefined) refusedAt = ownMs;
    }
    expect(refusedAt).to.be.within(BOUND, BOUND + 50);
    let changes = 0;
    let before = skew.refuses === undefined;
    for (let beat = 0; beat < 200; beat += 1) {
      ownMs = BOUND + (beat % 2 === 0 ? 100 : -100);
      beats(1);
      const now = skew.refuses === undefined;
      if (now !== before) changes += 1;
      before = now;
    }
    expect(changes, 'back and forth').to.equal(0);
    ownMs = BOUND / 2;
    beats(1);
    expect(skew.refuses).to.equal(undefined);
  });

  it('is not misled by what takes hundreds of milliseconds to arrive, one way', () => {
    const random = seededRandom(7);
    delayMs = () => 20 + 700 * random.fraction();
    others(1200, 1300);
    for (let beat = 0; beat < 500; beat += 1) {
      beats(1);
      expect(skew.refuses).to.equal(undefined);
      if (beat > 10) expect(skew.offsetMs).to.be.within(-1300, -500);
    }
  });

  it('is not misled by what waited while the process was stopped', () => {
    others(0, 0, 0);
    beats(10);
    for (let second = 0; second < 20; second += 1) {
      for (const member of members.keys()) {
        sent.push({ atMs: nowMs, member, wallMs: 1_800_000_000_000 + nowMs });
      }
      nowMs += 1000;
    }
    expect(skew.refuses).to.equal(undefined);
    // It handles the oldest first, and looks in between.
    const waiting = sent.splice(0);
    for (const message of waiting.slice(0, 30)) skew.heard(message.member, message.wallMs);
    skew.evaluate({ gauge: () => undefined });
    expect(skew.refuses).to.equal(undefined);
    for (const message of waiting.slice(30)) skew.heard(message.member, message.wallMs);
    beats(5);
    expect(skew.refuses).to.equal(undefined);
  });

  it('keeps refusing while nobody is heard, until the clock is set', () => {
    others(0, 0);
    beats(5);
    ownMs = HOUR;
    beats(5);
    members.clear();
    beats(100);
    expect(skew.refuses).to.contain('ahead of');
    ownMs = 0;
    expect(skew.refuses).to.equal(undefined);
  });

  it('forgets members that are gone', () => {
    others(0, HOUR, HOUR);
    beats(5);
    others(0);
    beats(20);
    expect(skew.refuses).to.equal(undefined);
    expect(skew.alarm).to.equal(undefined);
    expect(skew.offsetMs).to.be.closeTo(0, 5);
    members.clear();
    beats(20);
    expect(skew.offsetMs).to.equal(undefined);
  });

  it('never lets a minority of wrong clocks stop the others, nor go on themselves', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.integer({ min: -700, max: 700 }), { minLength: 9, maxLength: 9 }),
        fc.array(fc.integer({ min: -20 * HOUR, max: 20 * HOUR }), { minLength: 4, maxLength: 4 }),
        (wrong, good, bad) => {
          const right = wrong + 1;
          const clocks = [
            ...good.slice(0, right).map((offsetMs) => ({ offsetMs, isRight: true })),
            ...bad
              .slice(0, wrong)
              .map((offsetMs) => ({ offsetMs: offsetMs + Math.sign(offsetMs || 1) * 4000, isRight: false })),
          ];
          for (const [self, own] of clocks.entries()) {
            skew = new ClockSkew({
              clock: {
                wallMs: () => 1_800_000_000_000 + nowMs + own.offsetMs,
                monotonicMs: () => nowMs,
              },
              boundMs: BOUND,
              freshMs: 4000,
            });
            others(...clocks.filter((_clock, index) => index !== self).map(({ offsetMs }) => offsetMs));
            beats(4);
            expect(skew.refuses === undefined, `${own.offsetMs}`).to.equal(own.isRight);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('takes a value that is there for the median', () => {
    expect(lowerMedian([])).to.equal(undefined);
    expect(lowerMedian([3])).to.equal(3);
    expect(lowerMedian([9, 3])).to.equal(3);
    expect(lowerMedian([9, 3, 5])).to.equal(5);
    expect(lowerMedian([10, 9, 3, 5])).to.equal(5);
  });
});
