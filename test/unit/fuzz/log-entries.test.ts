import { expect } from 'chai';
import fc from 'fast-check';
import { crc32 } from 'node:zlib';
import { EntryWriter } from '../../../node/storage/entry-writer.ts';
import {
  decodeEntry,
  decodeGroup,
  encodeGroup,
  entrySeed,
  FRAME_BYTES,
  GROUP_BYTES,
  groupFollows,
  readFrame,
  type LogEntry,
} from '../../../node/storage/entry.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import { decodeSegmentHead, encodeSegmentHead, SEGMENT_HEAD_BYTES } from '../../../node/storage/segment.ts';
import { scanSegment } from '../../../node/storage/segment-scan.ts';
import { anyBytes, attempt, bytes, damaged, keys, RUNS, uint48, versions, within } from './hostile.ts';

const STORE_ID = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
const SEED = entrySeed(STORE_ID);
/** StoreCorrupt and StoreUnsupported. */
const CODES = ['DATA_LOSS', 'FAILED_PRECONDITION'] as const;
const CEILINGS = { sequence: 5000, clockMs: 700 };

/** An entry without its sequence. */
type Written = (writer: EntryWriter, sequence: number) => void;

const names = fc.string({ minLength: 1, maxLength: 40 });
const entries: fc.Arbitrary<Written> = fc.oneof(
  fc
    .record({
      own: fc.boolean(),
      partition: fc.nat(0xffff),
      key: keys,
      value: bytes(60),
      version: versions,
      previous: fc.option(versions, { nil: undefined }),
      requestId: fc.option(
        fc.record({
          clientId: bytes(16, 16),
          number: fc.maxSafeNat(),
          clientStartMs: uint48(),
          attempt: fc.nat(0xffffffff),
        }),
        { nil: undefined },
      ),
    })
    .map(({ own, partition, key, value, version, previous, requestId }): Written => (writer, sequence) => {
      const record = liveRecord(key, value, version);
      writer.record({ sequence, own, partition, key, record, previous, requestId });
    }),
  fc.record({ origin: names, incarnation: uint48(1), sequence: uint48() }).map(
    (cursor): Written =>
      (writer, sequence) =>
        writer.cursor(sequence, cursor),
  ),
  fc.tuple(names, bytes(60)).map(
    ([name, value]): Written =>
      (writer, sequence) =>
        writer.meta(sequence, name, value),
  ),
);

/** The entries that begin at `at`, up to the first that is none. */
function decodeAll(encoded: Buffer): LogEntry[] {
  const found: LogEntry[] = [];
  for (let at = 0; ;) {
    const frame = readFrame(encoded, at, SEED);
    if (frame === undefined) return found;
    const entry = decodeEntry(encoded, frame);
    if (entry !== undefined) found.push(entry);
    at = frame.end;
  }
}

function written(list: readonly Written[], firstSequence = 1): Buffer {
  const writer = new EntryWriter(SEED);
  list.forEach((write, index) => write(writer, firstSequence + index));
  return Buffer.concat(writer.finish());
}

interface Segment {
  readonly bytes: Buffer;
  /** Where each group begins, and where the last one ends. */
  readonly bounds: readonly number[];
  readonly entries: readonly LogEntry[];
}

/** A segment as the log writes it: a head, then groups of entries. */
const segments: fc.Arbitrary<Segment> = fc
  .array(fc.array(entries, { maxLength: 4 }), { minLength: 1, maxLength: 4 })
  .map((groups) => {
    const parts = [encodeSegmentHead({ storeId: STORE_ID, number: 1, firstSequence: 1, madeAtMs: 1 })];
    const bounds: number[] = [];
    let offset = SEGMENT_HEAD_BYTES;
    let sequence = 0;
    for (const group of groups) {
      const body = written(group, sequence + 1);
      bounds.push(offset);
      parts.push(encodeGroup({ sequence, offset, ceilings: CEILINGS }, SEED), body);
      offset += GROUP_BYTES + body.length;
      sequence += group.length;
    }
    const all = groups.flat();
    return { bytes: Buffer.concat(parts), bounds: [...bounds, offset], entries: decodeAll(written(all)) };
  });

