import type { Scheduler } from '../common/clock.ts';
import { KvError } from '../common/errors.ts';
import { CallFailure, callStream, type ClientReadableStream, Metadata } from './grpc.ts';

export interface MessageStreamOptions<Response> {
  readonly start: () => ClientReadableStream<Response>;
  /** As the channel names it: until the call has a connection, this is what it gives as its peer. */
  readonly channelTarget: string;
  /** How long it may take to connect, milliseconds; undefined: there is a connection. */
  readonly connectTimeoutMs: number | undefined;
  readonly scheduler: Scheduler;
  readonly signal: AbortSignal | undefined;
}

/** One server-streaming call, whose messages are awaited for a limited time each. Whoever opens it closes it. */
export class MessageStream<Response> {
  private readonly options: MessageStreamOptions<Response>;
  private readonly ended = new AbortController();
  private readonly messages: AsyncGenerator<Response, void, undefined>;
  private call: ClientReadableStream<Response> | undefined;

  constructor(options: MessageStreamOptions<Response>) {
    this.options = options;
    const { signal } = this.ended;
    this.messages = callStream(
      () => (this.call = options.start()),
      options.signal === undefined ? signal : AbortSignal.any([signal, options.signal]),
    );
  }

  /**
   * The next message; undefined at the end.
   *
   * @throws CallFailure, also when no message comes in time; the signal's reason when it aborts.
   */
  async next(timeoutMs: number): Promise<Response | undefined> {
    const { scheduler, connectTimeoutMs, channelTarget } = this.options;
    const late = scheduler.after(timeoutMs, () =>
      this.fail('lost', new KvError('DEADLINE_EXCEEDED', `nothing came for ${Math.round(timeoutMs)} ms`)),
    );
    const unconnected =
      connectTimeoutMs === undefined
        ? undefined
        : scheduler.after(connectTimeoutMs, () => {
            if (this.call?.getPeer() !== channelTarget) return;
            this.fail('not-sent', new KvError('UNAVAILABLE', 'no connection in time'));
          });
    try {
      const next = await this.messages.next();
      return next.done === true ? undefined : next.value;
    } finally {
      late.cancel();
      unconnected?.cancel();
    }
  }

  /** Cancels the call. Idempotent. */
  close(): void {
    this.ended.abort(new KvError('ABORTED', 'the stream was closed'));
    // Only frees what the generator holds: the call has ended.
    this.messages.return().catch(() => undefined);
  }

  private fail(stage: CallFailure['stage'], error: KvError): void {
    this.ended.abort(new CallFailure(stage, error, new Metadata()));
  }
}
