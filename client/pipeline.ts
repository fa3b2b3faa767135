import type { Clock, Scheduler, Timer } from '../common/clock.ts';
import { abortReason } from '../common/clock.ts';
import { KvError } from '../common/errors.ts';
import type { PipelineOperation, PipelineResponse, PipelineResult } from '../proto/gen/kvstore.ts';
import { decodePipelineResponse, encodePipelineRequest, weightOfOperation } from '../proto/serialize.ts';
import {
  type BytesCall,
  CallFailure,
  callFailureOf,
  codeOfStatus,
  Metadata,
  type ServiceError,
} from './grpc.ts';

/** An operation without its number on the stream. */
export type PipelinedOperation = Omit<PipelineOperation, 'number' | 'timeoutMs'>;
export type OperationOutcome = Exclude<NonNullable<PipelineResult['result']>, { readonly $case: 'error' }>;

export interface PipelineOptions {
  /** Opens a stream. */
  readonly open: () => BytesCall;
  /** As the channel names it: until a stream has a connection, this is what it gives as its peer. */
  readonly channelTarget: string;
  /** Whether a stream goes out at once. */
  readonly isConnected: () => boolean;
  /** How long a stream may take to connect, milliseconds. */
  readonly connectTimeoutMs: number;
  /** The client's part of the request ids of writes. */
  readonly client: { readonly id: Buffer; readonly startMs: number };
  /** Told of the epoch of the node's map when it changes. */
  readonly onEpoch: (epoch: number) => void;
  /** Told that the node wants its clients to go elsewhere. */
  readonly onSentAway: () => void;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
}

/** Operations of one stream that wait for their results; further ones wait here. */
const WINDOW_OPERATIONS = 4096;
/** Operations that wait for the window; above, they are refused. */
const MOST_WAITING = 100_000;
/** Batches are about this size at most: nodes take 4 MiB by default. */
const BATCH_BYTES = 1024 * 1024;
const BATCH_OPERATIONS = 4096;
const NOTHING: Buffer = Buffer.alloc(0);

interface Pending {
  readonly operation: PipelinedOperation;
  readonly weight: number;
  readonly deadlineMs: number;
  readonly resolve: (outcome: OperationOutcome) => void;
  readonly reject: (error: Error) => void;
}

/**
 * The fast path to one node: operations that are begun in one turn of the event loop leave as one batch on one long-lived
 * stream, and results come back in any order. No timer delays a lone operation. The stream is opened when it is needed, and
 * anew after it has ended.
 */
export class Pipeline {
  private readonly options: PipelineOptions;
  /** Begun and not sent yet, in order. */
  private waiting: Pending[] = [];
  private stream: PipelineStream | undefined;
  private scheduled = false;
  private sweep: Timer | undefined;
  private sweepAtMs = 0;
  private readonly retiring = new Set<PipelineStream>();
  private closedBecause: KvError | undefined;

  constructor(options: PipelineOptions) {
    this.options = options;
  }

  /** Operations that wait for their results, or to be sent. */
  get load(): number {
    return this.waiting.length + (this.stream?.load ?? 0);
  }

  /**
   * Runs one operation.
   *
   * @throws CallFailure: `answered` by the node; `not-sent` when no connection took it; `lost` when the stream ended, or
   *   the time was over, before its result came. The signal's reason when it aborts.
   */
  run(operation: PipelinedOperation, timeoutMs: number, signal?: AbortSignal): Promise<OperationOutcome> {
    if (signal?.aborted === true) return Promise.reject(abortReason(signal));
    if (this.closedBecause !== undefined) return Promise.reject(failure('not-sent', this.closedBecause));
    if (this.waiting.length >= MOST_WAITING) {
      const message = `${MOST_WAITING} operations wait already: await some before beginning more`;
      return Promise.reject(failure('answered', new KvError('RESOURCE_EXHAUSTED', message)));
    }
    const { clock } = this.options;
    const { promise, resolve, reject } = Promise.withResolvers<OperationOutcome>();
    const deadlineMs = clock.monotonicMs() + timeoutMs;
    const weight = weightOfOperation(operation);
    this.waiting.push({ operation, weight, deadlineMs, resolve, reject });
    this.schedule();
    this.watchDeadlines(deadlineMs);
    return signal === undefined ? promise : untilAborted(promise, signal);
  }

