import { expect } from 'chai';
import fc from 'fast-check';
import { crc32 } from 'node:zlib';
import { decodeRecord, liveRecord, tombstoneRecord } from '../../../node/storage/record.ts';
import type { StoredRecord } from '../../../node/storage/store.ts';
import { anyBytes, attempt, bytes, damaged, keys, RUNS, uint48, versions } from './hostile.ts';

const CODES = ['DATA_LOSS', 'FAILED_PRECONDITION'] as const;

const records: fc.Arbitrary<{ key: Buffer; record: StoredRecord }> = fc
  .record({
    key: keys,
    value: fc.option(bytes(200), { nil: undefined }),
    version: versions,
    expiresAtMs: fc.option(uint48(), { nil: undefined }),
  })
  .map(({ key, value, version, expiresAtMs }) => ({
    key,
    record:
      value === undefined ? tombstoneRecord(key, version) : liveRecord(key, value, version, expiresAtMs),
  }));

/** The same bytes with a checksum that fits: nonsense that was written on purpose, or by a newer version. */
function sealed(key: Buffer, body: Buffer): Buffer {
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(body, crc32(key)));
  return Buffer.concat([body, checksum]);
}

/** What a record says, written anew. */
function encodedAgain(key: Buffer, { tombstone, value, version, expiresAtMs }: StoredRecord): Buffer {
  return tombstone && value.length === 0 && expiresAtMs === undefined
    ? tombstoneRecord(key, version).bytes
    : liveRecord(key, value, version, expiresAtMs).bytes;
}

describe('fuzzed records', () => {
  it('come back as they were written', () => {
    fc.assert(
      fc.property(records, ({ key, record }) => {
        const decoded = decodeRecord(key, Buffer.from(record.bytes));
        expect(decoded).to.deep.equal(record);
        expect(encodedAgain(key, decoded)).to.deep.equal(record.bytes);
      }),
      { numRuns: RUNS },
    );
  });

  it('are DATA_LOSS after any damage, and under any other key', () => {
    const hurt = records.chain(({ key, record }) =>
      fc.record({ key: fc.constant(key), bytes: damaged(fc.constant(record.bytes)) }),
    );
    const misplaced = fc
      .tuple(records, keys)
      .filter(([{ key }, other]) => !key.equals(other))
      .map(([{ record }, key]) => ({ key, bytes: record.bytes }));
    fc.assert(
      fc.property(fc.oneof(hurt, misplaced), ({ key, bytes: encoded }) => {
        expect(attempt(['DATA_LOSS'], () => decodeRecord(key, encoded))).to.have.property('error');
      }),
      { numRuns: 2 * RUNS },
    );
  });

  it('are an error or a record that can be written again, whatever stands under a fitting checksum', () => {
    fc.assert(
      fc.property(
        keys,
        fc.oneof(anyBytes, damaged(records.map(({ record }) => record.bytes.subarray(0, -4)))),
        (key, body) => {
          const encoded = sealed(key, body);
          const outcome = attempt(CODES, () => decodeRecord(key, encoded));
          if ('error' in outcome) return;
          const { tombstone, value, expiresAtMs } = outcome.value;
          // A tombstone with a value or an expiry has never been written; it is read as what it says.
          if (tombstone && (value.length > 0 || expiresAtMs !== undefined)) return;
          expect(encodedAgain(key, outcome.value)).to.deep.equal(encoded);
        },
      ),
      { numRuns: 2 * RUNS },
    );
  });

  it('are refused in no time when they are nothing at all', () => {
    fc.assert(
      fc.property(keys, anyBytes, (key, encoded) => {
        expect(attempt(CODES, () => decodeRecord(key, encoded))).to.have.property('error');
      }),
      { numRuns: RUNS },
    );
  });
});
