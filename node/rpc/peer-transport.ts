import {
  CallFailure,
  callStream,
  channelOptions,
  type ClientReadableStream,
  plaintext,
} from '../../client/grpc.ts';
import { proofMetadata } from '../../client/proof-metadata.ts';
import { PROOF_METADATA, proveCall } from '../../common/call-proof.ts';
import type { Clock, Scheduler, Timer } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import type { Random } from '../../common/random.ts';
import {
  PeerClient,
  PeerService,
  type PullRecordsRequest,
  type RecordsChunk,
  type WatchChunk,
  type WatchPartitionsRequest,
} from '../../proto/gen/peer.ts';
import type { PeerAddress, PeerStream, PeerTransport } from '../replication/transport.ts';
import {
  Client,
  hostPort,
  type Metadata,
  status,
  type ClientDuplexStream,
  type StatusObject,
} from './grpc.ts';
import { FramedStream } from './peer-frames.ts';

export interface PeerTransportOptions {
  readonly nodeId: string;
  readonly secret: Buffer;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** Largest frame taken from a peer. */
  readonly maxFrameBytes: number;
  /** Told of every stream that is ended for what came on it, with the reason. */
  readonly refused: (path: string, reason: string) => void;
  /** How long a peer may take to let a call in, milliseconds. @default 3000 */
  readonly connectTimeoutMs?: number;
}

const CONNECT_TIMEOUT_MS = 3000;
/** How long the last frames of a closed stream may take, milliseconds. */
const FINISH_MS = 1000;
const same = (bytes: Buffer): Buffer => bytes;

/**
 * Peers over gRPC. Every call carries its own proof; a peer that refuses it for its time is called once more with the
 * offset it told.
 */
export class GrpcPeerTransport implements PeerTransport {
  private readonly options: PeerTransportOptions;
  /** Peers' wall clocks minus ours, where proofs had to be adjusted for it. */
  private readonly clockOffsetsMs = new Map<string, number>();

  constructor(options: PeerTransportOptions) {
    this.options = options;
  }

  connect(peer: PeerAddress): PeerStream {
    const { maxFrameBytes, refused } = this.options;
    const stream = new FramedStream({
      maxFrameBytes,
      refused: (reason) => refused(PeerService.exchange.path, reason),
    });
    // A channel of its own for each stream: the name is looked up anew, and no backoff of an earlier one delays it.
    const client = new Client(hostPort(peer.host, peer.port), plaintext(), ownChannel());
    this.dial(peer, client, stream, 0);
    return stream;
  }

  pullRecords(
    peer: PeerAddress,
    request: PullRecordsRequest,
    signal: AbortSignal,
  ): AsyncGenerator<RecordsChunk, void, undefined> {
    const { path } = PeerService.pullRecords;
    return this.stream(peer, path, (client, proof) => client.pullRecords(request, proof), signal);
  }

  watchPartitions(
    peer: PeerAddress,
    request: WatchPartitionsRequest,
    signal: AbortSignal,
  ): AsyncGenerator<WatchChunk, void, undefined> {
    const { path } = PeerService.watchPartitions;
    return this.stream(peer, path, (client, proof) => client.watchPartitions(request, proof), signal);
  }

  private async *stream<Response>(
    peer: PeerAddress,
    method: string,
    start: (client: PeerClient, proof: Metadata) => ClientReadableStream<Response>,
    signal: AbortSignal,
  ): AsyncGenerator<Response, void, undefined> {
    const client = new PeerClient(hostPort(peer.host, peer.port), plaintext(), ownChannel());
    try {
      for (let attempt = 0; ; attempt += 1) {
        const proof = this.proof(peer, method);
        try {
          yield* callStream(() => start(client, proof), signal);
          return;
        } catch (error) {
          if (!(error instanceof CallFailure)) throw error;
          const { code } = error.error;
          if (attempt > 0 || code !== 'UNAUTHENTICATED' || !this.adjustClock(peer, error.metadata))
            throw error.error;
        }
      }
    } finally {
      client.close();
    }
  }

