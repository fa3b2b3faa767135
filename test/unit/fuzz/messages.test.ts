import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { expect } from 'chai';
import fc from 'fast-check';
import { KvError } from '../../../common/errors.ts';
import { problemWithFrame, problemWithHeader } from '../../../node/replication/frame-validation.ts';
import { adminServiceDefinition } from '../../../node/rpc/admin-service.ts';
import { kvServiceDefinition } from '../../../node/rpc/kv-service.ts';
import { hasMoreElements, shapeOf } from '../../../common/message-elements.ts';
import { FramedStream } from '../../../node/rpc/peer-frames.ts';
import { peerServiceDefinition } from '../../../node/rpc/peer-service.ts';
import * as admin from '../../../proto/gen/admin.ts';
import * as kvstore from '../../../proto/gen/kvstore.ts';
import * as peer from '../../../proto/gen/peer.ts';
import { anyBytes, bytes, damaged, RUNS, within } from './hostile.ts';

interface Codec {
  encode(message: unknown): BinaryWriter;
  decode(input: Uint8Array): unknown;
}

/** Every message of every .proto file, by name. */
const messages: readonly (readonly [string, Codec])[] = Object.entries({
  ...kvstore,
  ...peer,
  ...admin,
}).flatMap(([name, exported]) =>
  typeof exported === 'object' && 'decode' in exported ? [[name, exported as unknown as Codec] as const] : [],
);

const number = fc.oneof(fc.integer({ min: 1, max: 33 }), fc.integer({ min: 1, max: 5 }));
const varint = fc.oneof(
  fc.nat(300),
  fc.nat(0xffffffff),
  fc.maxSafeNat(),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);

/** Fields of some message, nested ones included: sound as far as it goes, whatever message it is taken for. */
const { wire } = fc.letrec<{ wire: Buffer; field: Buffer }>((tie) => ({
  wire: fc.array(tie('field'), { maxLength: 6 }).map((fields) => Buffer.concat(fields)),
  field: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc
      .tuple(number, varint)
      .map(([field, value]) => finished((writer) => writer.tag(field, WireType.Varint).uint64(value))),
    fc
      .tuple(number, bytes(30))
      .map(([field, value]) =>
        finished((writer) => writer.tag(field, WireType.LengthDelimited).bytes(value)),
      ),
    fc
      .tuple(number, tie('wire'))
      .map(([field, value]) =>
        finished((writer) => writer.tag(field, WireType.LengthDelimited).bytes(value)),
      ),
    fc
      .tuple(number, fc.nat())
      .map(([field, value]) => finished((writer) => writer.tag(field, WireType.Bit32).fixed32(value))),
  ),
}));

function finished(write: (writer: BinaryWriter) => BinaryWriter): Buffer {
  return Buffer.from(write(new BinaryWriter()).finish());
}

const input = fc.oneof(wire, damaged(wire), anyBytes);

function decoded(codec: Codec, encoded: Buffer): unknown {
  try {
    return within(500, () => codec.decode(encoded));
  } catch (error) {
    // What is above the decoders (FramedStream, tolerantMethod) makes a KvError of it.
    expect(error).to.be.instanceOf(Error);
    return undefined;
  }
}

describe('fuzzed messages', () => {
  it('are there', () => {
    expect(messages.map(([name]) => name)).to.include.members([
      'PeerFrame',
      'PutRequest',
      'ProposeMapRequest',
    ]);
  });

  for (const [name, codec] of messages) {
    it(`${name} cannot be decoded, or encodes to what decodes to the same`, () => {
      fc.assert(
        fc.property(input, (encoded) => {
          const message = decoded(codec, encoded);
          if (message === undefined) return;
          const again = Buffer.from(codec.encode(message).finish());
          // What is unknown is dropped, what is written twice is kept once; text that is none and negative numbers grow a little.
          expect(again.length).to.be.at.most(3 * encoded.length);
          expect(codec.decode(again)).to.deep.equal(message);
        }),
        { numRuns: RUNS / 4 },
      );
    });
  }
});

