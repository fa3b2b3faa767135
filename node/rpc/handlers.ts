import type { Clock } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type {
  Metadata,
  MethodDefinition,
  ServerUnaryCall,
  ServerWritableStream,
  sendUnaryData,
} from './grpc.ts';
import { asKvError, statusOf } from './status-codes.ts';

/** What a handler knows of its call. */
export interface CallContext {
  readonly metadata: Metadata;
  /** By the monotonic clock, milliseconds: when an answer is no longer of use. */
  readonly deadlineMs: number;
  /** The same for an answer that comes in many parts: Infinity when the caller set no deadline. */
  readonly streamEndMs: number;
  /** Aborts when the caller has gone or its deadline has passed. */
  readonly signal: AbortSignal;
}

/** What all handlers of a service share. */
export interface HandlerOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** For calls that come without a deadline, milliseconds. */
  readonly defaultDeadlineMs: number;
  /** Refuses a call by throwing KvError, before its request is looked at. */
  readonly admit: (path: string, metadata: Metadata) => void;
  /** Told of every finished call; `code` is OK, CANCELLED or an ErrorCode. */
  readonly observe: (path: string, code: string, seconds: number) => void;
}

/** A request, or why it is refused: grpc-js answers INTERNAL when a deserializer throws, and it is the caller's fault. */
export type Incoming<Request> = { readonly request: Request } | { readonly refusal: KvError };

type Unary<Request, Response> = (request: Request, context: CallContext) => Promise<Response>;
type Streaming<Request, Response> = (request: Request, context: CallContext) => AsyncIterable<Response>;

/**
 * The engine must answer a little before the caller gives up, so that its words ("applied on 1 of 3") arrive instead of a
 * bare timeout: this fraction of what is left, at most ANSWER_RESERVE_MS.
 */
const ANSWER_RESERVE = 0.1;
const ANSWER_RESERVE_MS = 50;

/** When the engine must have answered a caller that waits this long, milliseconds from now. */
export function answerBefore(timeoutMs: number): number {
  return timeoutMs - Math.min(ANSWER_RESERVE_MS, Math.max(0, timeoutMs * ANSWER_RESERVE));
}

/**
 * The method with a deserializer that never throws.
 *
 * @param check looks at the encoded request, before it is decoded, and says why it is refused.
 */
export function tolerantMethod<Request, Response>(
  method: MethodDefinition<Request, Response>,
  check: (bytes: Buffer) => KvError | undefined = () => undefined,
): MethodDefinition<Incoming<Request>, Response> {
  const decode = (bytes: Buffer): Incoming<Request> => {
    const refusal = check(bytes);
    return refusal === undefined ? { request: method.requestDeserialize(bytes) } : { refusal };
  };
  return handWrittenMethod(method, decode, method.responseSerialize);
}

/** As `tolerantMethod`, with a decoder that also looks for what the request must not have, and an encoder of its own. */
export function handWrittenMethod<Request, Response>(
  method: MethodDefinition<Request, Response>,
  decode: (bytes: Buffer) => Incoming<Request>,
  encode: (response: Response) => Buffer,
): MethodDefinition<Incoming<Request>, Response> {
  return {
    ...method,
    requestSerialize: () => {
      throw new Error('a server does not send requests');
    },
    requestDeserialize: (bytes) => {
      try {
        return decode(bytes);
      } catch (error) {
        return { refusal: new KvError('INVALID_ARGUMENT', `the request is malformed: ${messageOf(error)}`) };
      }
    },
    responseSerialize: encode,
  };
}

/** A unary method's implementation from an async function. */
export function unaryHandler<Request, Response>(
  path: string,
  options: HandlerOptions,
  handle: Unary<Request, Response>,
): (call: ServerUnaryCall<Incoming<Request>, Response>, done: sendUnaryData<Response>) => void {
  return (call, done) => {
    const tracked = track(path, options, call);
    const fail = (cause: unknown): void => {
      const error = reported(path, options, cause);
      // An answer to a caller that has gone would be an error of its own.
      if (tracked.end(error.code)) done(statusOf(error));
    };
    try {
      options.admit(path, call.metadata);
      handle(requestOf(call.request), tracked.context).then((response) => {
        if (tracked.end('OK')) done(null, response);
      }, fail);
    } catch (error) {
      fail(error);
    }
  };
}