  /** Ends the stream, and fails what waits. Idempotent. */
  close(reason: KvError): void {
    if (this.closedBecause !== undefined) return;
    this.closedBecause = reason;
    this.sweep?.cancel();
    for (const stream of [this.stream, ...this.retiring]) stream?.end(failure('lost', reason));
    for (const { reject } of this.waiting.splice(0)) reject(failure('not-sent', reason));
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    this.options.scheduler.soon(() => {
      this.scheduled = false;
      this.pump();
    });
  }

  private pump(): void {
    while (this.waiting.length > 0 && this.closedBecause === undefined) {
      const stream = (this.stream ??= this.openStream());
      const room = stream.room;
      if (room <= 0) return;
      const batch = this.takeBatch(room);
      if (batch.length > 0) stream.send(batch);
    }
  }

  /** The oldest that fit into one message; those that are late already are told so. */
  private takeBatch(room: number): Pending[] {
    const now = this.options.clock.monotonicMs();
    const batch: Pending[] = [];
    let bytes = 0;
    let taken = 0;
    for (const pending of this.waiting) {
      if (batch.length === Math.min(room, BATCH_OPERATIONS)) break;
      if (batch.length > 0 && bytes + pending.weight > BATCH_BYTES) break;
      taken += 1;
      if (pending.deadlineMs <= now) {
        pending.reject(tooLate('not-sent'));
        continue;
      }
      bytes += pending.weight;
      batch.push(pending);
    }
    this.waiting = taken === this.waiting.length ? [] : this.waiting.slice(taken);
    return batch;
  }

  private openStream(): PipelineStream {
    const { options } = this;
    const stream: PipelineStream = new PipelineStream(options, {
      onRoom: () => {
        if (this.waiting.length > 0) this.schedule();
      },
      onClosing: () => {
        // What was sent on it is still answered; what comes from now on takes another stream.
        if (this.stream === stream) {
          this.stream = undefined;
          this.retiring.add(stream);
        }
        options.onSentAway();
        stream.finish();
        if (this.waiting.length > 0) this.schedule();
      },
      onEnd: (error) => {
        this.retiring.delete(stream);
        if (this.stream !== stream) return;
        this.stream = undefined;
        // Where one stream found no connection, those that wait for it would find none either.
        for (const { reject } of this.waiting.splice(0)) reject(failure('not-sent', error));
      },
    });
    return stream;
  }

  /** One timer for all operations, set for the earliest deadline that there was. */
  private watchDeadlines(deadlineMs: number): void {
    if (this.sweep !== undefined && this.sweepAtMs <= deadlineMs) return;
    const { clock, scheduler } = this.options;
    this.sweep?.cancel();
    this.sweepAtMs = deadlineMs;
    this.sweep = scheduler.after(Math.max(1, deadlineMs - clock.monotonicMs()), () => this.expire());
  }

  private expire(): void {
    this.sweep = undefined;
    const now = this.options.clock.monotonicMs();
    let nextMs = Infinity;
    this.waiting = this.waiting.filter((pending) => {
      if (pending.deadlineMs > now) {
        nextMs = Math.min(nextMs, pending.deadlineMs);
        return true;
      }
      pending.reject(tooLate('not-sent'));
      return false;
    });
    for (const stream of [this.stream, ...this.retiring]) {
      if (stream !== undefined) nextMs = Math.min(nextMs, stream.expire(now));
    }
    if (nextMs !== Infinity) this.watchDeadlines(nextMs);
  }
}

interface StreamEvents {
  /** Results have come: more may be sent. */
  readonly onRoom: () => void;
  /** The node takes no more operations on this stream. */
  readonly onClosing: () => void;
  readonly onEnd: (error: KvError) => void;
}

/** One stream, and the operations whose results it owes. */
class PipelineStream {
  private readonly options: PipelineOptions;
  private readonly events: StreamEvents;
  private readonly call: BytesCall;
  private readonly owed = new Map<number, Pending>();
  private lastNumber = 0;
  private epoch = 0;
  private full = false;
  private closing = false;
  private ended = false;
  private readonly connecting: Timer | undefined;

