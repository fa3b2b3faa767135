import { expect } from 'chai';
import fc from 'fast-check';
import { quorumOf } from '../../../../model/cluster-map.ts';
import type { ReplicaSets } from '../../../../model/replica-sets.ts';
import type { Version } from '../../../../model/version.ts';
import { judgeRetry, type RetryAnswer } from '../../../../node/replication/requests/judge-retry.ts';
import type { Consistency } from '../../../../node/replication/engine.ts';

const at = (wallMs: number, writer = 1): Version => ({ wallMs, counter: 0, writer });
const replicas = (count: number): string[] => Array.from({ length: count }, (_, index) => `kv-${index}`);
const setsOf = (names: readonly string[]): ReplicaSets => ({ write: [names], read: names, holders: names });
/** kv-3 takes the place of kv-0. */
const MOVING: ReplicaSets = {
  write: [replicas(3), ['kv-1', 'kv-2', 'kv-3']],
  read: replicas(3),
  holders: replicas(4),
};

const held = (version: number, stored = version): RetryAnswer => ({
  known: { kind: 'held', version: at(version) },
  stored: at(stored),
  horizonMs: 0,
});
const notHeld = (stored?: number, horizonMs = 0): RetryAnswer => ({
  known: { kind: 'not-held' },
  stored: stored === undefined ? undefined : at(stored),
  horizonMs,
});
const unknown: RetryAnswer = { known: { kind: 'unknown' }, stored: undefined, horizonMs: 0 };
const unsettled = (answer: RetryAnswer): RetryAnswer => ({ ...answer, unsettled: true });

interface JudgeOptions {
  readonly consistency?: Consistency;
  /** Of every version, or by version. */
  readonly minter?: string | Readonly<Record<number, string>>;
  readonly minted?: number;
  readonly sets?: ReplicaSets;
  /** Replicas since this version. */
  readonly newcomers?: Readonly<Record<string, number>>;
}

const judge = (answers: readonly (RetryAnswer | undefined)[], options: JudgeOptions = {}): string => {
  const { minter, minted } = options;
  const names = replicas(answers.length);
  const verdict = judgeRetry({
    sets: options.sets ?? setsOf(names),
    consistency: options.consistency ?? 'QUORUM',
    answers: new Map(
      names.flatMap((name, index) => (answers[index] === undefined ? [] : [[name, answers[index]]])),
    ),
    minted: minted === undefined ? undefined : at(minted),
    isNewcomer: (nodeId, { wallMs }) => wallMs <= (options.newcomers?.[nodeId] ?? -1),
    minterOf: ({ wallMs }) => (typeof minter === 'object' ? minter[wallMs] : minter),
  });
  return verdict.kind === 'finish' ? `finish ${verdict.version.wallMs}` : verdict.kind;
};

