import type { Clock, Scheduler } from '../common/clock.ts';
import {
  type BackupResponse,
  type DeleteRequest,
  type DeleteResponse,
  type DescribeClusterResponse,
  type GetRequest,
  type GetResponse,
  KeyValueStoreClient,
  type ListKeysRequest,
  type ListKeysResponse,
  type PingResponse,
  type PutRequest,
  type PutResponse,
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
  isConnected,
  plaintext,
} from './grpc.ts';
import { MessageStream } from './message-stream.ts';

/** Bounds of one call to one endpoint. */
export interface EndpointCall {
  /** How long the answer may take, milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** How long an endpoint that has no connection yet may take for it before another one is tried. */
const CONNECT_TIMEOUT_MS = 1000;

/** One node's public API over one connection, which is made at the first call. Methods throw CallFailure. */
export class Endpoint {
  readonly address: string;
  private readonly stub: KeyValueStoreClient;
  private readonly channelTarget: string;
  private readonly clock: Clock;
  private readonly scheduler: Scheduler;

  constructor(address: string, clock: Clock, scheduler: Scheduler) {
    this.address = address;
    this.clock = clock;
    this.scheduler = scheduler;
    this.stub = new KeyValueStoreClient(address, plaintext(), channelOptions());
    this.channelTarget = this.stub.getChannel().getTarget();
  }

  put(request: PutRequest, call: EndpointCall): Promise<PutResponse> {
    return this.unary(call, (metadata, options, done) => this.stub.put(request, metadata, options, done));
  }

  get(request: GetRequest, call: EndpointCall): Promise<GetResponse> {
    return this.unary(call, (metadata, options, done) => this.stub.get(request, metadata, options, done));
  }

  delete(request: DeleteRequest, call: EndpointCall): Promise<DeleteResponse> {
    return this.unary(call, (metadata, options, done) => this.stub.delete(request, metadata, options, done));
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
