import { abortReason } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import { type ClusterMap, memberOf, replicasOf } from '../../model/cluster-map.ts';
import type { PullRecordsRequest, RecordsChunk } from '../../proto/gen/peer.ts';
import { FatalError, type FatalKind } from '../cluster/fatal-error.ts';
import { VolumeIdentity } from '../cluster/identity.ts';
import { MapHolder } from '../cluster/map-holder.ts';
import type { OwnPast } from '../cluster/own-past.ts';
import { PeerMemories } from '../cluster/peer-memory.ts';
import { ServingMark } from '../cluster/serving-mark.ts';
import { Coordinator, type ReplicaView } from './coordinator.ts';
import type { KeyValueEngine, ProposeResult, Replica } from './engine.ts';
import { HybridClock } from './hybrid-clock.ts';
import { InFlight } from './in-flight.ts';
import { LogFloor } from './log-floor.ts';
import { NO_METRICS, type ReplicationMetrics } from './metrics.ts';
import type { ReplicaOptions } from './options.ts';
import { OwnLog } from './own-log.ts';
import { Peers } from './peers.ts';
import { PendingWrites } from './pending-writes.ts';
import { rebuildSources } from './quorum.ts';
import { QuorumReader } from './quorum-reader.ts';
import { Reads } from './reads.ts';
import { Rebuild } from './rebuild.ts';
import { streamRecords } from './record-stream.ts';
import { RequestHandler } from './request-handler.ts';
import { DEFAULT_REPLICATION_SETTINGS, type ReplicationSettings } from './settings.ts';
import { isInSync, statusOf } from './status.ts';
import type { PeerStream } from './transport.ts';

/**
 * Starts the replication of a node over an opened store: takes its identity from the volume, raises the boot counter
 * durably, and looks for its peers. It serves as soon as its persisted mark and map allow.
 *
 * @throws KvError FAILED_PRECONDITION when the volume belongs to another node.
 */
export async function createReplica(options: ReplicaOptions): Promise<Replica> {
  const identity = await VolumeIdentity.open(options.store, options.nodeId, options.random);
  const replica = new RunningReplica(options, identity);
  await replica.start();
  return replica;
}

class RunningReplica implements Replica {
  readonly engine: KeyValueEngine;
  readonly fatal: Promise<never>;
  private readonly options: ReplicaOptions;
  private readonly settings: ReplicationSettings;
  private readonly metrics: ReplicationMetrics;
  private readonly identity: VolumeIdentity;
  private readonly serving: ServingMark;
  private readonly maps: MapHolder;
  private readonly memories: PeerMemories;
  private readonly ownLog: OwnLog;
  private readonly inFlight: InFlight;
  private readonly coordinator: Coordinator;
  private readonly peers: Peers;
  private readonly rebuild: Rebuild;
  private readonly rejectFatal: (error: FatalError) => void;
  private readonly streams = new AbortController();
  private losing: Promise<void> | undefined;
  private stopped = false;