/** What a scan hands out, and how it ends. */
function scan(segment: Buffer, last: boolean) {
  const found: LogEntry[] = [];
  const options = {
    number: 1,
    seed: SEED,
    last,
    after: 0,
    onEntry: (entry: LogEntry) => void found.push(entry),
  };
  return { found, outcome: attempt(CODES, () => scanSegment(segment, options)) };
}

describe('fuzzed entries of the log', () => {
  it('come back as they were written, and encode to the same again', () => {
    fc.assert(
      fc.property(fc.array(entries, { maxLength: 8 }), (list) => {
        const encoded = written(list);
        const decoded = decodeAll(encoded);
        expect(decoded).to.have.length(list.length);
        expect(encodedAgain(decoded)).to.deep.equal(encoded);
      }),
      { numRuns: RUNS },
    );
  });

  it('are StoreCorrupt, StoreUnsupported or can be written again, whatever stands under a fitting checksum', () => {
    const bodies = fc.oneof(
      anyBytes,
      damaged(entries.map((write) => written([write]).subarray(FRAME_BYTES))),
    );
    fc.assert(
      fc.property(bodies, fc.boolean(), (body, knownKind) => {
        if (knownKind && body.length > 1) body[0] = 2 + ((body[0] ?? 0) % 3);
        if (knownKind && body.length > 1) body[1] = (body[1] ?? 0) & 7;
        const encoded = framed(body);
        const outcome = attempt(CODES, () => {
          const frame = readFrame(encoded, 0, SEED);
          return frame === undefined ? undefined : decodeEntry(encoded, frame);
        });
        if ('error' in outcome || outcome.value === undefined || !isOrdinary(outcome.value)) return;
        // Flags mean nothing to entries other than records, and are not kept.
        if (outcome.value.kind !== 'record') body[1] = 0;
        expect(encodedAgain([outcome.value])).to.deep.equal(framed(body));
      }),
      { numRuns: 3 * RUNS },
    );
  });

  it('are no entries when they are nothing at all', () => {
    fc.assert(
      fc.property(anyBytes, fc.nat(40), (encoded, at) => {
        const outcome = attempt(CODES, () => readFrame(encoded, at, SEED));
        expect(outcome).to.deep.equal({ value: undefined });
        expect(groupFollows(encoded, 0, SEED)).to.equal(false);
      }),
      { numRuns: RUNS },
    );
  });
});

