/**
 * The messages of the hot paths, encoded and decoded by hand: the same on the wire as the generated code, at a fraction of
 * its time (measured in docs/report.md, compared in the tests). Whatever is not hot uses the generated code.
 */
import type {
  Condition,
  Consistency,
  DeleteRequest,
  DeleteResponse,
  GetRequest,
  GetResponse,
  OperationError,
  PipelineOperation,
  PipelineRequest,
  PipelineResponse,
  PipelineResult,
  PutRequest,
  PutResponse,
  RequestId,
  Version,
} from './gen/kvstore.ts';
import {
  decodeRequestId,
  decodeVersion,
  sizeOfBytes,
  sizeOfVersionField,
  tag,
  writeBytes,
  writeVersion,
} from './shared-fields.ts';
import { sizeOfBytesField, sizeOfInt, sizeOfUintField, WIRE, WireReader, WireWriter } from './wire.ts';

/** An operation as it came: `isConditional` when it has fields that stand for a condition, or may come to. */
export interface IncomingOperation extends PipelineOperation {
  readonly isConditional: boolean;
}

export interface IncomingPipelineRequest extends PipelineRequest {
  operations: IncomingOperation[];
}

const { varint: VARINT, bytes: BYTES } = WIRE;
const NOTHING: Buffer = Buffer.alloc(0);
const CONDITION: Condition = {};

/** The fields above these are reserved, for conditions and the like. */
const LAST_FIELD = { put: 5, get: 3, delete: 3, operation: 7, request: 3 } as const;
const LAST_RESERVED = 15;

/**
 * Keys and values lie in `bytes`, which must not change afterwards.
 *
 * @param mostOperations more are refused before they take memory.
 * @throws RangeError when it is malformed.
 */
export function decodePipelineRequest(bytes: Buffer, mostOperations: number): IncomingPipelineRequest {
  const reader = new WireReader(bytes);
  const request: IncomingPipelineRequest = { operations: [], clientId: NOTHING, clientStartMs: 0 };
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, BYTES)) {
      if (request.operations.length === mostOperations) {
        throw new RangeError(`a batch has more than ${mostOperations} operations`);
      }
      request.operations.push(decodeOperation(reader.message()));
    } else if (next === tag(2, BYTES)) request.clientId = reader.bytes();
    else if (next === tag(3, VARINT)) request.clientStartMs = reader.uint();
    else if (isReserved(next, LAST_FIELD.request))
      throw new RangeError('a batch has a field that is reserved');
    else reader.skip(next & 7);
  }
  return request;
}

/** A PutRequest; `condition` also stands for reserved fields. As all decoders of single requests: @throws RangeError */
export function decodePutRequest(bytes: Buffer): PutRequest {
  return decodePut(new WireReader(bytes));
}

/** A GetRequest, and whether it has fields that are reserved. */
export function decodeGetRequest(bytes: Buffer): { value: GetRequest; hasReserved: boolean } {
  return decodeGet(new WireReader(bytes));
}

export function encodePutResponse(value: PutResponse): Buffer {
  const writer = new WireWriter(sizeOfResult({ $case: 'put', value }));
  writePutResponse(writer, value);
  return writer.finish();
}

export function encodeGetResponse(value: GetResponse): Buffer {
  const writer = new WireWriter(sizeOfResult({ $case: 'get', value }));
  writeGetResponse(writer, value);
  return writer.finish();
}

function decodeOperation(reader: WireReader): IncomingOperation {
  let number = 0;
  let timeoutMs = 0;
  let requestNumber = 0;
  let attempt = 0;
  let isConditional = false;
  let operation: PipelineOperation['operation'];
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, VARINT)) number = reader.uint();
    else if (next === tag(2, VARINT)) timeoutMs = reader.uint();
    else if (next === tag(3, VARINT)) requestNumber = reader.uint();
    else if (next === tag(4, VARINT)) attempt = reader.uint();
    else if (next === tag(5, BYTES)) {
      const value = decodePut(reader.message());
      isConditional ||= value.condition !== undefined;
      operation = { $case: 'put', value };
    } else if (next === tag(6, BYTES)) {
      const { value, hasReserved } = decodeGet(reader.message());
      isConditional ||= hasReserved;
      operation = { $case: 'get', value };
    } else if (next === tag(7, BYTES)) {
      const value = decodeDelete(reader.message());
      isConditional ||= value.condition !== undefined;
      operation = { $case: 'delete', value };
    } else {
      isConditional ||= isReserved(next, LAST_FIELD.operation);
      reader.skip(next & 7);
    }
  }
  return { number, timeoutMs, requestNumber, attempt, operation, isConditional };
}

