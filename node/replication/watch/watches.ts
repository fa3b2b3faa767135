import type { Clock, Scheduler } from '../../../common/clock.ts';
import { KvError } from '../../../common/errors.ts';
import type { Logger } from '../../../common/log.ts';
import type { PeerHeader, WatchChunk, WatchPartitionsRequest } from '../../../proto/gen/peer.ts';
import type { VolumeIdentity } from '../../cluster/identity.ts';
import type { Standing } from '../../cluster/standing.ts';
import type { Store } from '../../storage/store.ts';
import type { WatchBatch, WatchOperation } from '../engine.ts';
import { liveValue } from '../live-value.ts';
import { standingOutside, type Topology } from '../topology.ts';
import { LogContinuity } from './log-continuity.ts';
import { LogReads } from './log-reads.ts';
import type { Marks } from './marks.ts';
import { PartitionWatch, type PartitionWatchRequest, type WatchPiece } from './partition-watch.ts';
import type { WatchMetrics } from './metrics.ts';
import type { WatchSettings } from './settings.ts';
import { decodeWatchToken, type WatchToken } from './token.ts';
import { Turns } from './turns.ts';
import { WatchStream } from './watch-stream.ts';
import { decodePiece, decodeRequest, encodePiece, encodeRequest } from './wire.ts';

export interface WatchesOptions {
  readonly store: Store;
  readonly identity: Pick<VolumeIdentity, 'nodeId' | 'clusterId' | 'incarnation'>;
  readonly standing: Pick<Standing, 'isReadable'>;
  readonly topology: Topology;
  /**
   * Every version of the partition with a lower wall clock is held by all its replicas, whoever wrote it, and none will be
   * minted below any more, milliseconds; 0: not known. Once said it holds for ever.
   */
  readonly lowWaterMs: (partition: number) => number;
  /** Tombstones and expired records of the partition with a lower version may have been collected here, milliseconds. */
  readonly horizonMs: (partition: number) => number;
  /** What a call to a peer is headed with. */
  readonly headerFor: (nodeId: string) => PeerHeader;
  /** Calls Peer/WatchPartitions. @throws KvError UNAVAILABLE when the peer's address is not known. */
  readonly call: (
    nodeId: string,
    request: WatchPartitionsRequest,
    signal: AbortSignal,
  ) => AsyncIterable<WatchChunk>;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly settings: WatchSettings;
  readonly metrics: WatchMetrics;
  readonly logger: Logger;
}

/** The watches of this node: streams to its clients, and what it tells other nodes for theirs (PROTOCOL 18). */
export class Watches {
  private readonly options: WatchesOptions;
  private readonly continuity: LogContinuity;
  private readonly reads: LogReads;
  private readonly turns: Turns;
  private readonly ended = new AbortController();
  private watching = 0;
  private serving = 0;

  /** @throws KvError FAILED_PRECONDITION when a newer version of the software wrote what is stored. */
  constructor(options: WatchesOptions) {
    const { store, standing, topology, scheduler, settings } = options;
    this.options = options;
    this.continuity = new LogContinuity({
      ...options,
      isComplete: (partition) =>
        standing.isReadable(partition) &&
        topology.map !== undefined &&
        topology.setsOf(partition).read.includes(topology.nodeId),
      serves: (partition) => topology.serves(partition),
    });
    this.reads = new LogReads({
      store,
      partitionOf: (key) => topology.partitionOf(key),
      sliceBytes: settings.pieceBytes,
    });
    this.turns = new Turns(scheduler);
  }

  /** To be called whenever what this node serves may have changed, in the turn in which it changed. */
  update(): void {
    this.continuity.update();
  }

  /** Changes of all partitions, for a client. Ends only by error. */
  async *watch({ prefix, token, signal }: WatchOperation): AsyncGenerator<WatchBatch, void, undefined> {
    const { settings, identity, topology, store, clock } = this.options;
    const outside = standingOutside(topology.map, topology.nodeId);
    if (outside !== undefined) throw new KvError('UNAVAILABLE', `${outside}; ask another node`);
    const resumed = token === undefined ? undefined : this.checked(prefix, token);
    if (this.watching >= settings.mostWatches) throw tooMany(settings.mostWatches);
    this.countWatches(1);
    try {
      const stream = new WatchStream(
        {
          ...this.options,
          partitions: store.partitions,
          clusterId: identity.clusterId,
          open: (nodeId, request, ends) => this.open(nodeId, request, ends),
        },
        prefix,
        resumed,
        AbortSignal.any([signal, this.ended.signal]),
      );
      for await (const batch of stream.batches()) {
        const nowMs = clock.wallMs();
        const changes = batch.records.map(({ key, record }) => ({
          key,
          version: record.version,
          live: liveValue(record, nowMs),
        }));
        yield { changes, token: batch.token };
      }
    } finally {
      this.countWatches(-1);
      this.tidy();
    }
  }

