import {
  type CallOptions,
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  type ClientOptions,
  type ClientReadableStream,
  type ClientUnaryCall,
  Metadata,
  type ServiceError,
  connectivityState,
  credentials,
  status,
} from '@grpc/grpc-js';
import { type Scheduler, abortReason } from '../common/clock.ts';
import { type ErrorCode, KvError } from '../common/errors.ts';

export {
  Client,
  Metadata,
  type CallOptions,
  type ClientReadableStream,
  type ClientUnaryCall,
  type ServiceError,
};

/** A bidirectional stream whose messages are left as bytes, for those who encode by themselves. */
export type BytesCall = ClientDuplexStream<Buffer, Buffer>;

/**
 * Trailer by which a node says that nothing was applied and the request may be sent again. A proxy's UNAVAILABLE comes
 * without it, and may stand for a request that a node has executed.
 */
const RETRYABLE_TRAILER = 'kv-retryable';

/** Largest message accepted: a page of keys or a chunk of records with room to spare. */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/** How a connection is made. */
export interface ChannelSettings {
  /** Name the server is addressed by, when it is dialled by an address that is not its name. */
  readonly authority?: string | undefined;
}

/** Credentials of a connection without TLS. */
export function plaintext(): ChannelCredentials {
  return credentials.createInsecure();
}

/**
 * Options shared by all connections: short reconnect delays (nodes return within seconds, and callers have their own
 * backoff), pings that notice a vanished host, and no HTTP proxy between members of one cluster.
 */
export function channelOptions(settings: ChannelSettings = {}): ClientOptions {
  return {
    'grpc.enable_http_proxy': 0,
    // Counts that nobody reads.
    'grpc.enable_channelz': 0,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.min_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1000,
    'grpc.keepalive_time_ms': 10_000,
    'grpc.keepalive_timeout_ms': 5000,
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
    ...(settings.authority === undefined ? {} : { 'grpc.default_authority': settings.authority }),
  };
}

/** Begins to connect, if there is no connection. */
export function dial(client: Client): void {
  client.getChannel().getConnectivityState(true);
}

/** Whether calls of this client go out at once. */
export function isConnected(client: Client): boolean {
  return client.getChannel().getConnectivityState(false) === connectivityState.READY;
}

/** Opens a bidirectional stream of bytes, without a deadline. */
export function openBytesStream(client: Client, path: string): BytesCall {
  const same = (bytes: Buffer): Buffer => bytes;
  return client.makeBidiStreamRequest(path, same, same);
}

/** A call that failed: the error for the user, and what is known about the request. */
export class CallFailure extends Error {
  override readonly name = 'CallFailure';
  readonly error: KvError;
  /**
   * `not-sent`: no connection took the request. `answered`: the server decided the status. `lost`: it was sent and the
   * answer is missing.
   */
  readonly stage: 'not-sent' | 'answered' | 'lost';
  readonly metadata: Metadata;

  constructor(stage: CallFailure['stage'], error: KvError, metadata: Metadata) {
    super(error.message, { cause: error });
    this.stage = stage;
    this.error = error;
    this.metadata = metadata;
  }
}

export interface CallSettings {
  /** Absolute, milliseconds since 1970 by the machine's clock. */
  readonly deadlineMs: number;
  readonly metadata?: Metadata | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Gives up earlier when no connection has taken the request by then. */
  readonly connectTimeout?: { readonly scheduler: Scheduler; readonly timeoutMs: number } | undefined;
}

/**
 * Makes one unary call.
 *
 * @param channelTarget as the channel names it: until a call has a connection, this is what it gives as its peer.
 * @throws CallFailure, or the signal's reason when it aborts first.
 */