describe('fuzzed segments of the log', () => {
  it('give all entries when they are whole', () => {
    fc.assert(
      fc.property(segments, fc.boolean(), (segment, last) => {
        const { found, outcome } = scan(segment.bytes, last);
        expect(outcome).to.have.nested.property('value.end', segment.bytes.length);
        expect(found).to.deep.equal(segment.entries);
      }),
      { numRuns: RUNS / 2 },
    );
  });

  it('cut anywhere give the entries before the cut, without an error where a crash can have torn them', () => {
    fc.assert(
      fc.property(segments, fc.nat(), fc.boolean(), (segment, at, last) => {
        const cut = segment.bytes.subarray(
          0,
          SEGMENT_HEAD_BYTES + (at % (segment.bytes.length - SEGMENT_HEAD_BYTES)),
        );
        const { found, outcome } = scan(cut, last);
        expect(found).to.deep.equal(segment.entries.slice(0, found.length));
        if (last) expect(outcome).to.have.nested.property('value.end').that.is.at.most(cut.length);
      }),
      { numRuns: RUNS },
    );
  });

  it('never give an entry that was not written, whatever is done to them', () => {
    const tails = segments.chain((segment) =>
      fc.record({
        segment: fc.constant(segment),
        tail: damaged(fc.constant(segment.bytes.subarray(SEGMENT_HEAD_BYTES))),
        last: fc.boolean(),
      }),
    );
    fc.assert(
      fc.property(tails, ({ segment, tail, last }) => {
        const hurt = Buffer.concat([segment.bytes.subarray(0, SEGMENT_HEAD_BYTES), tail]);
        const { found } = within(1000, () => scan(hurt, last));
        expect(found).to.deep.equal(segment.entries.slice(0, found.length));
      }),
      { numRuns: 2 * RUNS },
    );
  });

  it('are corrupt when anything but the last group is damaged: it had been synced', () => {
    fc.assert(
      fc.property(
        segments.filter(({ bounds }) => bounds.length > 2),
        fc.nat(),
        fc.nat(7),
        (segment, at, bit) => {
          const lastGroup = segment.bounds.at(-2) ?? 0;
          const place = SEGMENT_HEAD_BYTES + (at % (lastGroup - SEGMENT_HEAD_BYTES));
          const hurt = Buffer.from(segment.bytes);
          hurt[place] = (hurt[place] ?? 0) ^ (1 << bit);
          expect(scan(hurt, true).outcome).to.have.property('error');
        },
      ),
      { numRuns: RUNS },
    );
  });

  it('do not take long to search when a client has filled them with what looks like groups', () => {
    const { bytes: group } = { bytes: encodeGroup({ sequence: 1, offset: 9, ceilings: CEILINGS }, SEED) };
    for (const length of [GROUP_BYTES - FRAME_BYTES, 500_000]) {
      const lookalike = Buffer.from(group);
      lookalike.writeUInt32BE(length, 4);
      const segment = Buffer.alloc(4 * 1024 * 1024, lookalike);
      within(2000, () => expect(groupFollows(segment, 0, SEED)).to.equal(false));
    }
  });

  it('have a head that is whole or is none', () => {
    const heads = fc
      .record({ number: uint48(), firstSequence: uint48(), madeAtMs: uint48() })
      .map((fields) => ({ storeId: STORE_ID, ...fields }));
    fc.assert(
      fc.property(heads, (head) => {
        const decoded = decodeSegmentHead(encodeSegmentHead(head), { number: head.number });
        expect(decoded).to.deep.equal(head);
      }),
      { numRuns: RUNS / 2 },
    );
    fc.assert(
      fc.property(fc.oneof(damaged(heads.map((head) => encodeSegmentHead(head))), anyBytes), (encoded) => {
        const outcome = attempt(CODES, () => decodeSegmentHead(encoded, { number: 1 }));
        if ('error' in outcome) return;
        // Bytes behind a head are the segment's.
        const { value } = outcome;
        if (value !== undefined) {
          expect(encodeSegmentHead(value)).to.deep.equal(encoded.subarray(0, SEGMENT_HEAD_BYTES));
        }
      }),
      { numRuns: RUNS },
    );
  });

  it('have groups that count only in their own place', () => {
    fc.assert(
      fc.property(uint48(), uint48(), uint48(), fc.nat(200), (sequence, ceiling, clockMs, offset) => {
        const ceilings = { sequence: ceiling, clockMs };
        const group = encodeGroup({ sequence, offset, ceilings }, SEED);
        const segment = Buffer.concat([Buffer.alloc(offset), group]);
        const frame = readFrame(segment, offset, SEED);
        expect(frame).to.not.equal(undefined);
        if (frame === undefined) return;
        expect(decodeGroup(segment, frame)).to.deep.equal(ceilings);
        expect(decodeGroup(segment, frame, 1)).to.equal(undefined);
      }),
      { numRuns: RUNS / 2 },
    );
  });
});

/** An entry with a length and a checksum that fit its body. */
function framed(body: Buffer): Buffer {
  const encoded = Buffer.concat([Buffer.alloc(FRAME_BYTES), body]);
  encoded.writeUInt32BE(body.length, 4);
  encoded.writeUInt32BE(crc32(encoded.subarray(4), SEED), 0);
  return encoded;
}

/** Whether it can be written: numbers beyond what is exact, and text that is none, cannot. */
function isOrdinary(entry: LogEntry): boolean {
  switch (entry.kind) {
    case 'record':
      return entry.requestId === undefined || Number.isSafeInteger(entry.requestId.number);
    case 'cursor':
      return !entry.cursor.origin.includes('\ufffd');
    case 'meta':
      return !entry.name.includes('\ufffd');
  }
}

function encodedAgain(list: readonly LogEntry[]): Buffer {
  const writer = new EntryWriter(SEED);
  for (const entry of list) {
    if (entry.kind === 'record') writer.record(entry);
    else if (entry.kind === 'cursor') writer.cursor(entry.sequence, entry.cursor);
    else writer.meta(entry.sequence, entry.name, entry.value);
  }
  return Buffer.concat(writer.finish());
}
