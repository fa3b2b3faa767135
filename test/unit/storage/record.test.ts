import { expect } from 'chai';
import fc from 'fast-check';
import { crc32 } from 'node:zlib';
import { KvError } from '../../../common/errors.ts';
import { MAX_COUNTER, MAX_WALL_MS, type Version } from '../../../model/version.ts';
import {
  decodeRecord,
  liveRecord,
  RECORD_OVERHEAD_BYTES,
  tombstoneRecord,
} from '../../../node/storage/record.ts';
import { StoreUnsupported } from '../../../node/storage/store-errors.ts';

const KEY = Buffer.from('key');
const VERSION: Version = { wallMs: 0x0102030405, counter: 0x0607, writer: 0x08090a0b0c0d };

const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));
const versions: fc.Arbitrary<Version> = fc.record({
  wallMs: fc.maxSafeNat().map((value) => value % (MAX_WALL_MS + 1)),
  counter: fc.integer({ min: 0, max: MAX_COUNTER }),
  writer: fc.maxSafeNat().map((value) => value % 2 ** 48),
});

describe('the record format', () => {
  const golden = [
    {
      name: 'a value',
      record: liveRecord(KEY, Buffer.from('value'), VERSION),
      hex: '01000001020304050607' + '08090a0b0c0d' + '76616c7565',
    },
    {
      name: 'a value that expires',
      record: liveRecord(KEY, Buffer.from('value'), VERSION, 0x0e0f10111213),
      hex: '01020001020304050607' + '08090a0b0c0d' + '0e0f10111213' + '76616c7565',
    },
    {
      name: 'an empty value',
      record: liveRecord(KEY, Buffer.alloc(0), VERSION),
      hex: '01000001020304050607' + '08090a0b0c0d',
    },
    {
      name: 'a tombstone',
      record: tombstoneRecord(KEY, VERSION),
      hex: '01010001020304050607' + '08090a0b0c0d',
    },
  ];
  const checksums = ['51b21ac1', '30484224', '0b7c95f8', 'b2874e10'];

  for (const [index, { name, record, hex }] of golden.entries()) {
    it(`encodes ${name} as version 1 always did`, () => {
      const body = Buffer.from(hex, 'hex');
      const checksum = crc32(Buffer.concat([KEY, body]));
      expect(record.bytes.toString('hex')).to.equal(hex + checksum.toString(16).padStart(8, '0'));
      expect(record.checksum).to.equal(checksum);
      expect(record.bytes.subarray(-4).toString('hex')).to.equal(checksums[index]);
    });
  }

  it('reads back what it wrote', () => {
    fc.assert(
      fc.property(
        bytes(40),
        bytes(300),
        versions,
        fc.option(fc.nat(), { nil: undefined }),
        (key, value, version, expiry) => {
          const live = liveRecord(key, value, version, expiry);
          expect(decodeRecord(key, live.bytes)).to.deep.equal(live);
          expect(live.bytes.length).to.be.at.most(value.length + RECORD_OVERHEAD_BYTES);
          const tombstone = tombstoneRecord(key, version);
          expect(decodeRecord(key, tombstone.bytes)).to.deep.equal(tombstone);
        },
      ),
    );
  });

  it('does not keep the buffer of the caller', () => {
    const value = Buffer.from('before');
    const record = liveRecord(KEY, value, VERSION);
    value.fill('x');
    expect(record.value.toString()).to.equal('before');
  });

  it('answers DATA_LOSS for any flipped bit, any missing end, and under any other key', () => {
    const { bytes: sound } = liveRecord(KEY, Buffer.from('value'), VERSION, 5);
    for (let bit = 0; bit < sound.length * 8; bit += 1) {
      const flipped = Buffer.from(sound);
      flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7));
      expect(() => decodeRecord(KEY, flipped), `bit ${bit}`)
        .to.throw(KvError)
        .with.property('code', 'DATA_LOSS');
    }
    for (let length = 0; length < sound.length; length += 1) {
      expect(() => decodeRecord(KEY, sound.subarray(0, length)))
        .to.throw(KvError)
        .with.property('code', 'DATA_LOSS');
    }
    expect(() => decodeRecord(Buffer.from('kez'), sound))
      .to.throw(KvError)
      .with.property('code', 'DATA_LOSS');
  });

  it('refuses a format or a flag that it does not know, and says so', () => {
    for (const [offset, value] of [
      [0, 2],
      [1, 4],
    ] as const) {
      const newer = Buffer.from(liveRecord(KEY, Buffer.from('value'), VERSION).bytes);
      newer[offset] = value;
      newer.writeUInt32BE(crc32(newer.subarray(0, -4), crc32(KEY)), newer.length - 4);
      expect(() => decodeRecord(KEY, newer)).to.throw(StoreUnsupported, /newer version/);
    }
  });
});