  private dial(peer: PeerAddress, client: Client, stream: FramedStream, attempt: number): void {
    const { scheduler, connectTimeoutMs = CONNECT_TIMEOUT_MS } = this.options;
    const { path } = PeerService.exchange;
    const call = client.makeBidiStreamRequest(path, same, same, this.proof(peer, path));
    let accepted = false;
    let result: StatusObject | undefined;
    const timer = scheduler.after(connectTimeoutMs, () => call.cancel());
    const ended = (): void => {
      timer.cancel();
      client.close();
      stream.ended(failureOf(peer, result, accepted));
    };
    // The status says it all; without a listener the same error would end the process.
    call.on('error', () => undefined);
    call.once('metadata', () => {
      accepted = true;
      timer.cancel();
      stream.attach(this.carrierOf(call, stream));
    });
    call.once('status', (finished: StatusObject) => {
      result = finished;
      if (accepted && !stream.isClosed) return; // Frames may still wait to be read: `end` follows them.
      if (!accepted && attempt === 0 && !stream.isClosed && this.mayRetry(peer, finished)) {
        timer.cancel();
        this.dial(peer, client, stream, attempt + 1);
      } else ended();
    });
    call.once('end', () => {
      if (accepted && result !== undefined) ended();
      else if (accepted) call.once('status', ended);
    });
  }

  private carrierOf(
    call: ClientDuplexStream<Buffer, Buffer>,
    stream: FramedStream,
  ): Parameters<FramedStream['attach']>[0] {
    const { scheduler } = this.options;
    let giveUp: Timer | undefined;
    call.once('status', () => giveUp?.cancel());
    return {
      write: (bytes, taken) => {
        call.write(bytes, (error: Error | null | undefined) => {
          if (error === null || error === undefined) taken();
        });
      },
      finish: () => {
        call.end();
        call.resume();
        giveUp = scheduler.after(FINISH_MS, () => call.cancel());
      },
      abort: () => call.cancel(),
      startReading: () => {
        call.on('data', (bytes: Buffer) => stream.received(bytes));
      },
    };
  }

  private mayRetry(peer: PeerAddress, { code, metadata }: StatusObject): boolean {
    return code === status.UNAUTHENTICATED && this.adjustClock(peer, metadata);
  }

  /** Whether the peer refused our time and told its own. */
  private adjustClock(peer: PeerAddress, trailers: Metadata): boolean {
    const theirs = Number(trailers.get(PROOF_METADATA.time)[0] ?? Number.NaN);
    if (!Number.isSafeInteger(theirs)) return false;
    this.clockOffsetsMs.set(peer.nodeId, theirs - this.options.clock.wallMs());
    return true;
  }

  private proof(peer: PeerAddress, method: string): Metadata {
    const { clock, nodeId, random, secret } = this.options;
    const timeMs = clock.wallMs() + (this.clockOffsetsMs.get(peer.nodeId) ?? 0);
    return proofMetadata(
      proveCall(secret, { method, sender: nodeId, recipient: peer.nodeId, timeMs }, random),
    );
  }
}

function ownChannel(): ReturnType<typeof channelOptions> {
  return {
    ...channelOptions(),
    'grpc.use_local_subchannel_pool': 1,
    'grpc-node.flow_control_window': 1024 * 1024,
  };
}

function failureOf(
  peer: PeerAddress,
  result: StatusObject | undefined,
  accepted: boolean,
): Error | undefined {
  if (result === undefined || result.code === status.OK) return undefined;
  const where = `${peer.nodeId} at ${hostPort(peer.host, peer.port)}`;
  if (result.code === status.UNAUTHENTICATED || result.code === status.PERMISSION_DENIED) {
    const code = result.code === status.UNAUTHENTICATED ? 'UNAUTHENTICATED' : 'PERMISSION_DENIED';
    return new KvError(code, `${where} refused the call: ${result.details}`);
  }
  const what = accepted ? 'the stream broke' : 'no connection';
  return new KvError('UNAVAILABLE', `${what} with ${where}: ${result.details}`);
}
