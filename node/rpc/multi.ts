import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { KvError } from '../../common/errors.ts';
import type {
  MultiGetRequest,
  MultiGetResponse,
  MultiPutRequest,
  MultiPutResponse,
  OperationResult,
} from '../../proto/gen/kvstore.ts';
import type { CallContext } from './handlers.ts';
import { operationError, type Operations } from './kv-operations.ts';
import { unsupportedCondition } from './kv-requests.ts';
import { findReservedField, type ReservedFields } from './reserved-fields.ts';

/** Most operations of one call. */
export const MOST_OPERATIONS = 1000;

/** Reads several keys; each has its own result. */
export async function multiGet(
  operations: Operations,
  { gets }: MultiGetRequest,
  context: CallContext,
): Promise<MultiGetResponse> {
  checkCount('gets', gets.length);
  const results = await Promise.all(
    gets.map((get) => resultOf(async () => ({ $case: 'get', value: await operations.get(get, context) }))),
  );
  return { results };
}

/** Writes several keys, each for itself. */
export async function multiPut(
  operations: Operations,
  { puts }: MultiPutRequest,
  context: CallContext,
): Promise<MultiPutResponse> {
  checkCount('puts', puts.length);
  const results = await Promise.all(
    puts.map((put) => resultOf(async () => ({ $case: 'put', value: await operations.put(put, context) }))),
  );
  return { results };
}

async function resultOf(work: () => Promise<OperationResult['result']>): Promise<OperationResult> {
  try {
    return { result: await work() };
  } catch (error) {
    return { result: { $case: 'error', value: operationError(error).wire } };
  }
}

function checkCount(name: string, count: number): void {
  if (count > 0 && count <= MOST_OPERATIONS) return;
  throw new KvError('INVALID_ARGUMENT', `there are ${count} ${name}: give 1 to ${MOST_OPERATIONS}`);
}

const EACH = 1;
const RESERVED: ReservedFields = { from: 2, to: 15 };

/** Refuses a call in whose requests, or beside them, a reserved field stands: nothing of it is executed. */
export function refuseReservedOfEach(reserved: ReservedFields): (bytes: Buffer) => KvError | undefined {
  return (bytes) => {
    if (findReservedField(bytes, RESERVED) !== undefined) return unsupportedCondition();
    const reader = new BinaryReader(bytes);
    for (let count = 0; reader.pos < reader.len;) {
      const [field, wireType] = reader.tag();
      if (field !== EACH || wireType !== WireType.LengthDelimited) {
        reader.skip(wireType, field);
        continue;
      }
      count += 1;
      // Before they are decoded: they take far more memory than bytes.
      if (count > MOST_OPERATIONS) {
        return new KvError(
          'INVALID_ARGUMENT',
          `there are more than ${MOST_OPERATIONS} requests: send several calls`,
        );
      }
      if (findReservedField(reader.bytes(), reserved) !== undefined) return unsupportedCondition();
    }
    return undefined;
  };
}
