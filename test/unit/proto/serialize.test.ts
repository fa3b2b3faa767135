import { expect } from 'chai';
import fc from 'fast-check';
import {
  GetRequest,
  GetResponse,
  PipelineRequest,
  PipelineResponse,
  PutRequest,
  PutResponse,
  type PipelineOperation,
  type PipelineResult,
} from '../../../proto/gen/kvstore.ts';
import {
  decodeGetRequest,
  decodePipelineRequest,
  decodePipelineResponse,
  decodePutRequest,
  encodeGetResponse,
  encodePipelineRequest,
  encodePipelineResponse,
  encodePutResponse,
  weightOfOperation,
  weightOfResult,
} from '../../../proto/serialize.ts';

const RUNS = { numRuns: 500 };
const MOST = 1000;

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((each) => Buffer.from(each));
const flag = fc.boolean();
const uint = fc.oneof(fc.nat(300), fc.nat(0x7fffffff), fc.maxSafeNat());
const int = fc.oneof(uint, fc.integer(), fc.maxSafeInteger());
const uint32 = fc.nat(0x7fffffff);
const version = fc.record({ wallMs: uint, counter: fc.nat(0xffff), writer: uint });
const consistency = fc.constantFrom(0 as const, 1 as const, 2 as const, 3 as const);
const nothing = fc.constant(undefined);

const operation: fc.Arbitrary<PipelineOperation['operation']> = fc.oneof(
  nothing,
  fc.record({
    $case: fc.constant('put' as const),
    value: fc.record({
      key: bytes(20),
      value: bytes(300),
      ttlMs: fc.option(int, { nil: undefined }),
      consistency,
      requestId: nothing,
      condition: nothing,
    }),
  }),
  fc.record({
    $case: fc.constant('get' as const),
    value: fc.record({ key: bytes(20), consistency, minVersion: fc.option(version, { nil: undefined }) }),
  }),
  fc.record({
    $case: fc.constant('delete' as const),
    value: fc.record({ key: bytes(20), consistency, requestId: nothing, condition: nothing }),
  }),
);

const request: fc.Arbitrary<PipelineRequest> = fc.record({
  operations: fc.array(
    fc.record({ number: uint, timeoutMs: uint32, requestNumber: uint, attempt: uint32, operation }),
    { maxLength: 20 },
  ),
  clientId: bytes(16),
  clientStartMs: uint,
});

const result: fc.Arbitrary<PipelineResult['result']> = fc.oneof(
  nothing,
  fc.record({
    $case: fc.constant('put' as const),
    value: fc.record({
      oldValue: bytes(300),
      oldFound: flag,
      version: fc.option(version, { nil: undefined }),
    }),
  }),
  fc.record({
    $case: fc.constant('get' as const),
    value: fc.record({
      value: bytes(300),
      found: flag,
      version: fc.option(version, { nil: undefined }),
      remainingTtlMs: fc.option(int, { nil: undefined }),
    }),
  }),
  fc.record({
    $case: fc.constant('delete' as const),
    value: fc.record({ existed: flag, version: fc.option(version, { nil: undefined }) }),
  }),
  fc.record({
    $case: fc.constant('error' as const),
    value: fc.record({ code: uint32, message: fc.string({ unit: 'grapheme' }), retryable: flag }),
  }),
);

const response: fc.Arbitrary<PipelineResponse> = fc.record({
  results: fc.array(fc.record({ number: uint, result }), { maxLength: 20 }),
  epoch: uint,
  closing: flag,
});

const generated = (message: PipelineRequest): Buffer => Buffer.from(PipelineRequest.encode(message).finish());
const withoutMark = ({ number, timeoutMs, requestNumber, attempt, operation }: PipelineOperation) => ({
  number,
  timeoutMs,
  requestNumber,
  attempt,
  operation,
});
const decoded = (encoded: Buffer): unknown => {
  const { operations, ...rest } = decodePipelineRequest(encoded, MOST);
  return { ...rest, operations: operations.map(withoutMark) };
};