  constructor(options: ReplicaOptions, identity: VolumeIdentity) {
    const { store, logger, clock, scheduler } = options;
    this.options = options;
    this.identity = identity;
    this.settings = { ...DEFAULT_REPLICATION_SETTINGS, ...options.settings };
    this.metrics = options.metrics ?? NO_METRICS;
    const { settings, metrics } = this;
    const fatal = Promise.withResolvers<never>();
    fatal.promise.catch(() => undefined);
    this.fatal = fatal.promise;
    this.rejectFatal = fatal.reject;

    this.serving = new ServingMark(store, identity);
    this.maps = new MapHolder({
      ...options,
      identity,
      onConflict: () => metrics.count('map_conflicts'),
    });
    this.memories = new PeerMemories(store, () => identity.incarnation);
    this.ownLog = new OwnLog(store);
    this.inFlight = new InFlight(settings.maxInFlightBytes, metrics);
    const hybridClock = new HybridClock({ clock, store, writer: () => identity.incarnation, ...settings });
    const pending = new PendingWrites();
    const { ownLog, serving, memories, inFlight } = this;
    const view = this.view();
    this.coordinator = new Coordinator({
      store,
      ownLog,
      hybridClock,
      pending,
      view,
      inFlight,
      clock,
      scheduler,
      metrics,
    });
    const reads = new Reads({
      store,
      view,
      clock,
      metrics,
      quorum: new QuorumReader({ nodeId: identity.nodeId, store, clock, scheduler, metrics, ...settings }),
      remote: (nodeId) => this.peers.session(nodeId)?.remote,
    });
    this.engine = {
      put: (operation) => this.coordinator.put(operation),
      delete: (operation) => this.coordinator.delete(operation),
      get: (operation) => inFlight.run(operation.key.length, () => reads.get(operation)),
      listKeys: (operation) => inFlight.run(operation.maxBytes, () => reads.listKeys(operation)),
    };
    this.peers = new Peers({
      ...options,
      identity,
      serving,
      memories,
      ownLog,
      hybridClock,
      pending,
      settings,
      metrics,
      maps: this.maps,
      floor: new LogFloor(store),
      merging: () => !serving.readable,
      requests: new RequestHandler({
        store,
        ownLog,
        clock: hybridClock,
        readable: () => this.refusal === undefined,
      }),
      draining: () => inFlight.closed,
      onChange: () => this.onPeersChanged(),
      onFellOff: (peer) => this.onFellOff(peer),
      onLoss: (past, peer) => void this.onLoss(past, peer),
      onFenced: (kind, message) => this.fail(kind, message),
    });
    this.rebuild = new Rebuild({
      store,
      serving,
      hybridClock,
      clock,
      scheduler,
      metrics,
      logger,
      batchBytes: settings.chunkBytes,
      others: () => this.others(),
      needed: () => rebuildSources(this.others().length + 1),
      candidates: () => this.sourceCandidates(),
      open: (peer, after, signal) => this.pull(peer, after, signal),
      repair: async (peer, records) => {
        const session = this.peers.session(peer);
        if (session === undefined) throw new KvError('UNAVAILABLE', `${peer} is not connected`);
        await session.remote.repair(records);
      },
      promote: async (peer, incarnation, head) => {
        const session = this.peers.session(peer);
        if (session?.incarnation !== incarnation) return false;
        await session.promote(head);
        return true;
      },
    });
    serving.onChange(() => this.onServingChanged());
    this.maps.onAdopted((map) => void this.settleInto(map));
  }

  async start(): Promise<void> {
    const { store, logger } = this.options;
    store.failed.catch((error: unknown) =>
      this.fail('store-failed', `the store failed: ${messageOf(error)}`, error),
    );
    if (this.maps.current !== undefined) await this.settleInto(this.maps.current);
    this.metrics.gauge('readable', this.serving.readable ? 1 : 0);
    logger.info(
      {
        node: this.nodeId,
        incarnation: this.identity.incarnation,
        boot: this.identity.bootCounter,
        state: this.serving.state,
        epoch: this.map?.epoch,
      },
      'replica started',
    );
    this.peers.start();
    this.rebuild.start();
  }

  get nodeId(): string {
    return this.identity.nodeId;
  }

  get map(): ClusterMap | undefined {
    return this.maps.current;
  }

  get notReadyReason(): string | undefined {
    return this.refusal ?? (this.inFlight.closed ? 'draining' : undefined);
  }

  status(): ReturnType<Replica['status']> {
    const { namespace, name, store, clock } = this.options;
    const { identity, serving, peers, map } = this;
    const draining = this.inFlight.closed;
    return statusOf({
      namespace,
      name,
      store,
      identity,
      serving,
      peers,
      map,
      draining,
      wallMs: clock.wallMs(),
    });
  }

  async proposeMap(map: ClusterMap): Promise<ProposeResult> {
    const adoption = await this.maps.adopt(map);
    const accepted = adoption.kind === 'adopted' || adoption.kind === 'same';
    if (accepted) await this.found(map);
    return {
      accepted,
      epoch: this.map?.epoch ?? 0,
      hash: this.map?.hash ?? '',
      message: 'message' in adoption ? adoption.message : '',
    };
  }