/** A reserved field counts as a condition: a decoder that skipped it would execute a conditional write unconditionally. */
function decodePut(reader: WireReader): PutRequest {
  let key = NOTHING;
  let value = NOTHING;
  let ttlMs: number | undefined;
  let consistency: Consistency = 0;
  let requestId: RequestId | undefined;
  let condition: Condition | undefined;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, BYTES)) key = reader.bytes();
    else if (next === tag(2, BYTES)) value = reader.bytes();
    else if (next === tag(3, VARINT)) ttlMs = reader.int();
    else if (next === tag(4, VARINT)) consistency = reader.uint() as Consistency;
    else if (next === tag(5, BYTES)) requestId = decodeRequestId(reader.message(), NOTHING);
    else {
      if (isReserved(next, LAST_FIELD.put)) condition = CONDITION;
      reader.skip(next & 7);
    }
  }
  return { key, value, ttlMs, consistency, requestId, condition };
}

function decodeGet(reader: WireReader): { value: GetRequest; hasReserved: boolean } {
  let key = NOTHING;
  let consistency: Consistency = 0;
  let minVersion: Version | undefined;
  let hasReserved = false;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, BYTES)) key = reader.bytes();
    else if (next === tag(2, VARINT)) consistency = reader.uint() as Consistency;
    else if (next === tag(3, BYTES)) minVersion = decodeVersion(reader.message());
    else {
      hasReserved ||= isReserved(next, LAST_FIELD.get);
      reader.skip(next & 7);
    }
  }
  return { value: { key, consistency, minVersion }, hasReserved };
}

function decodeDelete(reader: WireReader): DeleteRequest {
  let key = NOTHING;
  let consistency: Consistency = 0;
  let requestId: RequestId | undefined;
  let condition: Condition | undefined;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, BYTES)) key = reader.bytes();
    else if (next === tag(2, VARINT)) consistency = reader.uint() as Consistency;
    else if (next === tag(3, BYTES)) requestId = decodeRequestId(reader.message(), NOTHING);
    else {
      if (isReserved(next, LAST_FIELD.delete)) condition = CONDITION;
      reader.skip(next & 7);
    }
  }
  return { key, consistency, requestId, condition };
}

function isReserved(next: number, lastField: number): boolean {
  const field = next >>> 3;
  return field > lastField && field <= LAST_RESERVED;
}

export function encodePipelineRequest(request: PipelineRequest): Buffer {
  const { operations, clientId, clientStartMs } = request;
  const sizes: number[] = [];
  let total =
    (clientId.length === 0 ? 0 : sizeOfBytesField(clientId.length)) + sizeOfUintField(clientStartMs);
  for (const operation of operations) {
    const inner = sizeOfInner(operation.operation);
    const size = sizeOfOperation(operation, inner);
    sizes.push(size, inner);
    total += sizeOfBytesField(size);
  }
  const writer = new WireWriter(total);
  operations.forEach((operation, index) => {
    writer.messageField(1, sizes[2 * index] ?? 0);
    writeOperation(writer, operation, sizes[2 * index + 1] ?? 0);
  });
  if (clientId.length > 0) writer.bytesField(2, clientId);
  writer.uintField(3, clientStartMs);
  return writer.finish();
}

/** Bytes that an operation adds to its batch, at most. */
export function weightOfOperation({ operation }: Pick<PipelineOperation, 'operation'>): number {
  return OPERATION_OVERHEAD_BYTES + sizeOfInner(operation);
}

const OPERATION_OVERHEAD_BYTES = 40;

function sizeOfOperation(operation: PipelineOperation, inner: number): number {
  const { number, timeoutMs, requestNumber, attempt } = operation;
  return (
    sizeOfUintField(number) +
    sizeOfUintField(timeoutMs) +
    sizeOfUintField(requestNumber) +
    sizeOfUintField(attempt) +
    (operation.operation === undefined ? 0 : sizeOfBytesField(inner))
  );
}

