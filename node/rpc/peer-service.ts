import { KvError } from '../../common/errors.ts';
import { hasMoreElements, shapeOf } from '../../common/message-elements.ts';
import {
  PeerService,
  type PullRecordsRequest,
  type RecordsChunk,
  type WatchChunk,
  type WatchPartitionsRequest,
} from '../../proto/gen/peer.ts';
import type { Replica } from '../replication/engine.ts';
import {
  bytesMethod,
  Metadata,
  type ServerDuplexStream,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from './grpc.ts';
import { streamHandler, tolerantMethod, type HandlerOptions } from './handlers.ts';
import { FramedStream, type FrameCarrier } from './peer-frames.ts';
import { checkPeerHeader, checkRecordsRequest } from './records-request.ts';
import { asKvError, statusOf } from './status-codes.ts';

/** A mark for each of 65,536 partitions, and what else a request has. */
const MAX_REQUEST_ELEMENTS = 100_000;
const FLAT = shapeOf([]);

/** kvcluster.peer.Peer; frames stay bytes until the stream decodes them. */
export const peerServiceDefinition = {
  exchange: bytesMethod(PeerService.exchange.path),
  pullRecords: tolerantMethod(PeerService.pullRecords, refuseCrowded),
  watchPartitions: tolerantMethod(PeerService.watchPartitions, refuseCrowded),
} satisfies ServiceDefinition;

function refuseCrowded(bytes: Buffer): KvError | undefined {
  return hasMoreElements(bytes, FLAT, MAX_REQUEST_ELEMENTS)
    ? new KvError('INVALID_ARGUMENT', `the request has more than ${MAX_REQUEST_ELEMENTS} elements`)
    : undefined;
}

export interface PeerServiceOptions {
  readonly replica: Pick<Replica, 'acceptStream' | 'streamRecords' | 'watchPartitions'>;
  /** Number of hash partitions. */
  readonly partitions: number;
  /** Largest frame taken from a peer. */
  readonly maxFrameBytes: number;
  /** `admit` checks the callers' proofs. */
  readonly handlers: HandlerOptions;
  /** Told of every stream that is ended for what came on it, with the reason. */
  readonly refused: (path: string, reason: string) => void;
}

/** The implementation of `peerServiceDefinition`. */
export function createPeerService(options: PeerServiceOptions): UntypedServiceImplementation {
  const { replica, handlers, partitions } = options;
  return {
    exchange: (call: ServerDuplexStream<Buffer, Buffer>) => accept(options, call),
    pullRecords: streamHandler<PullRecordsRequest, RecordsChunk>(
      PeerService.pullRecords.path,
      handlers,
      (request, { signal }) => {
        // Without a header it would pass for an administrator's.
        checkPeerHeader(request);
        checkRecordsRequest(request, partitions);
        return replica.streamRecords(request, signal);
      },
    ),
    watchPartitions: streamHandler<WatchPartitionsRequest, WatchChunk>(
      PeerService.watchPartitions.path,
      handlers,
      (request, { signal }) => {
        checkPeerHeader(request);
        return replica.watchPartitions(request, signal);
      },
    ),
  };
}

function accept(options: PeerServiceOptions, call: ServerDuplexStream<Buffer, Buffer>): void {
  const { replica, handlers, maxFrameBytes, refused } = options;
  try {
    handlers.admit(PeerService.exchange.path, call.metadata);
  } catch (error) {
    call.emit('error', statusOf(asKvError(error)));
    return;
  }
  // Headers tell the caller that it was let in: it holds its frames back until then.
  call.sendMetadata(new Metadata());
  const stream = new FramedStream({
    maxFrameBytes,
    refused: (reason) => refused(PeerService.exchange.path, reason),
  });
  call.on('error', (error) => stream.ended(error));
  call.once('cancelled', () => stream.ended(new KvError('UNAVAILABLE', 'the peer has gone')));
  call.once('end', () => {
    stream.ended(undefined);
    call.end();
  });
  stream.attach(carrierOf(call, stream));
  replica.acceptStream(stream);
}

function carrierOf(call: ServerDuplexStream<Buffer, Buffer>, stream: FramedStream): FrameCarrier {
  return {
    write: (bytes, taken) => {
      call.write(bytes, (error: Error | null | undefined) => {
        if (error === null || error === undefined) taken();
      });
    },
    finish: () => call.end(),
    abort: (reason) => {
      call.emit('error', statusOf(reason));
    },
    startReading: () => {
      call.on('data', (bytes: Buffer) => stream.received(bytes));
    },
  };
}
