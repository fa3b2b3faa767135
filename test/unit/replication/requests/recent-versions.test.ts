import { expect } from 'chai';
import fc from 'fast-check';
import { compareVersions, newestVersion, NO_VERSION, type Version } from '../../../../model/version.ts';
import { RecentVersions } from '../../../../node/replication/requests/recent-versions.ts';

const MINUTE = 60_000;
const at = (wallMs: number, counter = 0, writer = 7): Version => ({ wallMs, counter, writer });

describe('the memory of versions', () => {
  const noting = (capacity: number, versions: readonly Version[]): RecentVersions => {
    const memory = new RecentVersions(capacity);
    for (const version of versions) memory.note(version);
    return memory;
  };
  const held = (memory: RecentVersions, upTo: number): number[] =>
    Array.from({ length: upTo }, (_, index) => index + 1).filter((wallMs) => memory.has(at(wallMs)));

  it('has the versions that were noted, and no others', () => {
    const memory = noting(10, [at(5, 1, 7)]);
    expect(memory.has(at(5, 1, 7))).to.equal(true);
    for (const other of [at(4, 1, 7), at(5, 0, 7), at(5, 1, 8)]) {
      expect(memory.has(other)).to.equal(false);
      expect(memory.mayHaveForgotten(other)).to.equal(false);
    }
  });

  it('forgets the oldest half when there are twice as many as it has to keep', () => {
    const memory = noting(
      3,
      [1, 2, 3, 4, 5].map((wallMs) => at(wallMs)),
    );
    expect(held(memory, 6)).to.deep.equal([1, 2, 3, 4, 5]);
    memory.note(at(6));
    expect(held(memory, 6)).to.deep.equal([4, 5, 6]);
  });

  it('takes for the oldest what was noted first, whatever its version', () => {
    const memory = noting(
      2,
      [4, 3, 2, 1].map((wallMs) => at(wallMs)),
    );
    expect(held(memory, 4)).to.deep.equal([1, 2]);
  });

  it('has no need of room for a version that is noted again', () => {
    const memory = noting(
      2,
      [1, 2, 3, 3, 3, 2, 1].map((wallMs) => at(wallMs)),
    );
    expect(held(memory, 3)).to.deep.equal([1, 2, 3]);
  });

  it('may have forgotten what is not newer than the newest forgotten, and says so of nothing that it has', () => {
    const memory = noting(
      2,
      [9, 4, 2, 12].map((wallMs) => at(wallMs)),
    );
    expect(held(memory, 12)).to.deep.equal([2, 12]);
    const forgotten = [1, 2, 3, 4, 8, 9, 10, 11, 12].filter((wallMs) => memory.mayHaveForgotten(at(wallMs)));
    expect(forgotten).to.deep.equal([1, 3, 4, 8, 9]);
    expect(memory.mayHaveForgotten(at(9, 1)), 'of the same millisecond').to.equal(false);
  });

  it('does not keep what is older than the newest by more than a minute, and says that it may have forgotten it', () => {
    const memory = noting(10, [at(2 * MINUTE), at(MINUTE), at(MINUTE - 1)]);
    expect(memory.has(at(MINUTE))).to.equal(true);
    expect(memory.has(at(MINUTE - 1))).to.equal(false);
    expect(memory.mayHaveForgotten(at(MINUTE - 1))).to.equal(true);
    expect(memory.mayHaveForgotten(at(MINUTE, 1)), 'newer, and never noted').to.equal(false);
  });

  it('keeps the last ones, and may have forgotten exactly what is up to the newest it does not have', () => {
    const versions = fc.record({
      wallMs: fc.oneof(fc.nat(20), fc.integer({ min: 0, max: 2 * MINUTE })),
      counter: fc.nat(2),
      writer: fc.nat(2),
    });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }),
        fc.array(versions, { maxLength: 40, size: 'max' }),
        fc.array(versions, { maxLength: 10 }),
        (capacity, noted, others) => {
          const memory = noting(capacity, noted);
          const forgotten = noted.filter((version) => !memory.has(version)).reduce(newestVersion, NO_VERSION);
          for (const version of [...noted, ...others]) {
            const isCovered = compareVersions(version, forgotten) <= 0 && !memory.has(version);
            const isNone = compareVersions(version, NO_VERSION) === 0;
            if (!isNone) expect(memory.mayHaveForgotten(version)).to.equal(isCovered);
          }
          const newestMs = Math.max(0, ...noted.map(({ wallMs }) => wallMs));
          for (const version of noted.slice(-capacity)) {
            if (version.wallMs >= newestMs - MINUTE) expect(memory.has(version)).to.equal(true);
          }
        },
      ),
    );
  });
});