  acceptStream(stream: PeerStream): void {
    this.peers.accept(stream);
  }

  async *streamRecords(request: PullRecordsRequest, signal: AbortSignal): AsyncIterable<RecordsChunk> {
    this.admitStream(request);
    const { store } = this.options;
    const ended = AbortSignal.any([signal, this.streams.signal]);
    yield* streamRecords(
      {
        store,
        durableHead: () => this.ownLog.durableHead,
        incarnation: () => this.identity.incarnation,
        chunkBytes: this.settings.chunkBytes,
      },
      request,
      ended,
    );
    if (ended.aborted) throw abortReason(ended);
  }

  drain(): void {
    this.inFlight.close('this node is draining');
    this.peers.announce();
  }

  idle(): Promise<void> {
    return this.inFlight.idle();
  }

  async stop(): Promise<void> {
    if (this.stopped) return;
    this.stopped = true;
    this.inFlight.close('this node stops');
    this.rebuild.stop();
    this.streams.abort(new KvError('UNAVAILABLE', 'this node stops'));
    this.coordinator.abandon('this node stops');
    // The last word on how far this disk is: what a volume that comes back is measured by.
    this.peers.announce();
    this.peers.stop();
    await this.inFlight.idle();
  }

  /** Why this node serves no reads and coordinates nothing; undefined when it does (PROTOCOL 20, 34). */
  private get refusal(): string | undefined {
    const { map, nodeId, serving } = this;
    if (map === undefined) return `${nodeId} has no cluster map yet`;
    if (memberOf(map, nodeId) === undefined) return `the map of epoch ${map.epoch} does not list ${nodeId}`;
    if (serving.readable) return undefined;
    return this.rebuild.reason ?? `${nodeId} has no data yet`;
  }

  private view(): ReplicaView {
    const refusal = (): string | undefined => this.refusal;
    return {
      get refusal() {
        return refusal();
      },
      othersOf: (partition) => {
        const { map, nodeId } = this;
        if (map === undefined) return [];
        return replicasOf(map, partition).flatMap((member) =>
          member.nodeId === nodeId ? [] : member.nodeId,
        );
      },
      isWritable: (nodeId) => this.peers.session(nodeId)?.state.accepting === true,
      isReadable: (nodeId) => this.peers.session(nodeId)?.state.state === 'readable',
    };
  }

  private others(): readonly string[] {
    const members = this.map?.members ?? [];
    return members.flatMap(({ nodeId }) => (nodeId === this.nodeId ? [] : nodeId));
  }

  private sourceCandidates(): readonly { peer: string; incarnation: number }[] {
    return this.others().flatMap((nodeId) => {
      const session = this.peers.session(nodeId);
      const intact = session?.state.state === 'readable' || session?.state.state === 'catching-up';
      // A merge must not begin before the stream that brings what is written during it.
      return session?.mutual === true && intact ? [{ peer: nodeId, incarnation: session.incarnation }] : [];
    });
  }

  private pull(
    peer: string,
    after: PullRecordsRequest['after'],
    signal: AbortSignal,
  ): AsyncIterable<RecordsChunk> {
    const address = this.peers.addressOf(peer);
    if (address === undefined) throw new KvError('UNAVAILABLE', `the address of ${peer} is not known`);
    const { identity, map } = this;
    const header = {
      clusterId: identity.clusterId,
      epoch: map?.epoch ?? 0,
      sender: identity.nodeId,
      senderIncarnation: identity.incarnation,
      recipient: peer,
    };
    return this.options.transport.pullRecords(address, { header, after, partitions: [] }, signal);
  }

