import { expect } from 'chai';
import fc from 'fast-check';
import { crc32 } from 'node:zlib';
import type { Version } from '../../../model/version.ts';
import { EntryWriter } from '../../../node/storage/entry-writer.ts';
import {
  decodeEntry,
  decodeGroup,
  encodeGroup,
  entrySeed,
  GROUP_BYTES,
  groupFollows,
  readFrame,
  type LogEntry,
} from '../../../node/storage/entry.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import {
  decodeSegmentHead,
  encodeSegmentHead,
  segmentName,
  segmentNumber,
} from '../../../node/storage/segment.ts';
import { StoreCorrupt, StoreUnsupported } from '../../../node/storage/store-errors.ts';

const STORE_ID = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
const SEED = entrySeed(STORE_ID);
const VERSION: Version = { wallMs: 1, counter: 2, writer: 3 };
const KEY = Buffer.from('k');

function written(write: (writer: EntryWriter) => void): Buffer {
  const writer = new EntryWriter(SEED);
  write(writer);
  const bytes = Buffer.concat(writer.finish());
  expect(writer.bytes).to.equal(bytes.length);
  return bytes;
}

function decodeAll(bytes: Buffer): (LogEntry | undefined)[] {
  const entries: (LogEntry | undefined)[] = [];
  for (let at = 0; at < bytes.length;) {
    const frame = readFrame(bytes, at, SEED);
    if (frame === undefined) throw new Error(`damaged at ${at}`);
    entries.push(decodeEntry(bytes, frame));
    at = frame.end;
  }
  return entries;
}

const RECORD = {
  sequence: 0x0102,
  own: true,
  partition: 0x0304,
  key: KEY,
  record: liveRecord(KEY, Buffer.from('v'), VERSION),
  previous: { wallMs: 4, counter: 5, writer: 6 },
  requestId: { clientId: Buffer.from('c'), number: 2 ** 40 + 7, clientStartMs: 8, attempt: 9 },
};

describe('the entries of the log', () => {
  const golden = {
    group: encodeGroup({ sequence: 7, offset: 41, ceilings: { sequence: 4103, clockMs: 500 } }, SEED),
    record: written((writer) => writer.record(RECORD)),
    'remote record': written((writer) =>
      writer.record({ ...RECORD, own: false, previous: undefined, requestId: undefined }),
    ),
    cursor: written((writer) => writer.cursor(3, { origin: 'kv-1', incarnation: 10, sequence: 11 })),
    meta: written((writer) => writer.meta(4, 'map', Buffer.from('{}'))),
    'clean end': written((writer) => writer.cleanEnd(5)),
    'segment head': encodeSegmentHead({ storeId: STORE_ID, number: 1, firstSequence: 2, madeAtMs: 3 }),
  };
  const expected: Record<keyof typeof golden, string> = {
    group: 'da0a6e23000000220100000000000007894b5667726f75700000000000290000000010070000000001f4',
    record:
      '2c183dba0000004802070000000001020304000100000015000000000004000500000000000600000100000000070000000000080000000901636b0100000000000001000200000000000376c50d54b9',
    'remote record':
      '843c05a100000026020000000000010203040001000000156b0100000000000001000200000000000376c50d54b9',
    cursor: '6f89f42c0000001a030000000000000300000000000a00000000000b00046b762d31',
    meta: '5fc537fa0000001304000000000000040003000000026d61707b7d',
    'clean end': 'f7667b2c000000080500000000000005',
    'segment head':
      '894b566c6f670d0a01000102030405060708090a0b0c0d0e0f00000000000100000000000200000000000344f0f1b8',
  };
  for (const name of Object.keys(golden) as (keyof typeof golden)[]) {
    it(`are encoded as format 1 always did: ${name}`, () => {
      expect(golden[name].toString('hex')).to.equal(expected[name]);
    });
  }

  it('come back as they were written, in any order and size', () => {
    const bytes = (minLength: number, maxLength: number): fc.Arbitrary<Buffer> =>
      fc.uint8Array({ minLength, maxLength }).map((array) => Buffer.from(array));
    const versions = fc.record({ wallMs: fc.nat(), counter: fc.nat(0xffff), writer: fc.nat() });
    const entries = fc.oneof(
      fc.record({
        kind: fc.constant('record' as const),
        own: fc.boolean(),
        partition: fc.nat(0xffff),
        key: bytes(1, 1024),
        // Beyond 8 KiB records are not copied into the writer's buffer.
        value: fc.oneof(
          bytes(0, 300),
          fc.nat(20_000).map((length) => Buffer.alloc(length, 3)),
        ),
        version: versions,
        previous: fc.option(versions, { nil: undefined }),
        requestId: fc.option(
          fc.record({
            clientId: bytes(0, 255),
            number: fc.maxSafeNat(),
            clientStartMs: fc.nat(),
            attempt: fc.nat(),
          }),
          { nil: undefined },
        ),
      }),
      fc.record({
        kind: fc.constant('cursor' as const),
        cursor: fc.record({
          origin: fc.string({ maxLength: 100 }),
          incarnation: fc.nat(),
          sequence: fc.nat(),
        }),
      }),
      fc.record({
        kind: fc.constant('meta' as const),
        name: fc.string({ maxLength: 100 }),
        value: bytes(0, 500),
      }),
    );
    fc.assert(
      fc.property(fc.array(entries, { maxLength: 20 }), (list) => {
        const expectedEntries: LogEntry[] = [];
        const encoded = written((writer) => {
          list.forEach((entry, index) => {
            const sequence = index + 1;
            if (entry.kind === 'record') {
              const record = liveRecord(entry.key, entry.value, entry.version);
              const { own, partition, key, previous, requestId } = entry;
              writer.record({ sequence, own, partition, key, record, previous, requestId });
              expectedEntries.push({
                kind: 'record',
                sequence,
                own,
                partition,
                key,
                record,
                previous,
                requestId,
              });
            } else if (entry.kind === 'cursor') {
              writer.cursor(sequence, entry.cursor);
              expectedEntries.push({ kind: 'cursor', sequence, cursor: entry.cursor });
            } else {
              writer.meta(sequence, entry.name, entry.value);
              expectedEntries.push({ kind: 'meta', sequence, name: entry.name, value: entry.value });
            }
          });
        });
        expect(decodeAll(encoded)).to.deep.equal(expectedEntries);
      }),
      { numRuns: 60 },
    );
  });

  it('are damaged by any flipped bit and any missing byte, and never misread', () => {
    const bytes = golden.record;
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7));
      expect(readFrame(flipped, 0, SEED), `bit ${bit}`).to.equal(undefined);
    }
    for (let length = 0; length < bytes.length; length += 1) {
      expect(readFrame(bytes.subarray(0, length), 0, SEED)).to.equal(undefined);
    }
  });

  it('of another store are damage', () => {
    expect(readFrame(golden.record, 0, entrySeed(Buffer.alloc(16)))).to.equal(undefined);
  });

  it('of an unknown kind or with an unknown flag are refused aloud', () => {
    for (const offset of [8, 9]) {
      const newer = Buffer.from(golden.cursor);
      newer[offset] = 0x7f;
      newer.writeUInt32BE(crc32(newer.subarray(4), SEED), 0);
      expect(() => readFrame(newer, 0, SEED)).to.throw(StoreUnsupported, /newer version/);
    }
  });

  it('whose sound checksum covers nonsense are corruption', () => {
    const nonsense = Buffer.from(golden.record);
    nonsense.writeUInt16BE(500, 18);
    nonsense.writeUInt32BE(crc32(nonsense.subarray(4), SEED), 0);
    const frame = readFrame(nonsense, 0, SEED);
    expect(() => decodeEntry(nonsense, frame!)).to.throw(StoreCorrupt);
  });
});

