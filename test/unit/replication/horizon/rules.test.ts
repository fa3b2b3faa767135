import { expect } from 'chai';
import fc from 'fast-check';
import type { Version } from '../../../../model/version.ts';
import { compareVersions } from '../../../../model/version.ts';
import {
  collectableFromMs,
  isCollectable,
  isCovered,
  judgeForeign,
  newestCovered,
} from '../../../../node/replication/horizon/rules.ts';
import { liveRecord, tombstoneRecord } from '../../../../node/storage/record.ts';

const KEY = Buffer.from('k');
const at = (wallMs: number, counter = 0): Version => ({ wallMs, counter, writer: 7 });
const deleted = (wallMs: number) => tombstoneRecord(KEY, at(wallMs));
const live = (wallMs: number, expiresAtMs?: number) =>
  liveRecord(KEY, Buffer.from('v'), at(wallMs), expiresAtMs);

describe('a horizon', () => {
  it('covers what was minted before its millisecond, and nothing that was minted in it', () => {
    expect(isCovered(at(99, 65_535), 100)).to.equal(true);
    expect(isCovered(at(100), 100)).to.equal(false);
    expect(isCovered(at(0), 0)).to.equal(false);
  });

  it('collects covered tombstones and covered records whose expiry is covered, and nothing else', () => {
    const cases: [string, ReturnType<typeof deleted>, number][] = [
      ['a tombstone', deleted(50), 51],
      ['an expired record', live(50, 80), 81],
      ['a record that expired before it was minted', live(50, 20), 51],
      ['a record that stays', live(50), Infinity],
    ];
    for (const [what, record, from] of cases) {
      expect(collectableFromMs(record), what).to.equal(from);
      expect(isCollectable(record, Math.min(from - 1, 2 ** 48)), what).to.equal(false);
      if (from < Infinity) expect(isCollectable(record, from), what).to.equal(true);
    }
  });

  it('refuses an unknown covered record of a sender that is behind, and no other', () => {
    const judged = (known: boolean, senderHorizonMs: number, record = live(50)) =>
      judgeForeign({ record, known, senderHorizonMs, ownHorizonMs: 100 });
    expect(judged(false, 99)).to.equal('ghost');
    expect(judged(true, 99), 'known').to.equal('apply');
    expect(judged(false, 100), 'sender as far').to.equal('apply');
    expect(judged(false, 0, live(100)), 'not covered').to.equal('apply');
    expect(judged(false, 100, deleted(50)), 'what would be collected at once').to.equal('collected');
    expect(judged(true, 100, deleted(50))).to.equal('apply');
  });

  it('has a newest covered version, above which the next one is not covered', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2 ** 40 }),
        fc.integer({ min: 0, max: 2 ** 41 }),
        fc.nat(65_535),
        (g, wallMs, counter) => {
          const version = at(wallMs, counter);
          expect(compareVersions(version, newestCovered(g)) < 0).to.equal(isCovered(version, g));
        },
      ),
    );
  });
});