  /** Peers may merge from any intact store; backups and snapshots take what clients may read. */
  private admitStream({ header }: PullRecordsRequest): void {
    const { identity, serving } = this;
    if (header === undefined) {
      if (this.refusal !== undefined) throw new KvError('UNAVAILABLE', this.refusal);
      return;
    }
    if (header.recipient !== identity.nodeId) {
      throw new KvError('FAILED_PRECONDITION', `this is ${identity.nodeId}, not ${header.recipient}`);
    }
    if (header.clusterId !== identity.clusterId) {
      throw new KvError('FAILED_PRECONDITION', `this node belongs to cluster ${identity.clusterId}`);
    }
    if (!serving.intact) throw new KvError('UNAVAILABLE', this.refusal ?? 'this store is not intact');
  }

  /** What a map means for this node's own standing. */
  private async settleInto(map: ClusterMap): Promise<void> {
    const { identity, serving, metrics } = this;
    metrics.gauge('map_epoch', map.epoch);
    const retired = map.retired.some(
      ({ nodeId, incarnation }) => nodeId === identity.nodeId && incarnation === identity.incarnation,
    );
    if (retired) {
      this.fail(
        'retired',
        `the cluster map retired incarnation ${identity.incarnation} of ${identity.nodeId}`,
      );
      return;
    }
    // Only the first map of a cluster finds every volume blank; later a blank one has lost its data (OPERATOR 5).
    if (map.initialised && serving.state === 'blank' && memberOf(map, identity.nodeId) !== undefined) {
      await this.mark('rebuilding');
    }
  }

  /**
   * A blank volume begins as readable only when the map's writer itself brings a map that is not initialised: from a peer
   * such a map may be left over from the first start, and this volume may have lost what was acknowledged since.
   */
  private async found(map: ClusterMap): Promise<void> {
    const founding = !map.initialised && memberOf(map, this.nodeId) !== undefined;
    if (founding && this.serving.state === 'blank') await this.serving.set('readable');
  }

  private onPeersChanged(): void {
    this.rebuild.wake();
    this.metrics.gauge('in_sync', isInSync(this.map, this.nodeId, this.peers) ? 1 : 0);
  }

  private onServingChanged(): void {
    this.options.logger.info({ state: this.serving.state }, 'serving state changed');
    this.metrics.gauge('readable', this.serving.readable ? 1 : 0);
    this.peers.announce();
  }

  private onFellOff(peer: string): void {
    this.rebuild.require(peer);
    if (this.serving.state !== 'readable') return;
    this.options.logger.warn({ peer }, 'the log of a peer no longer reaches back to the cursor here');
    void this.mark('catching-up');
  }

  /** Takes a new incarnation, under which nothing is acknowledged yet, and merges before it serves again. */
  private onLoss(past: Exclude<OwnPast, 'intact' | 'tail-lost'>, peer: string): Promise<void> {
    this.losing ??= this.renew(past, peer).finally(() => {
      this.losing = undefined;
    });
    return this.losing;
  }

  private async renew(past: 'rolled-back' | 'unclear', peer: string): Promise<void> {
    const { logger } = this.options;
    logger.error(
      { peer, past },
      'this volume has lost what it acknowledged; it goes on as a new incarnation',
    );
    // Not intact as well: a store that is already rebuilding does not become better by losing more.
    const state =
      past === 'rolled-back' || this.serving.state === 'rebuilding' ? 'rebuilding' : 'catching-up';
    await this.mark(state);
    try {
      await this.identity.renew();
      this.memories.forgetAcknowledgements();
    } catch (error) {
      logger.error({ error: messageOf(error) }, 'the new incarnation could not be written');
      return;
    }
    this.coordinator.abandon('this node lost data and goes on as a new incarnation');
    this.peers.reset('a new incarnation');
    this.rebuild.restart('a new incarnation');
    await this.mark(state);
  }

  private async mark(state: Parameters<ServingMark['set']>[0]): Promise<void> {
    try {
      await this.serving.set(state);
    } catch (error) {
      this.options.logger.error({ error: messageOf(error) }, 'the serving state could not be written');
    }
  }

  private fail(kind: FatalKind, message: string, cause?: unknown): void {
    this.inFlight.close(message);
    this.options.logger.error(
      { kind, error: cause === undefined ? undefined : messageOf(cause) },
      'this node must stop',
    );
    this.rejectFatal(new FatalError(kind, message, cause));
  }
}