describe('the hand-written serializers', () => {
  it('write requests that the generated code reads', () => {
    fc.assert(
      fc.property(request, (message) => {
        expect(PipelineRequest.decode(encodePipelineRequest(message))).to.deep.equal(message);
      }),
      RUNS,
    );
  });

  it('read requests that the generated code writes, and their own', () => {
    fc.assert(
      fc.property(request, (message) => {
        expect(decoded(generated(message))).to.deep.equal(message);
        expect(decoded(encodePipelineRequest(message))).to.deep.equal(message);
      }),
      RUNS,
    );
  });

  it('write responses that the generated code reads', () => {
    fc.assert(
      fc.property(response, (message) => {
        expect(PipelineResponse.decode(encodePipelineResponse(message))).to.deep.equal(message);
      }),
      RUNS,
    );
  });

  it('read responses that the generated code writes, and their own', () => {
    fc.assert(
      fc.property(response, (message) => {
        const encoded = Buffer.from(PipelineResponse.encode(message).finish());
        expect(decodePipelineResponse(encoded)).to.deep.equal(message);
        expect(decodePipelineResponse(encodePipelineResponse(message))).to.deep.equal(message);
      }),
      RUNS,
    );
  });

  it('read single requests, and write their answers, as the generated code does', () => {
    const id = fc.option(
      fc.record({ clientId: bytes(16), number: uint, clientStartMs: uint, attempt: uint32 }),
      { nil: undefined },
    );
    fc.assert(
      fc.property(operation, id, result, (asked, requestId, answered) => {
        if (asked?.$case === 'put') {
          const put = { ...asked.value, requestId };
          expect(decodePutRequest(Buffer.from(PutRequest.encode(put).finish()))).to.deep.equal(put);
        } else if (asked?.$case === 'get') {
          const { value, hasReserved } = decodeGetRequest(
            Buffer.from(GetRequest.encode(asked.value).finish()),
          );
          expect(value).to.deep.equal(asked.value);
          expect(hasReserved).to.equal(false);
        }
        if (answered?.$case === 'put')
          expect(PutResponse.decode(encodePutResponse(answered.value))).to.deep.equal(answered.value);
        else if (answered?.$case === 'get')
          expect(GetResponse.decode(encodeGetResponse(answered.value))).to.deep.equal(answered.value);
      }),
      RUNS,
    );
  });

  it('know how large a message becomes at most', () => {
    fc.assert(
      fc.property(request, response, (asked, answered) => {
        const bound = asked.operations.reduce((sum, each) => sum + weightOfOperation(each), 64);
        expect(encodePipelineRequest(asked).length).to.be.at.most(bound);
        const answerBound = answered.results.reduce((sum, each) => sum + weightOfResult(each), 64);
        expect(encodePipelineResponse(answered).length).to.be.at.most(answerBound);
      }),
      RUNS,
    );
  });

  it('refuse what is damaged with a RangeError, or take it for something else', () => {
    const damage = fc.record({ at: fc.nat(), to: fc.nat(255), cut: fc.nat() });
    fc.assert(
      fc.property(request, damage, (message, { at, to, cut }) => {
        const encoded = generated(message);
        if (encoded.length === 0) return;
        encoded[at % encoded.length] = to;
        const damaged = encoded.subarray(0, encoded.length - (cut % 3));
        try {
          decodePipelineRequest(damaged, MOST);
        } catch (error) {
          expect(error).to.be.instanceOf(RangeError);
        }
      }),
      RUNS,
    );
  });

  const fields: readonly (readonly [string, readonly number[], boolean])[] = [
    ['the condition of a put', [0x2a, 2, 0x32, 0], true],
    ['a field of a put that is reserved', [0x2a, 2, 0x38, 1], true],
    ['a field of a get that is reserved', [0x32, 2, 0x20, 1], true],
    ['the condition of a delete', [0x3a, 2, 0x22, 0], true],
    ['a field of an operation that is reserved', [0x40, 1], true],
    ['a field that nobody has reserved', [0x2a, 3, 0x80, 0x01, 1], false],
  ];
  for (const [name, inner, isConditional] of fields) {
    it(`${isConditional ? 'notice' : 'pass over'} ${name}`, () => {
      const [operation] = decodePipelineRequest(Buffer.from([0x0a, inner.length, ...inner]), MOST).operations;
      expect(operation?.isConditional).to.equal(isConditional);
    });
  }

  it('refuse a batch of too many operations before they take memory', () => {
    const many = Buffer.from('0a00'.repeat(101), 'hex');
    expect(decodePipelineRequest(many, 101).operations).to.have.length(101);
    expect(() => decodePipelineRequest(many, 100)).to.throw(RangeError, 'more than 100 operations');
  });
});