describe('a retried write', () => {
  const cases: [string, string, Parameters<typeof judge>][] = [
    ['is new when a quorum has not held it', 'write', [[notHeld(), notHeld(), undefined]]],
    ['is new also where the key has been overwritten', 'write', [[notHeld(9), notHeld(3), undefined]]],
    ['waits while fewer than a quorum can tell', 'wait', [[notHeld(), unknown, undefined]]],
    ['stands when two of three have applied it', 'finish 5', [[held(5), held(5), undefined]]],
    ['stands when it was overwritten afterwards', 'finish 5', [[held(5, 9), held(5, 9), notHeld(9)]]],
    [
      'stands when one has applied it and its minter is gone',
      'finish 5',
      [[held(5), notHeld(9), undefined], { minter: 'kv-2' }],
    ],
    ['stands when the others have nothing newer', 'finish 5', [[held(5), notHeld(4), undefined]]],
    ['stands when the others have nothing at all', 'finish 5', [[held(5), notHeld(), undefined]]],
    [
      'is written again when a quorum beat it',
      'write',
      [[held(5), notHeld(9), notHeld(8)], { minter: 'kv-0' }],
    ],
    ['waits while it may or may not have been beaten', 'wait', [[held(5), notHeld(9), undefined]]],
    ['waits for those that cannot tell', 'wait', [[held(5), notHeld(9), unknown]]],
    [
      'is not taken for unbeaten where what beat it was collected',
      'wait',
      [[held(5), notHeld(undefined, 6), undefined]],
    ],
    ['ends at the newest version that it was minted at', 'finish 8', [[held(5), held(8), notHeld(3)]]],
    [
      'ends at the lower of two versions where that one stands and the other was beaten',
      'finish 5',
      [[held(8, 9), held(5, 9), held(5, 9)], { minter: { 8: 'kv-0', 5: 'kv-1' } }],
    ],
    [
      'ends at the higher of two versions where that one stands and the other was beaten',
      'finish 8',
      [[held(5, 9), held(8, 9), held(8, 9)], { minter: { 5: 'kv-0', 8: 'kv-1' } }],
    ],
    [
      'waits while either of two versions may stand',
      'wait',
      [[held(8, 9), held(5, 9), undefined], { minter: { 8: 'kv-0', 5: 'kv-1' } }],
    ],
    [
      'waits while one that has the higher of two versions may have held the lower one before',
      'wait',
      [[held(8, 9), held(5, 9), notHeld(9)], { minter: { 8: 'kv-0', 5: 'kv-1' } }],
    ],
    [
      'is written again where all that is found is a version that its coordinator has given up',
      'write',
      [[held(5, 9), notHeld(9), undefined], { minter: { 5: 'kv-0' }, minted: 8 }],
    ],
    [
      'is written again when a quorum beat each of two versions',
      'write',
      [[held(8, 9), notHeld(9), notHeld(9)], { minter: 'kv-0', minted: 5 }],
    ],
    [
      'counts as minted at the version that its coordinator says, found or not',
      'finish 5',
      [[notHeld(4), notHeld(3), undefined], { minted: 5 }],
    ],
    [
      'is written again when one has beaten it, and its minter has neither shown it nor heard of its end',
      'write',
      [[unsettled(held(5, 9)), notHeld(9), undefined], { minter: 'kv-0', minted: 5 }],
    ],
    [
      'waits for a third when its minter has shown it',
      'wait',
      [[held(5, 9), notHeld(9), undefined], { minter: 'kv-0', minted: 5 }],
    ],
    [
      'stands when another has applied it, although its minter has neither shown it nor heard of its end',
      'finish 5',
      [[unsettled(held(5, 9)), held(5, 9), notHeld(9)], { minter: 'kv-0', minted: 5 }],
    ],
    [
      'waits when its minter is the only one that tells',
      'wait',
      [[unsettled(held(5, 9)), unknown, undefined], { minter: 'kv-0', minted: 5 }],
    ],
    [
      'at ONE stands wherever it was found',
      'finish 5',
      [[held(5), notHeld(9), unknown], { consistency: 'ONE' }],
    ],
    [
      'at ONE is new only when a quorum has not held it',
      'wait',
      [[notHeld(), unknown], { consistency: 'ONE' }],
    ],
    ['of one replica', 'finish 5', [[held(5)]]],
    [
      'waits for a quorum of both sides of a move',
      'wait',
      [[notHeld(), notHeld(), undefined, undefined], { sets: MOVING }],
    ],
    [
      'waits while those who have nothing newer leave a quorum on the other side of a move',
      'wait',
      [[held(5), held(5), unknown, unknown], { sets: MOVING }],
    ],
    [
      'stands when those who have nothing newer leave a quorum on neither side of a move',
      'finish 5',
      [[unknown, held(5), held(5), unknown], { sets: MOVING }],
    ],
    [
      'is not known to be unread while those who beat it leave a quorum on the other side of a move',
      'wait',
      [
        [unsettled(held(5, 9)), notHeld(9), undefined, undefined],
        { minter: 'kv-0', minted: 5, sets: MOVING },
      ],
    ],
    [
      'does not stand on the word of one that was no replica when it began',
      'wait',
      [[held(5), unknown, held(5)], { newcomers: { 'kv-2': 5 } }],
    ],
    [
      'does not stand on having been minted by one that was no replica when it began',
      'wait',
      [[held(5), unknown, undefined], { newcomers: { 'kv-2': 5 }, minter: 'kv-2' }],
    ],
    [
      'stands on the word of one that had become a replica before',
      'finish 5',
      [[held(5), unknown, held(5)], { newcomers: { 'kv-2': 4 } }],
    ],
    [
      'is not written again on the word of a minter that was no replica when it began',
      'wait',
      [
        [unsettled(held(5, 9)), notHeld(9), undefined],
        { minter: 'kv-0', minted: 5, newcomers: { 'kv-0': 5 } },
      ],
    ],
  ];
  for (const [what, verdict, args] of cases) it(what, () => expect(judge(...args)).to.equal(verdict));

  /*
   * One key on n replicas: writes go through coordinators that see only what their own replica holds, reach some
   * replicas in some order, and are brought to others by quorum reads; one of them is sent again.
   */
  interface History {
    readonly count: number;
    /** Each moves time on: a write begins at a replica, one that has begun reaches another, or a quorum reads. */
    readonly steps: readonly (readonly [kind: number, a: number, b: number])[];
    readonly answering: readonly boolean[];
    readonly minterKnown: boolean;
  }

  const histories: fc.Arbitrary<History> = fc.record({
    count: fc.integer({ min: 1, max: 5 }),
    steps: fc.array(fc.tuple(fc.nat(6), fc.nat(99), fc.nat(99)), {
      minLength: 1,
      maxLength: 25,
      size: 'max',
    }),
    answering: fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
    minterKnown: fc.boolean(),
  });

  function play({ count, steps, answering, minterKnown }: History) {
    const stored = Array.from({ length: count }, () => 0);
    const writes: {
      version: number;
      by: number;
      holders: Set<number>;
      /** Replicas of the quorums that have shown it to a read. */
      shownBy: Set<number>;
      quorumBefore: number;
    }[] = [];
    const acknowledged = (write: { holders: Set<number> }): boolean => write.holders.size >= quorumOf(count);
    for (const [kind, a, b] of steps) {
      const by = a % count;
      if (kind < 2) {
        // The clocks of coordinators differ: a version only exceeds what its own replica holds.
        const version = Math.max(stored[by] ?? 0, b % 30) + 1 + by / 10;
        const quorumBefore = Math.max(0, ...writes.filter(acknowledged).map((write) => write.version));
        stored[by] = version;
        writes.push({ version, by, holders: new Set([by]), shownBy: new Set(), quorumBefore });
        continue;
      }
      if (kind === 6) {
        const quorum = Array.from({ length: quorumOf(count) }, (_, index) => (by + index) % count);
        const newest = Math.max(...quorum.map((index) => stored[index] ?? 0));
        const shown = writes.find(({ version }) => version === newest);
        for (const index of quorum) {
          shown?.shownBy.add(index);
          if (stored[index] !== newest) shown?.holders.add(index);
          stored[index] = newest;
        }
        continue;
      }
      const write = writes[b % Math.max(1, writes.length)];
      if (write === undefined || (stored[by] ?? 0) >= write.version) continue;
      stored[by] = write.version;
      write.holders.add(by);
    }
    const retried = writes[0];
    if (retried === undefined) return undefined;
    return writes.map((write) => {
      const answers = stored.map((version, index) => {
        if (answering[index] !== true) return undefined;
        return write.holders.has(index)
          ? held(write.version, version)
          : notHeld(version === 0 ? undefined : version);
      });
      const own = { ...held(write.version, stored[write.by]), unsettled: !write.shownBy.has(write.by) };
      return {
        verdict: judge(answers, minterKnown ? { minter: `kv-${write.by}` } : {}),
        /** When it is the minter that asks. */
        minterVerdict: judge(answers.with(write.by, own), {
          minter: `kv-${write.by}`,
          minted: write.version,
        }),
        shown: write.shownBy.size > 0,
        complete: answers.every((answer) => answer !== undefined),
        answers: answers.filter((answer) => answer !== undefined).length,
        count,
        beatenByEarlier: write.quorumBefore > write.version,
        acknowledged: acknowledged(write),
      };
    });
  }

  it('is never called done when a write acknowledged before it began beats it', () => {
    let met = 0;
    fc.assert(
      fc.property(histories, (history) => {
        for (const { verdict, beatenByEarlier } of play(history) ?? []) {
          if (!beatenByEarlier) continue;
          met += 1;
          expect(verdict).not.to.match(/^finish/);
        }
      }),
      { numRuns: 1000 },
    );
    expect(met).to.be.greaterThan(50);
  });

  it('is never written again when it was acknowledged', () => {
    fc.assert(
      fc.property(histories, (history) => {
        for (const { verdict, acknowledged } of play(history) ?? []) {
          if (acknowledged) expect(verdict).not.to.equal('write');
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('is never written again by its minter when a quorum read has shown it', () => {
    let met = 0;
    fc.assert(
      fc.property(histories, (history) => {
        for (const { minterVerdict, verdict, shown } of play(history) ?? []) {
          if (shown) expect(minterVerdict).not.to.equal('write');
          else if (minterVerdict === 'write' && verdict !== 'write') met += 1;
        }
      }),
      { numRuns: 1000 },
    );
    expect(met, 'written again because it was not shown').to.be.greaterThan(50);
  });

  it('is decided once all replicas have answered', () => {
    fc.assert(
      fc.property(histories, (history) => {
        for (const { verdict, complete } of play(history) ?? [])
          if (complete) expect(verdict).not.to.equal('wait');
      }),
      { numRuns: 1000 },
    );
  });
});