function sizeOfInner(operation: PipelineOperation['operation']): number {
  if (operation === undefined) return 0;
  if (operation.$case === 'put') {
    const { key, value, ttlMs, consistency } = operation.value;
    return (
      sizeOfBytes(key) +
      sizeOfBytes(value) +
      (ttlMs === undefined ? 0 : 1 + sizeOfInt(ttlMs)) +
      sizeOfUintField(consistency)
    );
  }
  const { key, consistency } = operation.value;
  const rest = operation.$case === 'get' ? sizeOfVersionField(operation.value.minVersion) : 0;
  return sizeOfBytes(key) + sizeOfUintField(consistency) + rest;
}

function writeOperation(writer: WireWriter, operation: PipelineOperation, inner: number): void {
  writer.uintField(1, operation.number);
  writer.uintField(2, operation.timeoutMs);
  writer.uintField(3, operation.requestNumber);
  writer.uintField(4, operation.attempt);
  const { operation: request } = operation;
  if (request === undefined) return;
  if (request.$case === 'put') {
    const { key, value, ttlMs, consistency } = request.value;
    writer.messageField(5, inner);
    writeBytes(writer, 1, key);
    writeBytes(writer, 2, value);
    if (ttlMs !== undefined) writer.presentIntField(3, ttlMs);
    writer.uintField(4, consistency);
    return;
  }
  const { key, consistency } = request.value;
  writer.messageField(request.$case === 'get' ? 6 : 7, inner);
  writeBytes(writer, 1, key);
  writer.uintField(2, consistency);
  if (request.$case === 'get') writeVersion(writer, 3, request.value.minVersion);
}

export function encodePipelineResponse({ results, epoch, closing }: PipelineResponse): Buffer {
  const sizes: number[] = [];
  let total = sizeOfUintField(epoch) + (closing ? 2 : 0);
  for (const { number, result } of results) {
    const inner = sizeOfResult(result);
    const size = sizeOfUintField(number) + (result === undefined ? 0 : sizeOfBytesField(inner));
    sizes.push(size, inner);
    total += sizeOfBytesField(size);
  }
  const writer = new WireWriter(total);
  results.forEach(({ number, result }, index) => {
    writer.messageField(1, sizes[2 * index] ?? 0);
    writer.uintField(1, number);
    if (result !== undefined) writeResult(writer, result, sizes[2 * index + 1] ?? 0);
  });
  writer.uintField(2, epoch);
  if (closing) writer.uintField(3, 1);
  return writer.finish();
}

/** Bytes that a result adds to its batch, at most. */
export function weightOfResult({ result }: Pick<PipelineResult, 'result'>): number {
  return RESULT_OVERHEAD_BYTES + sizeOfResult(result);
}

const RESULT_OVERHEAD_BYTES = 24;

function sizeOfResult(result: PipelineResult['result']): number {
  if (result === undefined) return 0;
  switch (result.$case) {
    case 'put': {
      const { oldValue, oldFound, version } = result.value;
      return sizeOfBytes(oldValue) + (oldFound ? 2 : 0) + sizeOfVersionField(version);
    }
    case 'get': {
      const { value, found, version, remainingTtlMs } = result.value;
      return (
        sizeOfBytes(value) +
        (found ? 2 : 0) +
        sizeOfVersionField(version) +
        (remainingTtlMs === undefined ? 0 : 1 + sizeOfInt(remainingTtlMs))
      );
    }
    case 'delete':
      return (result.value.existed ? 2 : 0) + sizeOfVersionField(result.value.version);
    case 'error': {
      const { code, message, retryable } = result.value;
      const length = Buffer.byteLength(message);
      return sizeOfUintField(code) + (length === 0 ? 0 : sizeOfBytesField(length)) + (retryable ? 2 : 0);
    }
  }
}

