import { KvError, type ErrorCode } from '../../common/errors.ts';
import { Metadata, status, type StatusObject } from './grpc.ts';

const STATUS: Readonly<Record<ErrorCode, status>> = {
  INVALID_ARGUMENT: status.INVALID_ARGUMENT,
  NOT_FOUND: status.NOT_FOUND,
  UNAVAILABLE: status.UNAVAILABLE,
  DEADLINE_EXCEEDED: status.DEADLINE_EXCEEDED,
  RESOURCE_EXHAUSTED: status.RESOURCE_EXHAUSTED,
  FAILED_PRECONDITION: status.FAILED_PRECONDITION,
  OUT_OF_RANGE: status.OUT_OF_RANGE,
  UNIMPLEMENTED: status.UNIMPLEMENTED,
  UNAUTHENTICATED: status.UNAUTHENTICATED,
  PERMISSION_DENIED: status.PERMISSION_DENIED,
  DATA_LOSS: status.DATA_LOSS,
  ABORTED: status.ABORTED,
  INTERNAL: status.INTERNAL,
};

/** Trailer of every failed call: `true` when the same request may be sent again. */
export const RETRYABLE_TRAILER = 'kv-retryable';

/** A refused call that tells the caller more than a message, in trailers. */
export class CallRefused extends KvError {
  readonly trailers: Readonly<Record<string, string>>;

  constructor(code: ErrorCode, message: string, trailers: Readonly<Record<string, string>>) {
    super(code, message);
    this.trailers = trailers;
  }
}

/** Anything thrown as a KvError; what is not one is a defect of ours and stays without details. */
export function asKvError(error: unknown): KvError {
  if (error instanceof KvError) return error;
  return new KvError('INTERNAL', "internal error; the node's log says more", { cause: error });
}

/** The gRPC status code of an error. */
export function codeOf({ code }: KvError): status {
  return STATUS[code];
}

/** The gRPC status of an error: the one place where codes are mapped. */
export function statusOf(error: KvError): Pick<StatusObject, 'code' | 'details' | 'metadata'> {
  const metadata = new Metadata();
  metadata.set(RETRYABLE_TRAILER, String(error.retryable));
  if (error instanceof CallRefused) {
    for (const [name, value] of Object.entries(error.trailers)) metadata.set(name, value);
  }
  return { code: codeOf(error), details: error.message, metadata };
}
