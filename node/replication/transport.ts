import type { ClusterMap } from '../../model/cluster-map.ts';
import type {
  PeerFrame,
  PullRecordsRequest,
  RecordsChunk,
  WatchChunk,
  WatchPartitionsRequest,
} from '../../proto/gen/peer.ts';

/** The one stream to a peer, from either end. Frames arrive in order or the stream ends. */
export interface PeerStream {
  /** Queues a frame. Returns false when the stream's buffer is full: wait for `onDrain` before sending data again. */
  send(frame: PeerFrame): boolean;
  /** Set once, before the first frame can arrive. */
  handle(handlers: PeerStreamHandlers): void;
  /** Ends the stream; idempotent. */
  close(): void;
}

export interface PeerStreamHandlers {
  onFrame(frame: PeerFrame): void;
  onDrain(): void;
  /** Exactly once, also after `close`. */
  onClose(reason: Error | undefined): void;
}

/** Where a peer is to be found. */
export interface PeerAddress {
  readonly nodeId: string;
  /** Host name or address. */
  readonly host: string;
  readonly port: number;
}

/** How nodes reach each other: gRPC in production, a simulated network in simulations. */
export interface PeerTransport {
  /** Opens the stream to a peer; failures arrive as `onClose`. */
  connect(peer: PeerAddress): PeerStream;
  /** Streams a peer's records (PeerService.PullRecords). The signal ends it. */
  pullRecords(
    peer: PeerAddress,
    request: PullRecordsRequest,
    signal: AbortSignal,
  ): AsyncIterable<RecordsChunk>;
  /** Streams changes of partitions that a peer serves (PeerService.WatchPartitions). The signal ends it. */
  watchPartitions(
    peer: PeerAddress,
    request: WatchPartitionsRequest,
    signal: AbortSignal,
  ): AsyncIterable<WatchChunk>;
}

/** Where the peers of this node may be: DNS records of the headless Service, or a fixed list. */
export interface Discovery {
  /**
   * Addresses of members of the map, or, without a map, of every candidate that can be found.
   * Names that do not resolve yet are left out.
   */
  locate(map: ClusterMap | undefined): Promise<readonly PeerAddress[]>;
}