describe('fuzzed frames of peers', () => {
  const frames = fc.oneof(
    fc
      .tuple(fc.oneof(fc.constant(Buffer.alloc(0)), wire), fc.integer({ min: 2, max: 24 }), wire)
      .map(([header, field, body]) =>
        finished((writer) =>
          writer
            .tag(1, WireType.LengthDelimited)
            .bytes(header)
            .tag(field, WireType.LengthDelimited)
            .bytes(body),
        ),
      ),
    input,
  );

  it('reach the handler as they are, or end the stream as malformed', () => {
    fc.assert(
      fc.property(frames, (encoded) => {
        const refusals: string[] = [];
        const aborts: KvError[] = [];
        const received: peer.PeerFrame[] = [];
        const stream = new FramedStream({
          maxFrameBytes: 1000,
          refused: (reason) => void refusals.push(reason),
        });
        stream.attach({
          write: () => undefined,
          finish: () => undefined,
          abort: (reason) => void aborts.push(reason),
          startReading: () => undefined,
        });
        stream.handle({
          onFrame: (frame) => void received.push(frame),
          onDrain: () => undefined,
          onClose: () => undefined,
        });
        stream.received(encoded);
        expect(received.length + refusals.length).to.equal(1);
        expect(aborts.map(({ code }) => code)).to.deep.equal(refusals.map(codeOf));
        expect(stream.isClosed).to.equal(refusals.length === 1);
      }),
      { numRuns: 2 * RUNS },
    );
  });

  it('are judged by their bounds in words, whatever they hold', () => {
    let judged = 0;
    fc.assert(
      fc.property(frames, (encoded) => {
        const frame = decoded(peer.PeerFrame, encoded) as peer.PeerFrame | undefined;
        if (frame?.header !== undefined) expectWords(problemWithHeader(frame.header));
        if (frame?.body === undefined) return;
        judged += 1;
        expectWords(problemWithFrame(frame.body, { partitions: 16 }));
      }),
      { numRuns: 5 * RUNS },
    );
    expect(judged).to.be.greaterThan(RUNS);
  });

  it('with more elements than allowed are known before they are decoded', () => {
    const shape = shapeOf({ 13: shapeOf([]) });
    fc.assert(
      fc.property(fc.nat(40), fc.nat(40), (count, most) => {
        const keys = Array.from({ length: count }, () => ({
          key: Buffer.alloc(3),
          version: undefined,
          tombstone: false,
          expiresAtMs: undefined,
          record: Buffer.alloc(0),
        }));
        const value = { id: 0, wrongReplica: false, keys, more: false };
        const body = { $case: 'listReply' as const, value };
        const encoded = Buffer.from(peer.PeerFrame.encode({ header: undefined, body }).finish());
        // The body itself counts as one.
        expect(hasMoreElements(encoded, shape, most)).to.equal(count + 1 > most);
      }),
      { numRuns: RUNS / 2 },
    );
    fc.assert(
      fc.property(input, fc.nat(10), (encoded, most) => {
        expect(
          hasMoreElements(encoded, shapeOf({ 1: shapeOf({ 2: shapeOf([3]) }), 2: shapeOf([1]) }), most),
        ).to.be.a('boolean');
      }),
      { numRuns: RUNS },
    );
  });

  function codeOf(reason: string): string {
    return reason === 'malformed' ? 'INVALID_ARGUMENT' : 'RESOURCE_EXHAUSTED';
  }

  function expectWords(problem: string | undefined): void {
    if (problem !== undefined) expect(problem).to.match(/^\S.{5,}/s);
  }
});

describe('fuzzed requests', () => {
  // Its messages are decoded in the handler (serialize.test.ts).
  const methods = Object.entries({
    ...Object.fromEntries(Object.entries(kvServiceDefinition).filter(([name]) => name !== 'pipeline')),
    ...adminServiceDefinition,
    pullRecords: peerServiceDefinition.pullRecords,
    watchPartitions: peerServiceDefinition.watchPartitions,
  });
  for (const [name, { requestDeserialize }] of methods) {
    it(`${name} is a request or the caller's fault, and never an error of the node`, () => {
      fc.assert(
        fc.property(input, (encoded) => {
          const incoming = within(500, () => requestDeserialize(encoded));
          if ('request' in incoming) return;
          expect(incoming.refusal).to.be.instanceOf(KvError);
          expect(incoming.refusal.code).to.be.oneOf(['INVALID_ARGUMENT', 'UNIMPLEMENTED']);
        }),
        { numRuns: RUNS / 2 },
      );
    });
  }
});
