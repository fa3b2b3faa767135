import type { Clock, Scheduler } from '../common/clock.ts';
import { KvError } from '../common/errors.ts';
import {
  type BackupResponse,
  type DescribeClusterResponse,
  KeyValueStoreClient,
  KeyValueStoreService,
  type ListKeysRequest,
  type ListKeysResponse,
  type PingResponse,
  type ScanRequest,
  type ScanResponse,
  type WatchRequest,
  type WatchResponse,
} from '../proto/gen/kvstore.ts';
import {
  type CallSettings,
  callUnary,
  channelOptions,
  type ClientReadableStream,
  dial,
  isConnected,
  openBytesStream,
  plaintext,
} from './grpc.ts';
import { MessageStream } from './message-stream.ts';
import { type OperationOutcome, Pipeline, type PipelinedOperation } from './pipeline.ts';

/** Bounds of one call to one endpoint. */
export interface EndpointCall {
  /** How long the answer may take, milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface EndpointOptions {
  /** `host:port`. */
  readonly address: string;
  /** The client's part of the request ids of writes. */
  readonly client: { readonly id: Buffer; readonly startMs: number };
  /** Told of the epoch of the node's map when it changes. */
  readonly onEpoch: (epoch: number) => void;
  /** Told that the node wants its clients to go elsewhere. */
  readonly onSentAway: (endpoint: Endpoint) => void;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
}

/** How long an endpoint that has no connection yet may take for it before another one is tried. */
const CONNECT_TIMEOUT_MS = 1000;

/** One node's public API over one connection, which is made at the first call. Methods throw CallFailure. */
export class Endpoint {
  readonly address: string;
  private readonly stub: KeyValueStoreClient;
  private readonly pipeline: Pipeline;
  private readonly channelTarget: string;
  private readonly clock: Clock;
  private readonly scheduler: Scheduler;

  constructor(options: EndpointOptions) {
    const { address, clock, scheduler } = options;
    this.address = address;
    this.clock = clock;
    this.scheduler = scheduler;
    this.stub = new KeyValueStoreClient(address, plaintext(), channelOptions());
    this.channelTarget = this.stub.getChannel().getTarget();
    this.pipeline = new Pipeline({
      open: () => openBytesStream(this.stub, KeyValueStoreService.pipeline.path),
      channelTarget: this.channelTarget,
      isConnected: () => this.isConnected,
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      client: options.client,
      onEpoch: options.onEpoch,
      onSentAway: () => options.onSentAway(this),
      clock,
      scheduler,
    });
  }

  /** Whether operations go out at once. */
  get isConnected(): boolean {
    return isConnected(this.stub);
  }

  /** Operations that wait for their results. */
  get load(): number {
    return this.pipeline.load;
  }

  /** Connects in the background, if it is not connected. */
  dial(): void {
    dial(this.stub);
  }

  /** Runs an operation on a single key, by the stream of all of them. */
  execute(operation: PipelinedOperation, { timeoutMs, signal }: EndpointCall): Promise<OperationOutcome> {
    return this.pipeline.run(operation, timeoutMs, signal);
  }

  listKeys(request: ListKeysRequest, call: EndpointCall): Promise<ListKeysResponse> {
    return this.unary(call, (metadata, options, done) =>
      this.stub.listKeys(request, metadata, options, done),
    );
  }

  /** Without a deadline of its own: whoever reads it limits each message. */
  scan(request: ScanRequest, call: EndpointCall): MessageStream<ScanResponse> {
    return this.stream(call, () => this.stub.scan(request));
  }

  /** Without a deadline of its own: whoever reads it limits each message. */
  watch(request: WatchRequest, call: EndpointCall): MessageStream<WatchResponse> {
    return this.stream(call, () => this.stub.watch(request));
  }

  ping(call: EndpointCall): Promise<PingResponse> {
    return this.unary(call, (metadata, options, done) => this.stub.ping({}, metadata, options, done));
  }

  describeCluster(call: EndpointCall): Promise<DescribeClusterResponse> {
    return this.unary(call, (metadata, options, done) =>
      this.stub.describeCluster({}, metadata, options, done),
    );
  }

  backup(call: EndpointCall): Promise<BackupResponse> {
    return this.unary(call, (metadata, options, done) => this.stub.backup({}, metadata, options, done));
  }

  close(): void {
    this.pipeline.close(new KvError('UNAVAILABLE', `the connection to ${this.address} was closed`));
    this.stub.close();
  }

  private stream<Response>(
    { timeoutMs, signal }: EndpointCall,
    start: () => ClientReadableStream<Response>,
  ): MessageStream<Response> {
    return new MessageStream({
      start,
      channelTarget: this.channelTarget,
      connectTimeoutMs: isConnected(this.stub) ? undefined : Math.min(CONNECT_TIMEOUT_MS, timeoutMs),
      scheduler: this.scheduler,
      signal,
    });
  }

  private unary<Response>(
    { timeoutMs, signal }: EndpointCall,
    start: Parameters<typeof callUnary<Response>>[0],
  ): Promise<Response> {
    const settings: CallSettings = {
      deadlineMs: this.clock.wallMs() + timeoutMs,
      signal,
      connectTimeout: isConnected(this.stub)
        ? undefined
        : { scheduler: this.scheduler, timeoutMs: Math.min(CONNECT_TIMEOUT_MS, timeoutMs) },
    };
    return callUnary(start, this.channelTarget, settings);
  }
}
