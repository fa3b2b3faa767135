import { expect } from 'chai';
import fc from 'fast-check';
import { crc32 } from 'node:zlib';
import { decodeMarks, encodeMarks } from '../../../node/replication/watch/marks.ts';
import {
  decodeWatchToken,
  encodeWatchToken,
  type WatchToken,
} from '../../../node/replication/watch/token.ts';
import { decodePiece, decodeRequest, encodePiece } from '../../../node/replication/watch/wire.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import { WatchChunk, WatchPartitionsRequest } from '../../../proto/gen/peer.ts';
import { anyBytes, attempt, bytes, damaged, keys, RUNS, uint48, versions, within } from './hostile.ts';

const CODES = ['INVALID_ARGUMENT'] as const;
const PARTITIONS = 16;
const PREFIX = Buffer.from('p');

const marks = fc
  .uniqueArray(fc.tuple(fc.nat(PARTITIONS - 1), fc.oneof(fc.constant(7), uint48())), {
    selector: ([partition]) => partition,
    maxLength: PARTITIONS,
  })
  .map((pairs) => new Map(pairs));

/** Every partition in one of a few places. */
const tokens: fc.Arbitrary<WatchToken> = fc
  .record({
    clusterId: bytes(16, 16).map((id) => id.toString('hex')),
    places: fc.array(
      fc.option(
        fc.record({ nodeId: fc.constantFrom('kv-0', 'kv-1'), incarnation: uint48(1), sequence: uint48() }),
        { nil: undefined },
      ),
      { minLength: 1, maxLength: 3 },
    ),
    shares: fc.array(fc.tuple(fc.nat(2), uint48()), { minLength: PARTITIONS, maxLength: PARTITIONS }),
  })
  .map(({ clusterId, places, shares }) => ({
    clusterId,
    told: places.map((place, index) => ({
      place,
      marks: new Map(
        shares.flatMap(([share, markMs], partition) =>
          share % places.length === index ? [[partition, markMs] as const] : [],
        ),
      ),
    })),
  }));

/** What anybody can make who has read the source. */
function forged(body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head[0] = 1;
  head.writeUInt32BE(crc32(body, crc32(Buffer.alloc(1), crc32(PREFIX))), 1);
  return Buffer.concat([head, body]);
}

describe('fuzzed tokens of a watch', () => {
  it('resume where they were made', () => {
    fc.assert(
      fc.property(tokens, (token) => {
        const decoded = decodeWatchToken(PREFIX, encodeWatchToken(PREFIX, token, PARTITIONS), PARTITIONS);
        expect(decoded).to.deep.equal(token);
      }),
      { numRuns: RUNS },
    );
  });

  it('are INVALID_ARGUMENT after any damage, and under another prefix', () => {
    const hurt = damaged(tokens.map((token) => encodeWatchToken(PREFIX, token, PARTITIONS)));
    fc.assert(
      fc.property(fc.oneof(hurt, anyBytes), (token) => {
        const decode = (): WatchToken => decodeWatchToken(PREFIX, token, PARTITIONS);
        expect(attempt(CODES, decode)).to.have.property('error');
      }),
      { numRuns: RUNS },
    );
    fc.assert(
      fc.property(tokens, bytes(10), (token, prefix) => {
        fc.pre(!prefix.equals(PREFIX));
        const encoded = encodeWatchToken(PREFIX, token, PARTITIONS);
        expect(attempt(CODES, () => decodeWatchToken(prefix, encoded, PARTITIONS))).to.have.property('error');
      }),
      { numRuns: RUNS },
    );
  });

  it('name every partition once or are INVALID_ARGUMENT, however well they are made', () => {
    const bodies = fc.oneof(
      anyBytes,
      damaged(tokens.map((token) => encodeWatchToken(PREFIX, token, PARTITIONS).subarray(5))),
    );
    fc.assert(
      fc.property(bodies, (body) => {
        const outcome = attempt(CODES, () => decodeWatchToken(PREFIX, forged(body), PARTITIONS));
        if ('error' in outcome) return;
        const named = outcome.value.told.flatMap((told) => [...told.marks.keys()]);
        expect(named.sort((a, b) => a - b)).to.deep.equal(
          Array.from({ length: PARTITIONS }, (_, index) => index),
        );
      }),
      { numRuns: 2 * RUNS },
    );
  });

  it('of very many places or marks are refused in no time', () => {
    const places = Buffer.alloc(3_000_000, Buffer.from([0x12, 0]));
    // One place, whose length takes four bytes, of nothing but empty marks.
    const inner = Buffer.alloc(3_000_000, Buffer.from([0x22, 0]));
    const length = [0, 7, 14].map((shift) => ((inner.length >> shift) & 0x7f) | 0x80);
    const one = Buffer.concat([Buffer.from([0x12, ...length, inner.length >> 21]), inner]);
    for (const body of [places, one]) {
      const outcome = within(500, () =>
        attempt(CODES, () => decodeWatchToken(PREFIX, forged(body), PARTITIONS)),
      );
      expect(outcome).to.have.property('error');
    }
  });
});

describe('fuzzed messages of a watch between nodes', () => {
  it('carry marks as they are, or are INVALID_ARGUMENT', () => {
    fc.assert(
      fc.property(marks, (sent) => {
        const decoded = decodeMarks(encodeMarks(sent, PARTITIONS), PARTITIONS);
        expect([...decoded].sort()).to.deep.equal([...sent].sort());
      }),
      { numRuns: RUNS },
    );
    const wire = fc.array(fc.record({ markMs: fc.maxSafeNat(), partitions: bytes(4) }), { maxLength: 4 });
    fc.assert(
      fc.property(wire, (sent) => {
        const outcome = attempt(CODES, () => decodeMarks(sent, PARTITIONS));
        if ('error' in outcome) return;
        for (const [partition, markMs] of outcome.value) {
          expect(partition).to.be.below(PARTITIONS);
          expect(markMs).to.be.below(2 ** 48);
        }
      }),
      { numRuns: RUNS },
    );
  });

  it('are requests and pieces, or one of the documented errors', () => {
    const piece = fc
      .record({ incarnation: uint48(1), sequence: uint48(), key: keys, version: versions, marks })
      .map(({ key, version, ...rest }) => {
        const records = [{ key, record: liveRecord(key, Buffer.from('v'), version) }];
        return Buffer.from(WatchChunk.encode(encodePiece({ ...rest, records }, PARTITIONS)).finish());
      });
    fc.assert(
      fc.property(fc.oneof(piece, damaged(piece), anyBytes), (encoded) => {
        const chunk = messageOf(() => WatchChunk.decode(encoded));
        const asked = new Map([[1, 0]]);
        if (chunk !== undefined) {
          attempt(['INVALID_ARGUMENT', 'DATA_LOSS', 'FAILED_PRECONDITION'], () =>
            decodePiece(chunk, asked, PARTITIONS),
          );
        }
        const request = messageOf(() => WatchPartitionsRequest.decode(encoded));
        if (request !== undefined) attempt(CODES, () => decodeRequest(request, PARTITIONS));
      }),
      { numRuns: 2 * RUNS },
    );
  });

  function messageOf<T>(decode: () => T): T | undefined {
    try {
      return decode();
    } catch (error) {
      expect(error).to.be.instanceOf(Error);
      return undefined;
    }
  }
});
