import { expect } from 'chai';
import fc from 'fast-check';
import { partitionOf } from '../../../model/key-hash.ts';
import {
  digestKey,
  digestOfRecords,
  leafOf,
  LEAVES,
  rootOf,
  shifted,
  weightOf,
  type RecordIdentity,
} from '../../../node/storage/digest.ts';
import { liveRecord, tombstoneRecord } from '../../../node/storage/record.ts';

const KEY = Buffer.from('key');
const IDENTITY: RecordIdentity = {
  version: { wallMs: 2 ** 48 - 2, counter: 0xfffe, writer: 2 ** 48 - 3 },
  checksum: 7,
};

interface Sample {
  readonly key: Buffer;
  readonly record: RecordIdentity;
}

const samples: fc.Arbitrary<Sample[]> = fc.uniqueArray(
  fc.record({
    key: fc.uint8Array({ minLength: 1, maxLength: 8 }).map((bytes) => Buffer.from(bytes)),
    record: fc.record({
      version: fc.record({ wallMs: fc.nat(2 ** 31), counter: fc.nat(0xffff), writer: fc.nat() }),
      checksum: fc.nat(),
    }),
  }),
  { selector: ({ key }) => key.toString('hex'), maxLength: 60 },
);

describe('the digest of records', () => {
  it('is what it always was: nodes of two versions compare theirs', () => {
    const keyDigest = digestKey(KEY);
    const records = [
      { key: KEY, record: liveRecord(KEY, Buffer.from('value'), { wallMs: 1, counter: 2, writer: 3 }) },
      {
        key: Buffer.from('b'),
        record: tombstoneRecord(Buffer.from('b'), { wallMs: 4, counter: 5, writer: 6 }),
      },
    ];
    const { root, leaves } = digestOfRecords(records);
    expect({
      keyDigest,
      leaf: leafOf(keyDigest),
      weight: weightOf(keyDigest, IDENTITY),
      emptyRoot: digestOfRecords([]).root,
      root,
      leaves: Object.fromEntries([...leaves.entries()].filter(([, sum]) => sum !== 0)),
    }).to.deep.equal({
      keyDigest: 2_324_736_937,
      leaf: 93,
      weight: 174_304_734_749_261,
      emptyRoot: 100_302_583_296_080,
      root: 180_810_052_190_940,
      leaves: { 14: 221_092_115_397_450, 93: 89_087_346_409_571 },
    });
  });

  it('does not depend on the order of the records, nor on what they replaced', () => {
    fc.assert(
      fc.property(
        samples,
        samples,
        fc.infiniteStream(fc.nat()),
        (records, replaced, dice: fc.Stream<number>) => {
          const expected = digestOfRecords(records);
          const shuffled = records
            .map((record) => ({ record, at: Number(dice.next().value) }))
            .sort((a, b) => a.at - b.at)
            .map(({ record }) => record);
          expect(digestOfRecords(shuffled)).to.deep.equal(expected);
          // The same leaves, reached over other records.
          const leaves = [...digestOfRecords(replaced).leaves];
          for (const { key, record } of replaced) {
            const leaf = leafOf(digestKey(key));
            leaves[leaf] = shifted(leaves[leaf]!, weightOf(digestKey(key), record), 0);
          }
          for (const { key, record } of records) {
            const leaf = leafOf(digestKey(key));
            leaves[leaf] = shifted(leaves[leaf]!, 0, weightOf(digestKey(key), record));
          }
          expect(leaves).to.deep.equal(expected.leaves);
          expect(rootOf(leaves)).to.equal(expected.root);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('changes with the key, the version and the checksum of any record', () => {
    const base = { key: KEY, record: IDENTITY };
    const { version } = IDENTITY;
    const variants: Sample[] = [
      base,
      { ...base, key: Buffer.from('kez') },
      { ...base, record: { ...IDENTITY, checksum: 8 } },
      { ...base, record: { ...IDENTITY, version: { ...version, wallMs: version.wallMs - 1 } } },
      { ...base, record: { ...IDENTITY, version: { ...version, wallMs: version.wallMs - 2 ** 40 } } },
      { ...base, record: { ...IDENTITY, version: { ...version, counter: version.counter - 1 } } },
      { ...base, record: { ...IDENTITY, version: { ...version, writer: version.writer - 1 } } },
      { ...base, record: { ...IDENTITY, version: { ...version, writer: version.writer - 2 ** 40 } } },
    ];
    const roots = variants.map((variant) => digestOfRecords([variant]).root);
    expect(new Set([...roots, digestOfRecords([]).root]).size).to.equal(variants.length + 1);
  });

  it('keeps sums exact below 2^48', () => {
    const top = 2 ** 48 - 1;
    expect(shifted(top, 0, top)).to.equal(top - 1);
    expect(shifted(0, top, 0)).to.equal(1);
    expect(shifted(shifted(5, 0, top), top, 0)).to.equal(5);
  });

  it('spreads the keys of one partition over all leaves', () => {
    const counts = new Array<number>(LEAVES).fill(0);
    for (let index = 0; index < 400_000; index += 1) {
      const key = Buffer.from(`user-${index}`);
      if (partitionOf(key, 64) === 9) counts[leafOf(digestKey(key))]! += 1;
    }
    // About 24 for each.
    expect(Math.min(...counts)).to.be.greaterThan(5);
    expect(Math.max(...counts)).to.be.lessThan(60);
  });
});