describe('a group', () => {
  it('counts only where it was written', () => {
    const ceilings = { sequence: 9, clockMs: 8 };
    const bytes = Buffer.concat([
      Buffer.alloc(100),
      encodeGroup({ sequence: 1, offset: 100, ceilings }, SEED),
    ]);
    const frame = readFrame(bytes, 100, SEED);
    expect(decodeGroup(bytes, frame!)).to.deep.equal(ceilings);
    const moved = bytes.subarray(1);
    expect(decodeGroup(moved, readFrame(moved, 99, SEED)!)).to.equal(undefined);
    expect(groupFollows(bytes, 0, SEED)).to.equal(true);
    expect(groupFollows(bytes, 100, SEED)).to.equal(false);
    expect(groupFollows(moved, 0, SEED)).to.equal(false);
    expect(bytes.length).to.equal(100 + GROUP_BYTES);
  });
});

describe('the head of a segment', () => {
  const head = { storeId: STORE_ID, number: 12, firstSequence: 13, madeAtMs: 14 };

  it('comes back as it was written', () => {
    expect(decodeSegmentHead(encodeSegmentHead(head), { storeId: STORE_ID, number: 12 })).to.deep.equal(head);
    expect(segmentNumber(segmentName(12))).to.equal(12);
    expect(segmentNumber('lost+found')).to.equal(undefined);
  });

  it('is damaged by any flipped bit', () => {
    const bytes = encodeSegmentHead(head);
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7));
      expect(decodeSegmentHead(flipped, { number: 12 }), `bit ${bit}`).to.equal(undefined);
    }
  });

  it('of another store, another segment or a newer format is refused', () => {
    const bytes = encodeSegmentHead(head);
    expect(() => decodeSegmentHead(bytes, { storeId: Buffer.alloc(16), number: 12 })).to.throw(
      StoreCorrupt,
      /another store/,
    );
    expect(() => decodeSegmentHead(bytes, { storeId: STORE_ID, number: 11 })).to.throw(
      StoreCorrupt,
      /copy of segment 12/,
    );
    bytes[8] = 2;
    bytes.writeUInt32BE(crc32(bytes.subarray(0, -4)), bytes.length - 4);
    expect(() => decodeSegmentHead(bytes, { number: 12 })).to.throw(StoreUnsupported, /newer version/);
  });
});
