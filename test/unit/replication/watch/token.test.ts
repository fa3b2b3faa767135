import { expect } from 'chai';
import fc from 'fast-check';
import { KvError } from '../../../../common/errors.ts';
import {
  decodeWatchToken,
  encodeWatchToken,
  type ToldThrough,
} from '../../../../node/replication/watch/token.ts';

const PARTITIONS = 20;
const prefix = Buffer.from('a/');

/** Every partition in one of some groups. */
const told = fc
  .array(
    fc.record({
      place: fc.option(
        fc.record({
          nodeId: fc.constantFrom('kv-0', 'kv-1', 'kv-12-w3'),
          incarnation: fc.integer({ min: 1, max: 2 ** 48 - 1 }),
          sequence: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
        }),
        { nil: undefined },
      ),
      marks: fc.array(fc.integer({ min: 0, max: 2 ** 48 - 1 }), { minLength: 1, maxLength: 3 }),
    }),
    { minLength: 1, maxLength: 5 },
  )
  .map((groups): ToldThrough[] =>
    groups.map(({ place, marks }, index) => ({
      place,
      marks: new Map(
        Array.from({ length: PARTITIONS }, (_, partition) => partition)
          .filter((partition) => partition % groups.length === index)
          .map((partition) => [partition, marks[partition % marks.length] ?? 0]),
      ),
    })),
  );

function sorted(groups: readonly ToldThrough[]): unknown {
  return groups.map(({ place, marks }) => ({ place, marks: [...marks].sort(([a], [b]) => a - b) }));
}

function codeOf(action: () => unknown): string | undefined {
  try {
    action();
  } catch (error) {
    return error instanceof KvError ? error.code : String(error);
  }
  return undefined;
}

describe('a token of a watch', () => {
  it('says what it was made of', () => {
    fc.assert(
      fc.property(told, (groups) => {
        const token = encodeWatchToken(prefix, { clusterId: 'c0ffee', told: groups }, PARTITIONS);
        const decoded = decodeWatchToken(prefix, token, PARTITIONS);
        expect(decoded.clusterId).to.equal('c0ffee');
        expect(sorted(decoded.told)).to.deep.equal(sorted(groups));
      }),
    );
  });

  it('has the form that earlier versions gave', () => {
    const marks = new Map(
      Array.from({ length: 12 }, (_, partition) => [partition, partition < 8 ? 1_800_000_000_000 : 5]),
    );
    const token = {
      clusterId: 'c0ffee',
      told: [{ place: { nodeId: 'kv-0', incarnation: 77, sequence: 265 }, marks }],
    };
    const golden = Buffer.from(
      '015de38bb80a06633066666565121f0a046b762d30104d188902220a0a01ff1080a0f1c2b13422060a02000f1005',
      'hex',
    );
    expect(encodeWatchToken(prefix, token, 12)).to.deep.equal(golden);
    expect(decodeWatchToken(prefix, golden, 12)).to.deep.equal(token);
  });

  it('is refused as INVALID_ARGUMENT with any byte changed, cut, or of another prefix', () => {
    const groups = [
      { place: undefined, marks: new Map(Array.from({ length: PARTITIONS }, (_, at) => [at, 7])) },
    ];
    const token = encodeWatchToken(prefix, { clusterId: 'c0ffee', told: groups }, PARTITIONS);
    for (let at = 0; at < token.length; at += 1) {
      const changed = Buffer.from(token);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(codeOf(() => decodeWatchToken(prefix, changed, PARTITIONS))).to.equal('INVALID_ARGUMENT');
      expect(codeOf(() => decodeWatchToken(prefix, token.subarray(0, at), PARTITIONS))).to.equal(
        'INVALID_ARGUMENT',
      );
    }
    expect(codeOf(() => decodeWatchToken(Buffer.from('b'), token, PARTITIONS))).to.equal('INVALID_ARGUMENT');
  });

  it('is refused as INVALID_ARGUMENT, whatever anybody puts behind a checksum that fits', () => {
    const marks = (...partitions: number[]) => new Map(partitions.map((partition) => [partition, 1]));
    const all = Array.from({ length: PARTITIONS }, (_, at) => at);
    const bad: readonly (readonly ToldThrough[])[] = [
      [],
      [{ place: undefined, marks: marks(...all.slice(1)) }],
      [
        { place: undefined, marks: marks(...all) },
        { place: undefined, marks: marks(3) },
      ],
      [{ place: { nodeId: 'a', incarnation: 2 ** 48, sequence: 0 }, marks: marks(...all) }],
      [{ place: { nodeId: 'a', incarnation: 1, sequence: 2 ** 50 }, marks: marks(...all) }],
      [{ place: undefined, marks: new Map(all.map((partition) => [partition, 2 ** 48])) }],
    ];
    for (const groups of bad) {
      const token = encodeWatchToken(prefix, { clusterId: 'c', told: groups }, PARTITIONS);
      expect(codeOf(() => decodeWatchToken(prefix, token, PARTITIONS))).to.equal('INVALID_ARGUMENT');
    }
    // A token of a cluster with more partitions.
    const wide = [{ place: undefined, marks: marks(...all, 20, 21, 22, 23, 24, 25) }];
    const token = encodeWatchToken(prefix, { clusterId: 'c', told: wide }, 26);
    expect(codeOf(() => decodeWatchToken(prefix, token, PARTITIONS))).to.equal('INVALID_ARGUMENT');
  });

  it('never fails otherwise, whatever it is', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(codeOf(() => decodeWatchToken(prefix, Buffer.from(bytes), PARTITIONS))).to.equal(
          'INVALID_ARGUMENT',
        );
      }),
    );
  });
});