  constructor(options: PipelineOptions, events: StreamEvents) {
    this.options = options;
    this.events = events;
    const call = (this.call = options.open());
    call.on('data', (bytes: Buffer) => this.received(bytes));
    call.on('error', (error: ServiceError) =>
      this.end(callFailureOf(error, call.getPeer() !== options.channelTarget)),
    );
    call.on('end', () => this.end(failure('lost', new KvError('UNAVAILABLE', 'the node ended the stream'))));
    call.on('drain', () => {
      this.full = false;
      events.onRoom();
    });
    this.connecting = options.isConnected()
      ? undefined
      : options.scheduler.after(options.connectTimeoutMs, () => {
          if (call.getPeer() !== options.channelTarget) return;
          this.end(failure('not-sent', new KvError('UNAVAILABLE', 'no connection in time')));
        });
  }

  get load(): number {
    return this.owed.size;
  }

  get room(): number {
    return this.full ? 0 : WINDOW_OPERATIONS - this.owed.size;
  }

  send(batch: readonly Pending[]): void {
    const { client, clock } = this.options;
    const now = clock.monotonicMs();
    const hasIds = batch.some(({ operation }) => operation.requestNumber > 0);
    const operations = batch.map((pending) => {
      this.lastNumber += 1;
      this.owed.set(this.lastNumber, pending);
      const { operation, attempt, requestNumber } = pending.operation;
      const timeoutMs = Math.max(1, Math.floor(pending.deadlineMs - now));
      return { number: this.lastNumber, timeoutMs, requestNumber, attempt, operation };
    });
    const { id, startMs } = client;
    this.full = !this.call.write(
      encodePipelineRequest({
        operations,
        clientId: hasIds ? id : NOTHING,
        clientStartMs: hasIds ? startMs : 0,
      }),
    );
  }

  /** Rejects what is late; gives the earliest deadline of the rest. */
  expire(now: number): number {
    let nextMs = Infinity;
    for (const [number, pending] of this.owed) {
      if (pending.deadlineMs > now) {
        nextMs = Math.min(nextMs, pending.deadlineMs);
        continue;
      }
      this.owed.delete(number);
      pending.reject(tooLate('lost'));
    }
    return nextMs;
  }

  /** Nothing more is sent; ends when everything is answered. */
  finish(): void {
    this.closing = true;
    if (this.owed.size === 0) this.end(failure('lost', new KvError('UNAVAILABLE', 'the node was left')));
  }

  /** Idempotent. */
  end(reason: CallFailure): void {
    if (this.ended) return;
    this.ended = true;
    this.connecting?.cancel();
    if (this.closing && this.owed.size === 0) this.call.end();
    else this.call.cancel();
    this.events.onEnd(reason.error);
    for (const { reject } of this.owed.values()) reject(reason);
    this.owed.clear();
  }

  private received(bytes: Buffer): void {
    let response: PipelineResponse;
    try {
      response = decodePipelineResponse(bytes);
    } catch (error) {
      const message = 'the node sent what is no result';
      this.end(failure('lost', new KvError('INTERNAL', message, { cause: error })));
      return;
    }
    for (const { number, result } of response.results) {
      const pending = this.owed.get(number);
      // Nobody waits for it any more.
      if (pending === undefined) continue;
      this.owed.delete(number);
      if (result?.$case === 'error') pending.reject(failure('answered', errorOf(result.value)));
      else if (result !== undefined) pending.resolve(result);
      else pending.reject(failure('answered', new KvError('INTERNAL', 'the node sent an empty result')));
    }
    if (response.epoch !== this.epoch) {
      this.epoch = response.epoch;
      this.options.onEpoch(response.epoch);
    }
    if (response.closing && !this.closing) this.events.onClosing();
    else if (this.closing) this.finish();
    else this.events.onRoom();
  }
}

function errorOf({
  code,
  message,
  retryable,
}: {
  code: number;
  message: string;
  retryable: boolean;
}): KvError {
  return new KvError(codeOfStatus(code), message, { retryable });
}

function failure(stage: CallFailure['stage'], error: KvError): CallFailure {
  return new CallFailure(stage, error, new Metadata());
}

function tooLate(stage: 'not-sent' | 'lost'): CallFailure {
  return failure(stage, new KvError('DEADLINE_EXCEEDED', 'no result came in time'));
}

function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(abortReason(signal));
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