function writeResult(writer: WireWriter, result: NonNullable<PipelineResult['result']>, inner: number): void {
  switch (result.$case) {
    case 'put':
      writer.messageField(2, inner);
      writePutResponse(writer, result.value);
      return;
    case 'get':
      writer.messageField(3, inner);
      writeGetResponse(writer, result.value);
      return;
    case 'delete':
      writer.messageField(4, inner);
      if (result.value.existed) writer.uintField(1, 1);
      writeVersion(writer, 2, result.value.version);
      return;
    case 'error': {
      const { code, message, retryable } = result.value;
      writer.messageField(5, inner);
      writer.uintField(1, code);
      if (message !== '') writer.stringField(2, message, Buffer.byteLength(message));
      if (retryable) writer.uintField(3, 1);
    }
  }
}

function writePutResponse(writer: WireWriter, { oldValue, oldFound, version }: PutResponse): void {
  writeBytes(writer, 1, oldValue);
  if (oldFound) writer.uintField(2, 1);
  writeVersion(writer, 3, version);
}

function writeGetResponse(writer: WireWriter, { value, found, version, remainingTtlMs }: GetResponse): void {
  writeBytes(writer, 1, value);
  if (found) writer.uintField(2, 1);
  writeVersion(writer, 3, version);
  if (remainingTtlMs !== undefined) writer.presentIntField(4, remainingTtlMs);
}

/**
 * Values lie in `bytes`, which must not change afterwards.
 *
 * @throws RangeError when it is malformed.
 */
export function decodePipelineResponse(bytes: Buffer): PipelineResponse {
  const reader = new WireReader(bytes);
  const response: PipelineResponse = { results: [], epoch: 0, closing: false };
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, BYTES)) response.results.push(decodeResult(reader.message()));
    else if (next === tag(2, VARINT)) response.epoch = reader.uint();
    else if (next === tag(3, VARINT)) response.closing = reader.uint() !== 0;
    else reader.skip(next & 7);
  }
  return response;
}

function decodeResult(reader: WireReader): PipelineResult {
  let number = 0;
  let result: PipelineResult['result'];
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, VARINT)) number = reader.uint();
    else if (next === tag(2, BYTES)) result = { $case: 'put', value: decodePutResponse(reader.message()) };
    else if (next === tag(3, BYTES)) result = { $case: 'get', value: decodeGetResponse(reader.message()) };
    else if (next === tag(4, BYTES)) {
      result = { $case: 'delete', value: decodeDeleteResponse(reader.message()) };
    } else if (next === tag(5, BYTES)) result = { $case: 'error', value: decodeError(reader.message()) };
    else reader.skip(next & 7);
  }
  return { number, result };
}

function decodePutResponse(reader: WireReader): PutResponse {
  let oldValue = NOTHING;
  let oldFound = false;
  let version: Version | undefined;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, BYTES)) oldValue = reader.bytes();
    else if (next === tag(2, VARINT)) oldFound = reader.uint() !== 0;
    else if (next === tag(3, BYTES)) version = decodeVersion(reader.message());
    else reader.skip(next & 7);
  }
  return { oldValue, oldFound, version };
}

function decodeGetResponse(reader: WireReader): GetResponse {
  let value = NOTHING;
  let found = false;
  let version: Version | undefined;
  let remainingTtlMs: number | undefined;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, BYTES)) value = reader.bytes();
    else if (next === tag(2, VARINT)) found = reader.uint() !== 0;
    else if (next === tag(3, BYTES)) version = decodeVersion(reader.message());
    else if (next === tag(4, VARINT)) remainingTtlMs = reader.int();
    else reader.skip(next & 7);
  }
  return { value, found, version, remainingTtlMs };
}

function decodeDeleteResponse(reader: WireReader): DeleteResponse {
  let existed = false;
  let version: Version | undefined;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, VARINT)) existed = reader.uint() !== 0;
    else if (next === tag(2, BYTES)) version = decodeVersion(reader.message());
    else reader.skip(next & 7);
  }
  return { existed, version };
}

function decodeError(reader: WireReader): OperationError {
  let code = 0;
  let message = '';
  let retryable = false;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, VARINT)) code = reader.uint();
    else if (next === tag(2, BYTES)) message = reader.string();
    else if (next === tag(3, VARINT)) retryable = reader.uint() !== 0;
    else reader.skip(next & 7);
  }
  return { code, message, retryable };
}
