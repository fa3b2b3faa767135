import type { Clock, Scheduler } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import {
  type DeleteResponse,
  type GetResponse,
  KeyValueStoreService,
  type PipelineResult,
  type PutRequest,
  type PutResponse,
} from '../../proto/gen/kvstore.ts';
import {
  decodePipelineRequest,
  encodePipelineResponse,
  type IncomingOperation,
  type IncomingPipelineRequest,
  weightOfOperation,
  weightOfResult,
} from '../../proto/serialize.ts';
import { Metadata, type ServerDuplexStream } from './grpc.ts';
import { answerBefore, type HandlerOptions } from './handlers.ts';
import { operationError, type OperationContext, type Operations } from './kv-operations.ts';
import { unsupportedCondition } from './kv-requests.ts';
import { asKvError, statusOf } from './status-codes.ts';

export interface PipelinesOptions {
  readonly operations: Operations;
  /** Of the map held now; 0 without one. */
  readonly epoch: () => number;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly handlers: HandlerOptions;
}

/** Operations of one stream that are under way or whose results are not written yet; above, nothing more is read. */
const WINDOW_OPERATIONS = 8192;
const WINDOW_BYTES = 16 * 1024 * 1024;
/** Most operations of one message. */
const MOST_OPERATIONS = 8192;
/** Results are written in messages of about this size: the largest that a client takes by default is 4 MiB. */
const MESSAGE_BYTES = 1024 * 1024;
/** A stream is asked to go after this long, milliseconds, so that connections spread over nodes again. */
const STREAM_AGE_MS = 4 * 60_000;
const PATH = KeyValueStoreService.pipeline.path;

/** The Pipeline streams of a node. */
export class Pipelines {
  private readonly options: PipelinesOptions;
  private readonly calls = new Set<PipelineCall>();
  private ending = false;

  constructor(options: PipelinesOptions) {
    this.options = options;
  }

  /** The method's implementation. */
  accept(call: ServerDuplexStream<Buffer, Buffer>): void {
    const pipeline = new PipelineCall(this.options, call, () => this.calls.delete(pipeline));
    this.calls.add(pipeline);
    pipeline.start();
    if (this.ending) pipeline.end();
  }

  /** Asks all clients to open their streams elsewhere. */
  sendAway(): void {
    for (const call of this.calls) call.sendAway();
  }

  /** Ends each stream as soon as everything that came on it is answered. */
  end(): void {
    this.ending = true;
    for (const call of this.calls) call.end();
  }
}

/** One Pipeline stream: operations are begun as they come, and results leave together at the end of each turn. */
class PipelineCall {
  private readonly options: PipelinesOptions;
  private readonly call: ServerDuplexStream<Buffer, Buffer>;
  private readonly onClosed: () => void;
  private readonly startedMs: number;
  private underWay = 0;
  private bytesUnderWay = 0;
  private results: PipelineResult[] = [];
  private scheduled = false;
  private paused = false;
  /** The connection takes nothing more for now. */
  private full = false;
  private closing = false;
  private toldClosing = false;
  private ending = false;
  private closed = false;

  constructor(options: PipelinesOptions, call: ServerDuplexStream<Buffer, Buffer>, onClosed: () => void) {
    this.options = options;
    this.call = call;
    this.onClosed = onClosed;
    this.startedMs = options.clock.monotonicMs();
  }

  start(): void {
    const { call, options } = this;
    call.on('error', () => this.close());
    call.once('cancelled', () => this.close());
    call.on('drain', () => {
      this.full = false;
      this.flush();
    });
    try {
      options.handlers.admit(PATH, call.metadata);
    } catch (error) {
      this.fail(asKvError(error));
      return;
    }
    call.once('end', () => this.end());
    call.on('data', (bytes: Buffer) => this.received(bytes));
    // Tells the client that the stream stands.
    call.sendMetadata(new Metadata());
  }

  sendAway(): void {
    if (this.closing || this.closed) return;
    this.closing = true;
    this.schedule();
  }

  end(): void {
    this.ending = true;
    this.schedule();
  }

  private received(bytes: Buffer): void {
    if (this.closed) return;
    let request: IncomingPipelineRequest;
    try {
      request = decodePipelineRequest(bytes, MOST_OPERATIONS);
    } catch (error) {
      this.fail(new KvError('INVALID_ARGUMENT', `the batch is malformed: ${messageOf(error)}`));
      return;
    }
    const now = this.options.clock.monotonicMs();
    if (now - this.startedMs > STREAM_AGE_MS) this.sendAway();
    for (const operation of request.operations) this.begin(request, operation, now);
    if (this.underWay <= WINDOW_OPERATIONS && this.bytesUnderWay <= WINDOW_BYTES) return;
    this.paused = true;
    this.call.pause();
  }

