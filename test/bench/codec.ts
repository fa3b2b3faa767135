/**
 * `node test/bench/codec.ts`: what a batch of the Pipeline costs to encode and to decode, by each of three codecs, in turn:
 * the code that ts-proto generates, that which protobufjs generates at run time (the same as its static one), and
 * proto/serialize.ts.
 */
import { join } from 'node:path';
import protobuf from 'protobufjs';
import {
  Consistency,
  PipelineRequest,
  PipelineResponse,
  type PipelineOperation,
  type PipelineResult,
} from '../../proto/gen/kvstore.ts';
import {
  decodePipelineRequest,
  decodePipelineResponse,
  encodePipelineRequest,
  encodePipelineResponse,
} from '../../proto/serialize.ts';
import { table } from './report/table.ts';

const OPERATIONS = 100;
const ROUNDS = 15;
const ROUND_MS = 100;

interface Codec {
  readonly name: string;
  readonly encode: () => Uint8Array;
  readonly decode: (bytes: Uint8Array) => unknown;
}

const key = Buffer.alloc(16, 'k');
const value = Buffer.alloc(256, 'v');
const request: PipelineRequest = {
  operations: Array.from({ length: OPERATIONS }, (_, index): PipelineOperation => {
    const put = {
      key,
      value,
      ttlMs: undefined,
      consistency: Consistency.QUORUM,
      requestId: undefined,
      condition: undefined,
    };
    return {
      number: index + 1,
      timeoutMs: 5000,
      requestNumber: 1_000_000 + index,
      attempt: 0,
      operation: { $case: 'put', value: put },
    };
  }),
  clientId: Buffer.alloc(16, 'c'),
  clientStartMs: 1_700_000_000_000,
};
const response: PipelineResponse = {
  results: Array.from({ length: OPERATIONS }, (_, index): PipelineResult => {
    const version = { wallMs: 1_700_000_000_000 + index, counter: 1, writer: 2 ** 47 };
    const get = { value, found: true, version, remainingTtlMs: undefined };
    return { number: index + 1, result: { $case: 'get', value: get } };
  }),
  epoch: 7,
  closing: false,
};

// Numbers, as the others make them, instead of objects of two halves.
protobuf.util.Long = null as never;
protobuf.configure();
const root = await new protobuf.Root().load(join(import.meta.dirname, '../../proto/kvstore.proto'));

/** A message as protobufjs wants it: a oneof is the field itself, and what has its default is absent. */
function flat(message: object): object {
  return JSON.parse(JSON.stringify(message), (name, found: unknown) => {
    if (found === 0 || found === false) return undefined;
    if (Array.isArray(found) || typeof found !== 'object' || found === null) return found;
    const { type, data, operation, result, ...rest } = found as {
      type?: string;
      data?: number[];
      operation?: { $case: string; value: object };
      result?: { $case: string; value: object };
    };
    if (type === 'Buffer') return Buffer.from(data ?? []);
    const chosen = operation ?? result;
    return chosen === undefined || name === '$case' ? found : { ...rest, [chosen.$case]: chosen.value };
  }) as object;
}

function codecsOf(
  name: string,
  generated: { encode: () => Uint8Array; decode: (bytes: Uint8Array) => unknown },
  message: object,
  own: { encode: () => Uint8Array; decode: (bytes: Uint8Array) => unknown },
): readonly Codec[] {
  const type = root.lookupType(`kvstore.${name}`);
  const made = type.fromObject(flat(message));
  return [
    { name: 'ts-proto', ...generated },
    {
      name: 'protobufjs',
      encode: () => type.encode(made).finish(),
      decode: (bytes) => type.decode(bytes),
    },
    { name: 'proto/serialize.ts', ...own },
  ];
}

const batches: Readonly<Record<string, readonly Codec[]>> = {
  'puts, requests': codecsOf(
    'PipelineRequest',
    {
      encode: () => PipelineRequest.encode(request).finish(),
      decode: (bytes) => PipelineRequest.decode(bytes),
    },
    request,
    {
      encode: () => encodePipelineRequest(request),
      decode: (bytes) => decodePipelineRequest(bytes as Buffer, OPERATIONS),
    },
  ),
  'gets, responses': codecsOf(
    'PipelineResponse',
    {
      encode: () => PipelineResponse.encode(response).finish(),
      decode: (bytes) => PipelineResponse.decode(bytes),
    },
    response,
    {
      encode: () => encodePipelineResponse(response),
      decode: (bytes) => decodePipelineResponse(bytes as Buffer),
    },
  ),
};

/** Nanoseconds for each operation of a batch. */
function costNs(work: () => unknown): number {
  const startMs = performance.now();
  let runs = 0;
  while (performance.now() - startMs < ROUND_MS) {
    for (let times = 0; times < 20; times += 1) work();
    runs += 20;
  }
  return ((performance.now() - startMs) * 1e6) / runs / OPERATIONS;
}

const median = (list: readonly number[]): number => list.toSorted((a, b) => a - b)[list.length >> 1] ?? NaN;

const rows: string[][] = [];
for (const [batch, codecs] of Object.entries(batches)) {
  const sizes = new Set(codecs.map(({ encode }) => encode().length));
  if (sizes.size !== 1) throw new Error(`${batch}: the codecs do not agree: ${[...sizes].join(', ')} bytes`);
  const costs = new Map(codecs.map(({ name }) => [name, { encode: [] as number[], decode: [] as number[] }]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const { name, encode, decode } of codecs) {
      const bytes = Buffer.from(encode());
      costs.get(name)?.encode.push(costNs(encode));
      costs.get(name)?.decode.push(costNs(() => decode(bytes)));
    }
  }
  for (const [name, { encode, decode }] of costs) {
    rows.push([batch, name, median(encode).toFixed(0), median(decode).toFixed(0)]);
  }
}
for (const line of table(['batch', 'codec', 'encode, ns for each', 'decode, ns for each'], rows))
  console.log(line);