  /** Changes of some partitions that this node serves, for another node. Ends only by error. */
  async *serve(
    request: WatchPartitionsRequest,
    signal: AbortSignal,
  ): AsyncGenerator<WatchChunk, void, undefined> {
    const { store, settings } = this.options;
    const { partitions } = store;
    const wanted = decodeRequest(request, partitions);
    if (this.serving >= settings.mostServed) throw tooMany(settings.mostServed);
    this.serving += 1;
    try {
      const ends = AbortSignal.any([signal, this.ended.signal]);
      for await (const piece of this.local(wanted, ends)) yield encodePiece(piece, partitions);
    } finally {
      this.serving -= 1;
      this.tidy();
    }
  }

  /** Ends all streams, so that they go on elsewhere; none begins any more. */
  close(reason: string): void {
    this.ended.abort(new KvError('UNAVAILABLE', `${reason}: resume from the last token at another node`));
  }

  private checked(prefix: Buffer, token: Buffer): WatchToken {
    const { store, identity } = this.options;
    const decoded = decodeWatchToken(prefix, token, store.partitions);
    if (decoded.clusterId === identity.clusterId) return decoded;
    throw new KvError(
      'OUT_OF_RANGE',
      'the token is of another cluster: scan again, and watch without a token',
    );
  }

  private open(
    nodeId: string,
    request: PartitionWatchRequest,
    signal: AbortSignal,
  ): AsyncIterable<WatchPiece> {
    return nodeId === this.options.identity.nodeId
      ? this.local(request, signal)
      : this.remote(nodeId, request, signal);
  }

  private local(request: PartitionWatchRequest, signal: AbortSignal): AsyncGenerator<WatchPiece> {
    const { identity, settings, lowWaterMs, horizonMs } = this.options;
    const { continuity, reads, turns } = this;
    return new PartitionWatch(
      {
        ...this.options,
        ...settings,
        nodeId: identity.nodeId,
        incarnation: () => identity.incarnation,
        // What may be collected is below the low-water mark, and is known at once after a start.
        lowWaterMs: (partition) => Math.max(lowWaterMs(partition), horizonMs(partition)),
        continuity,
        reads,
        turns,
      },
      request,
      signal,
    ).pieces();
  }

  /** A node that says nothing for a while is given up: its beats have stopped. */
  private async *remote(
    nodeId: string,
    request: PartitionWatchRequest,
    signal: AbortSignal,
  ): AsyncGenerator<WatchPiece, void, undefined> {
    const { call, headerFor, scheduler, settings, store } = this.options;
    const given = new AbortController();
    const giveUp = (): void => given.abort(new KvError('UNAVAILABLE', `${nodeId} tells nothing any more`));
    const wire = encodeRequest(headerFor(nodeId), request, store.partitions);
    const chunks = call(nodeId, wire, AbortSignal.any([signal, given.signal]))[Symbol.asyncIterator]();
    const { marks }: { marks: Marks } = request;
    try {
      for (;;) {
        const timer = scheduler.after(settings.silenceMs, giveUp);
        const next: IteratorResult<WatchChunk, unknown> = await chunks.next().finally(() => timer.cancel());
        if (next.done === true) return;
        yield decodePiece(next.value, marks, store.partitions);
      }
    } finally {
      await chunks.return?.();
    }
  }

  private countWatches(more: number): void {
    this.watching += more;
    this.options.metrics.gauge('watches', this.watching);
  }

  private tidy(): void {
    if (this.watching + this.serving === 0) this.reads.clear();
  }
}

function tooMany(most: number): KvError {
  return new KvError(
    'RESOURCE_EXHAUSTED',
    `${most} watches are open on this node: retry later, or ask another node`,
    {
      retryable: true,
    },
  );
}