  private begin(request: IncomingPipelineRequest, incoming: IncomingOperation, now: number): void {
    const weight = weightOfOperation(incoming);
    this.underWay += 1;
    this.bytesUnderWay += weight;
    this.execute(request, incoming, now).then(
      (value) => {
        const result = { $case: incoming.operation?.$case, value } as PipelineResult['result'];
        this.answer({ number: incoming.number, result }, 'OK', now, weight);
      },
      (error: unknown) => {
        const { error: known, wire } = operationError(error);
        if (known.code === 'INTERNAL' || known.code === 'DATA_LOSS') {
          const { logger } = this.options.handlers;
          logger.error({ path: PATH, error: known.cause ?? known }, 'an operation failed');
        }
        const result = { $case: 'error' as const, value: wire };
        this.answer({ number: incoming.number, result }, known.code, now, weight);
      },
    );
  }

  /** Resolves with the response of the operation's kind. */
  private execute(
    request: IncomingPipelineRequest,
    incoming: IncomingOperation,
    now: number,
  ): Promise<PutResponse | GetResponse | DeleteResponse> {
    const { operations, handlers } = this.options;
    const { operation, timeoutMs } = incoming;
    try {
      handlers.admit(PATH, this.call.metadata);
      if (incoming.isConditional) throw unsupportedCondition();
      const context: OperationContext = {
        deadlineMs: now + (timeoutMs === 0 ? handlers.defaultDeadlineMs : answerBefore(timeoutMs)),
      };
      switch (operation?.$case) {
        case 'put':
          return operations.put(withId(operation.value, request, incoming), context);
        case 'get':
          return operations.get(operation.value, context);
        case 'delete':
          return operations.delete(withId(operation.value, request, incoming), context);
        case undefined:
          throw new KvError('INVALID_ARGUMENT', 'an operation is empty: give a put, a get or a delete');
      }
    } catch (error) {
      return Promise.reject(asKvError(error));
    }
  }

  private answer(result: PipelineResult, code: string, begunMs: number, weight: number): void {
    const { clock, handlers } = this.options;
    handlers.observe(PATH, code, (clock.monotonicMs() - begunMs) / 1000);
    this.bytesUnderWay -= weight;
    if (this.closed) return;
    this.results.push(result);
    this.schedule();
  }

  /** At the end of this turn, so that what is done by then travels together. */
  private schedule(): void {
    if (this.scheduled || this.full) return;
    this.scheduled = true;
    this.options.scheduler.soon(() => {
      this.scheduled = false;
      this.flush();
    });
  }

  private flush(): void {
    if (this.closed) return;
    while (!this.full && this.results.length > 0) this.write(this.take());
    if (!this.full && this.closing && !this.toldClosing) this.write([]);
    if (this.full) return;
    if (this.ending && this.underWay === 0) {
      this.call.end();
      this.close();
    } else if (
      this.paused &&
      this.underWay <= WINDOW_OPERATIONS / 2 &&
      this.bytesUnderWay <= WINDOW_BYTES / 2
    ) {
      this.paused = false;
      this.call.resume();
    }
  }

  /** The next results that fit into one message; one that is larger goes alone. */
  private take(): PipelineResult[] {
    const { results } = this;
    let bytes = 0;
    const end = results.findIndex((result, index) => {
      bytes += weightOfResult(result);
      return bytes > MESSAGE_BYTES && index > 0;
    });
    if (end === -1) this.results = [];
    return end === -1 ? results : results.splice(0, end);
  }

  private write(results: PipelineResult[]): void {
    const { call, closing, options } = this;
    this.underWay -= results.length;
    this.toldClosing ||= closing;
    this.full = !call.write(encodePipelineResponse({ results, epoch: options.epoch(), closing }));
  }

  private fail(error: KvError): void {
    if (this.closed) return;
    this.close();
    this.call.emit('error', statusOf(error));
  }

  private close(): void {
    if (this.closed) return;
    this.closed = true;
    this.results = [];
    this.onClosed();
  }
}

/** What the operation's own call would have as its request: the parts of a batch's request ids are put together. */
function withId<Request extends Pick<PutRequest, 'requestId'>>(
  value: Request,
  { clientId, clientStartMs }: IncomingPipelineRequest,
  { requestNumber, attempt }: IncomingOperation,
): Request {
  const hasId = clientId.length > 0 && requestNumber > 0;
  value.requestId = hasId ? { clientId, number: requestNumber, clientStartMs, attempt } : undefined;
  return value;
}
