import { expect } from 'chai';
import fc from 'fast-check';
import { PeerFrame } from '../../../proto/gen/peer.ts';
import { decodePeerFrame, encodePeerFrame } from '../../../proto/serialize-peer.ts';

const RUNS = { numRuns: 500 };

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((each) => Buffer.from(each));
const uint = fc.oneof(fc.nat(300), fc.nat(0x7fffffff), fc.maxSafeNat());
const flag = fc.boolean();
const name = fc.oneof(fc.constant(''), fc.string({ maxLength: 20 }));
const version = fc.option(fc.record({ wallMs: uint, counter: fc.nat(0xffff), writer: uint }), {
  nil: undefined,
});
const requestId = fc.record({
  clientId: fc.oneof(fc.constantFrom(Buffer.alloc(16, 1), Buffer.alloc(16, 2)), bytes(16)),
  number: uint,
  clientStartMs: uint,
  attempt: fc.nat(0x7fffffff),
});
const header = fc.record({
  clusterId: name,
  epoch: uint,
  sender: name,
  senderIncarnation: uint,
  recipient: name,
});
const entry = fc.record({
  sequence: uint,
  key: bytes(20),
  record: bytes(300),
  requestId: fc.option(requestId, { nil: undefined }),
});
const body: fc.Arbitrary<PeerFrame['body']> = fc.oneof(
  fc.record({
    $case: fc.constant('entries' as const),
    value: fc.record({
      after: uint,
      through: uint,
      entries: fc.array(entry, { maxLength: 20 }),
      provisional: flag,
      durableHead: uint,
    }),
  }),
  fc.record({
    $case: fc.constant('ack' as const),
    value: fc.record({
      incarnation: uint,
      applied: uint,
      superseded: fc.array(fc.record({ sequence: uint, version }), { maxLength: 20 }),
      provisional: flag,
    }),
  }),
  fc.record({
    $case: fc.constant('read' as const),
    value: fc.record({ id: uint, keys: fc.array(bytes(20), { maxLength: 5 }), stored: flag }),
  }),
  fc.constant(undefined),
);
const frame: fc.Arbitrary<PeerFrame> = fc.record({
  header: fc.option(header, { nil: undefined }),
  body,
});

const generated = (message: PeerFrame): Buffer => Buffer.from(PeerFrame.encode(message).finish());

describe('the hand-written serializer of frames between peers', () => {
  it('writes what the generated code reads', () => {
    fc.assert(
      fc.property(frame, (message) => {
        expect(PeerFrame.decode(encodePeerFrame(message))).to.deep.equal(message);
      }),
      RUNS,
    );
  });

  it('reads what the generated code writes', () => {
    fc.assert(
      fc.property(frame, (message) => {
        expect(decodePeerFrame(generated(message))).to.deep.equal(message);
      }),
      RUNS,
    );
  });

  it('copies no key and no record', () => {
    const value = { after: 1, through: 2, provisional: false, durableHead: 0 };
    const entries = [
      {
        sequence: 2,
        key: Buffer.from('key'),
        record: Buffer.from('record'),
        requestId: undefined,
      },
    ];
    const encoded = generated({
      header: undefined,
      body: { $case: 'entries', value: { ...value, entries } },
    });
    const { body: read } = decodePeerFrame(encoded);
    if (read?.$case !== 'entries') throw new Error('it reads something else');
    expect(read.value.entries[0]?.key.buffer).to.equal(encoded.buffer);
    expect(read.value.entries[0]?.record.buffer).to.equal(encoded.buffer);
  });

  it('refuses what is damaged, or takes it for something else', () => {
    const damage = fc.record({ at: fc.nat(), to: fc.nat(255), cut: fc.nat(3) });
    fc.assert(
      fc.property(frame, damage, (message, { at, to, cut }) => {
        const encoded = generated(message);
        if (encoded.length === 0) return;
        encoded[at % encoded.length] = to;
        try {
          decodePeerFrame(encoded.subarray(0, Math.max(0, encoded.length - cut)));
        } catch (error) {
          expect(error).to.be.instanceOf(Error);
        }
      }),
      RUNS,
    );
  });
});