/**
 * A server-streaming method's implementation from an async iterable, read no faster than the caller takes it: one message
 * is on its way while the next one is made.
 */
export function streamHandler<Request, Response>(
  path: string,
  options: HandlerOptions,
  handle: Streaming<Request, Response>,
): (call: ServerWritableStream<Incoming<Request>, Response>) => void {
  return (call) => {
    const tracked = track(path, options, call);
    const { signal } = tracked.context;
    void settle(async () => {
      options.admit(path, call.metadata);
      let sending: Promise<void> | undefined;
      for await (const message of handle(requestOf(call.request), tracked.context)) {
        await sending;
        signal.throwIfAborted();
        sending = sent(call, message, signal);
        // Heard of at the next message or the end.
        sending.catch(() => undefined);
      }
      await sending;
    }).then((result) => {
      if ('response' in result) {
        if (tracked.end('OK')) call.end();
        return;
      }
      const error = reported(path, options, result.error);
      if (tracked.end(error.code)) call.emit('error', statusOf(error));
    });
  };
}

function requestOf<Request>(incoming: Incoming<Request>): Request {
  if ('refusal' in incoming) throw incoming.refusal;
  return incoming.request;
}

async function settle<T>(work: () => Promise<T>): Promise<{ response: T } | { error: unknown }> {
  try {
    return { response: await work() };
  } catch (error) {
    return { error };
  }
}

function reported(path: string, options: HandlerOptions, error: unknown): KvError {
  const known = asKvError(error);
  if (known.code === 'INTERNAL' || known.code === 'DATA_LOSS') {
    options.logger.error({ path, error: known.cause ?? known }, 'a call failed');
  }
  return known;
}

interface EventSource<Event extends string> {
  once(event: Event, listener: () => void): unknown;
}

interface TrackedCall extends EventSource<'cancelled'> {
  readonly metadata: Metadata;
  /** Infinity without one. */
  getDeadline(): Date | number;
}

/** A call's context, and its end, which counts once: true when there is still somebody to answer. */
function track(
  path: string,
  options: HandlerOptions,
  call: TrackedCall,
): { context: CallContext; end: (code: string) => boolean } {
  const startedMs = options.clock.monotonicMs();
  const left = Number(call.getDeadline()) - options.clock.wallMs();
  const untilMs = Number.isFinite(left) ? answerBefore(left) : options.defaultDeadlineMs;
  // Most operations end without anybody having asked for it.
  let controller: AbortController | undefined;
  let gone = false;
  let ended = false;
  const end = (code: string): boolean => {
    if (ended) return false;
    ended = true;
    options.observe(path, code, (options.clock.monotonicMs() - startedMs) / 1000);
    return true;
  };
  // Emitted for every call once its stream has closed, answered or not.
  call.once('cancelled', () => {
    end('CANCELLED');
    gone = true;
    controller?.abort(callerGone());
  });
  const context = {
    metadata: call.metadata,
    deadlineMs: startedMs + untilMs,
    streamEndMs: Number.isFinite(left) ? startedMs + untilMs : Infinity,
    get signal() {
      if (controller === undefined) {
        controller = new AbortController();
        if (gone) controller.abort(callerGone());
      }
      return controller.signal;
    },
  };
  return { context, end };
}

function callerGone(): KvError {
  return new KvError('ABORTED', 'the caller has gone');
}

/** Resolves when the connection has taken the message. */
function sent<Response>(
  call: ServerWritableStream<unknown, Response>,
  message: Response,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(callerGone());
    signal.addEventListener('abort', onAbort, { once: true });
    call.write(message, () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    });
  });
}