export function callUnary<Response>(
  start: (
    metadata: Metadata,
    options: Partial<CallOptions>,
    done: (error: ServiceError | null, response: Response) => void,
  ) => ClientUnaryCall,
  channelTarget: string,
  settings: CallSettings,
): Promise<Response> {
  const { signal, deadlineMs, connectTimeout } = settings;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(abortReason(signal));
      return;
    }
    const onAbort = (): void => call.cancel();
    const call = start(settings.metadata ?? new Metadata(), { deadline: deadlineMs }, (error, response) => {
      signal?.removeEventListener('abort', onAbort);
      timer?.cancel();
      if (error === null) resolve(response);
      else if (signal?.aborted === true) reject(abortReason(signal));
      else reject(callFailureOf(error, call.getPeer() !== channelTarget));
    });
    signal?.addEventListener('abort', onAbort, { once: true });
    const timer = connectTimeout?.scheduler.after(connectTimeout.timeoutMs, () => {
      if (call.getPeer() === channelTarget) call.cancel();
    });
  });
}

/**
 * Makes one server-streaming call and yields its messages; the stream is read no faster than it is consumed and is
 * cancelled when the consumer stops.
 *
 * @throws CallFailure, or the signal's reason when it aborts first.
 */
export async function* callStream<Response>(
  start: () => ClientReadableStream<Response>,
  signal: AbortSignal,
): AsyncGenerator<Response, void, undefined> {
  throwIfAborted(signal);
  const call = start();
  // Cancelling during or after the iteration emits an error that nobody iterates over any more.
  call.on('error', () => undefined);
  const onAbort = (): void => call.cancel();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    for await (const message of call) yield message as Response;
  } catch (error) {
    throwIfAborted(signal);
    throw isServiceError(error) ? callFailureOf(error, true) : error;
  } finally {
    signal.removeEventListener('abort', onAbort);
    call.cancel();
  }
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw abortReason(signal);
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error;
}

/**
 * A status that the server sent comes with its headers or trailers; one made up on this side (refused or lost
 * connection, deadline) has none. A request that was not sent is always safe to send again.
 */
export function callFailureOf(error: ServiceError, sent: boolean): CallFailure {
  const answered = Object.keys(error.metadata.getMap()).length > 0;
  if (!answered && !sent) {
    const why =
      error.code === status.UNAVAILABLE ? connectionProblem(error.details) : 'no connection in time';
    return new CallFailure('not-sent', new KvError('UNAVAILABLE', why, { cause: error }), error.metadata);
  }
  const code = codeOfStatus(error.code);
  const stage = answered ? 'answered' : 'lost';
  const retryable = error.metadata.get(RETRYABLE_TRAILER)[0] === 'true';
  return new CallFailure(
    stage,
    new KvError(code, error.details, { retryable, cause: error }),
    error.metadata,
  );
}

/** The error code that a gRPC status code stands for. */
export function codeOfStatus(code: number): ErrorCode {
  return codes[code] ?? 'INTERNAL';
}

/** The cause within grpc-js's words, such as `connect ECONNREFUSED 127.0.0.1:50051`. */
function connectionProblem(details: string): string {
  const cause = /Last error: (?:Error: )?(.*?)\.? Resolution note/.exec(details)?.[1];
  return cause === undefined || cause === '' || cause === 'null' ? details : cause;
}

const codes: Readonly<Partial<Record<number, ErrorCode>>> = {
  [status.CANCELLED]: 'ABORTED',
  [status.INVALID_ARGUMENT]: 'INVALID_ARGUMENT',
  [status.DEADLINE_EXCEEDED]: 'DEADLINE_EXCEEDED',
  [status.NOT_FOUND]: 'NOT_FOUND',
  [status.ALREADY_EXISTS]: 'FAILED_PRECONDITION',
  [status.PERMISSION_DENIED]: 'PERMISSION_DENIED',
  [status.RESOURCE_EXHAUSTED]: 'RESOURCE_EXHAUSTED',
  [status.FAILED_PRECONDITION]: 'FAILED_PRECONDITION',
  [status.ABORTED]: 'ABORTED',
  [status.OUT_OF_RANGE]: 'OUT_OF_RANGE',
  [status.UNIMPLEMENTED]: 'UNIMPLEMENTED',
  [status.UNAVAILABLE]: 'UNAVAILABLE',
  [status.DATA_LOSS]: 'DATA_LOSS',
  [status.UNAUTHENTICATED]: 'UNAUTHENTICATED',
};
