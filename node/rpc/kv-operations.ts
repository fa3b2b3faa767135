import type { Clock } from '../../common/clock.ts';
import type { KvError } from '../../common/errors.ts';
import type {
  DeleteRequest,
  DeleteResponse,
  GetRequest,
  GetResponse,
  OperationError,
  PutRequest,
  PutResponse,
} from '../../proto/gen/kvstore.ts';
import { consistencyOf } from '../replication/consistency.ts';
import type { KeyValueEngine, OperationOptions } from '../replication/engine.ts';
import {
  checkKey,
  checkMinVersion,
  checkRequestId,
  checkTtl,
  checkValue,
  refuseCondition,
} from './kv-requests.ts';
import { asKvError, codeOf } from './status-codes.ts';

/** Who carries operations out, and within which bounds. */
export interface OperationsOptions {
  readonly engine: KeyValueEngine;
  readonly clock: Clock;
  readonly maxValueBytes: number;
}

/**
 * When an answer is no longer of use, by the monotonic clock. What an operation keeps is bounded in bytes for all of them and in
 * time for each, so that nothing watches for callers that leave earlier.
 */
export type OperationContext = Pick<OperationOptions, 'deadlineMs'>;

/** No operation holds its resources longer, whatever deadline the caller sets. */
const MAX_OPERATION_MS = 60_000;
const NOTHING: Buffer = Buffer.alloc(0);

/** The operations on single keys, whatever way they come: checked before they are believed. All throw KvError. */
export class Operations {
  private readonly options: OperationsOptions;

  constructor(options: OperationsOptions) {
    this.options = options;
  }

  async put(request: PutRequest, context: OperationContext): Promise<PutResponse> {
    const { key, value, ttlMs, requestId } = request;
    const operation = this.optionsOf(request, context);
    refuseCondition(request.condition);
    checkKey(key);
    checkValue(value, this.options.maxValueBytes);
    checkTtl(ttlMs);
    checkRequestId(requestId);
    const { version, old } = await this.options.engine.put({ ...operation, key, value, ttlMs, requestId });
    return { oldValue: old?.value ?? NOTHING, oldFound: old !== undefined, version };
  }

  async get(request: GetRequest, context: OperationContext): Promise<GetResponse> {
    const operation = this.optionsOf(request, context);
    checkKey(request.key);
    const minVersion = checkMinVersion(request.minVersion);
    const live = await this.options.engine.get({ ...operation, key: request.key, minVersion });
    if (live === undefined) return { value: NOTHING, found: false, version: undefined };
    const { value, version, remainingTtlMs } = live;
    return { value, found: true, version, remainingTtlMs };
  }

  async delete(request: DeleteRequest, context: OperationContext): Promise<DeleteResponse> {
    const { key, requestId } = request;
    const operation = this.optionsOf(request, context);
    refuseCondition(request.condition);
    checkKey(key);
    checkRequestId(requestId);
    return this.options.engine.delete({ ...operation, key, requestId });
  }

  private optionsOf(
    { consistency }: Pick<PutRequest, 'consistency'>,
    { deadlineMs }: OperationContext,
  ): OperationOptions {
    return {
      consistency: consistencyOf(consistency),
      deadlineMs: Math.min(deadlineMs, this.options.clock.monotonicMs() + MAX_OPERATION_MS),
    };
  }
}

/** What a result among several says of a failure, and the code that it counts under. */
export function operationError(error: unknown): { readonly error: KvError; readonly wire: OperationError } {
  const known = asKvError(error);
  const { message, retryable } = known;
  return { error: known, wire: { code: codeOf(known), message, retryable } };
}
