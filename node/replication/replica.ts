import { PooledTimers } from '../../common/pooled-timers.ts';
import { abortReason } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { sharedPartitions } from '../../model/replica-sets.ts';
import type {
  PeerHeader,
  PullRecordsRequest,
  RecordsChunk,
  WatchChunk,
  WatchPartitionsRequest,
} from '../../proto/gen/peer.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import { FatalError, type FatalKind } from '../cluster/fatal-error.ts';
import { VolumeIdentity } from '../cluster/identity.ts';
import { MapHolder } from '../cluster/map-holder.ts';
import { missingPartitions, nodeState } from '../cluster/node-state.ts';
import type { LostPast } from '../cluster/own-past.ts';
import { PartitionSet } from '../cluster/partition-set.ts';
import { PeerMemories } from '../cluster/peer-memory.ts';
import { Standing } from '../cluster/standing.ts';
import type { Mutation, StoredRecord } from '../storage/store.ts';
import { AntiEntropy } from './anti-entropy/anti-entropy.ts';
import type { ComparablePeer } from './anti-entropy/comparable-peer.ts';
import { DigestAnswers } from './anti-entropy/digest-answers.ts';
import { Scrub } from './anti-entropy/scrub.ts';
import type { Surroundings } from './anti-entropy/surroundings.ts';
import { ClusterPages } from './cluster-pages.ts';
import { ClockSkew } from './clock-skew.ts';
import { Collection } from './collection.ts';
import { comparableSession } from './comparable-session.ts';
import { Coordinator } from './coordinator.ts';
import type { KeyValueEngine, ProposeResult, Replica } from './engine.ts';
import { Forwarded } from './forwarded.ts';
import { Forwarder } from './forwarder.ts';
import { Halts } from './halts.ts';
import { HybridClock } from './hybrid-clock.ts';
import { InFlight } from './in-flight.ts';
import { Listings } from './listings.ts';
import { LogFloor } from './log-floor.ts';
import { MapDuties } from './map-duties.ts';
import { NO_METRICS, type ReplicationMetrics } from './metrics.ts';
import type { ReplicaOptions } from './options.ts';
import { OwnLog } from './own-log.ts';
import { Peers } from './peers.ts';
import { PendingWrites } from './pending-writes.ts';
import { Probation } from './probation.ts';
import { QuorumReader } from './quorum-reader.ts';
import { Reads } from './reads.ts';
import { streamRecords } from './record-stream.ts';
import { Repairs } from './repairs.ts';
import { RequestHandler } from './request-handler.ts';
import { answerLookup, type LookupSources } from './requests/lookup.ts';
import { recallRequests } from './requests/recall.ts';
import { RequestIndex } from './requests/request-index.ts';
import { Newcomers } from './requests/newcomers.ts';
import { Retries } from './requests/retries.ts';
import { Residue } from './residue.ts';
import { SAFETY_RULES } from './safety-rules.ts';
import { Scans } from './scan.ts';
import { DEFAULT_REPLICATION_SETTINGS, type ReplicationSettings } from './settings.ts';
import { isInSync, statusOf } from './status.ts';
import { createTopology, standingOutside, type Topology } from './topology.ts';
import type { PeerAddress, PeerStream } from './transport.ts';
import { Watches } from './watch/watches.ts';

/**
 * Starts the replication of a node over an opened store: takes its identity from the volume, raises the boot counter
 * durably, and looks for its peers. It serves as soon as its persisted marks and map allow.
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
  private readonly standing: Standing;
  private readonly maps: MapHolder;
  private readonly memories: PeerMemories;
  private readonly topology: Topology;
  private readonly ownLog: OwnLog;
  private readonly floor: LogFloor;
  private readonly inFlight: InFlight;
  private readonly coordinator: Coordinator;
  private readonly duties: MapDuties;
  private readonly residue: Residue;
  private readonly peers: Peers;
  private readonly probation: Probation;
  private readonly halts: Halts;
  private readonly collection: Collection;
  private readonly antiEntropy: AntiEntropy;
  private readonly requests: RequestIndex;
  private readonly retries: Retries;
  private readonly clockSkew: ClockSkew;
  private readonly scrub: Scrub;
  private readonly watches: Watches;
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
    const rules = options.rules ?? SAFETY_RULES;
    const fatal = Promise.withResolvers<never>();
    fatal.promise.catch(() => undefined);
    this.fatal = fatal.promise;
    this.rejectFatal = fatal.reject;

    this.standing = new Standing(store);
    this.maps = new MapHolder({
      ...options,
      identity,
      onConflict: () => metrics.count('map_conflicts'),
      prepare: (map) => this.duties.prepare(map),
    });
    this.memories = new PeerMemories(store, () => identity.incarnation);
    this.ownLog = new OwnLog(store, (sequence, mutation) => this.collection.onOwnEntry(sequence, mutation));
    this.floor = new LogFloor(store);
    this.inFlight = new InFlight(settings.maxInFlightBytes, metrics);
    const hybridClock = new HybridClock({ clock, store, writer: () => identity.incarnation, ...settings });
    const pending = new PendingWrites();
    const deadlines = new PooledTimers(clock, scheduler);
    const { ownLog, standing, memories, inFlight } = this;
    this.probation = new Probation({
      judges: () => this.sharers('up'),
      limitMs: settings.failureDetectionMs,
      scheduler,
      onOver: () => this.onStandingChanged(),
    });
    const nothing = new PartitionSet(store.partitions);
    /** What this node stands by now. */
    const serving = (partition: number): boolean => this.probation.over && standing.isReadable(partition);
    this.topology = createTopology({
      nodeId: identity.nodeId,
      partitions: store.partitions,
      serving,
      map: () => this.maps.current,
      peer: (nodeId) => this.peers.session(nodeId)?.state,
    });
    const { topology } = this;
    this.residue = new Residue({ store, topology, logger, acknowledged: () => this.acknowledgedByAll() });
    const newcomers = new Newcomers({
      store,
      clock,
      windowMs: settings.requests.windowMs,
      skewBoundMs: settings.skewBoundMs,
    });
    this.duties = new MapDuties({
      store,
      identity,
      standing,
      residue: this.residue,
      newcomers,
      map: () => this.maps.current,
      logger,
      onGained: (partitions) => this.antiEntropy.forget(partitions),
      onRetired: (message) => this.fail('retired', message),
    });
    this.requests = new RequestIndex(clock, settings.requests);
    this.halts = new Halts({ clock, scheduler, haltMs: settings.haltMs });
    this.clockSkew = new ClockSkew({
      clock,
      boundMs: settings.skewBoundMs,
      freshMs: 2 * settings.failureDetectionMs,
    });
    this.coordinator = new Coordinator({
      store,
      ownLog,
      hybridClock,
      pending,
      topology,
      mintFloor: (partition) => this.collection.horizons.mintFloor(partition),
      writeRefusal: (kind) => this.writeRefusal(kind),
      retries: {
        concerns: (requestId, key): requestId is RequestId => this.retries.concerns(requestId, key),
        resolve: (retry) => this.retries.resolve(retry),
      },
      halts: this.halts,
      requests: this.requests,
      inFlight,
      clock,
      scheduler: deadlines,
      metrics,
      rules,
    });
    this.collection = new Collection({
      ...options,
      identity,
      standing,
      topology,
      hybridClock,
      metrics,
      rules,
      settings: settings.collection,
      ceilingStepMs: settings.ceilingStepMs,
      heard: (nodeId) => {
        const session = this.peers.session(nodeId);
        return session?.mutual === true ? session.state : undefined;
      },
      announced: (nodeId) => this.peers.session(nodeId)?.link.peerEpoch,
      acknowledged: () => this.acknowledgedBySharers(),
      settled: () => this.antiEntropy.settlement.settled(),
      clockIsSound: () => this.clockSkew.isSound,
      latestWallMs: () => this.clockSkew.latestWallMs,
    });
    const { collection } = this;
    const horizonMs = (partition: number): number => collection.horizons.effectiveMs(partition);
    const mayApply = (key: Buffer, mutation: Mutation, senderHorizonMs: number): boolean =>
      collection.admits(key, mutation, senderHorizonMs);
    const onShown = (record: StoredRecord): RequestId | undefined => this.coordinator.noteShown(record);
    const repairs = new Repairs({
      store,
      index: this.requests,
      isReadable: (key) => standing.isReadable(topology.partitionOf(key)),
      mayApply,
    });
    const surroundings: Omit<Surroundings, 'onDamaged'> = {
      store,
      standing: {
        isReadable: (partition) => standing.isReadable(partition),
        markReadable: (partitions) => {
          const filled = [...partitions];
          this.requests.learnAnew(filled);
          return standing.markReadable(filled, clock.wallMs());
        },
      },
      horizons: {
        of: horizonMs,
        follow: (partition, ms) => collection.collector.raise(partition, ms),
        inherit: async (horizons) => {
          await Promise.all(horizons.map(([partition, ms]) => collection.collector.raise(partition, ms)));
        },
        admits: (key, _partition, record, senderHorizonMs) =>
          collection.admits(key, { record }, senderHorizonMs),
      },
      cluster: {
        nodeId: identity.nodeId,
        get map() {
          return topology.map;
        },
        barrierEpoch: () => this.barrierEpoch(),
        label: () => collection.labelText(),
      },
      onReceived: (partition, record) => {
        hybridClock.observe(record.version);
        collection.collector.note(partition, record);
      },
      onApplied: (partition, { version }) => {
        if (standing.isReadable(partition)) this.requests.noteVersion(version);
      },
      clock,
      scheduler,
      settings: settings.antiEntropy,
      metrics,
      logger,
      rules,
    };
    const comparablePeers = (): readonly ComparablePeer[] =>
      this.peers.sessions.map((session) =>
        comparableSession(session, {
          head: () => store.head,
          pull: (peer, partitions, after, signal) => this.pull(peer, partitions, after, signal),
        }),
      );
    const onDamaged = (key: Buffer): void => this.scrub.report(key);
    this.antiEntropy = new AntiEntropy({
      ...surroundings,
      onDamaged,
      peers: () => (this.awaitsFounding ? [] : comparablePeers()),
      random: options.random,
    });
    this.scrub = new Scrub({
      ...surroundings,
      peers: comparablePeers,
      random: options.random,
      onTooManyDamaged: (count) =>
        this.fail('store-failed', `${count} records fail their checksum: the store is not to be trusted`),
    });
    const digestAnswers = new DigestAnswers({
      ...surroundings,
      onDamaged,
      durableHead: () => ownLog.durableHead,
    });
    const lookupSources: LookupSources = {
      store,
      index: this.requests,
      topology,
      isReadable: (partition) => standing.isReadable(partition),
      horizonMs,
    };
    this.retries = new Retries({
      ...lookupSources,
      topology,
      repairs,
      replica: (nodeId) => this.peers.session(nodeId)?.remote,
      newcomers,
      memberOf: (incarnation) => collection.memberOf(incarnation),
      clock,
      scheduler,
      metrics,
    });
    const remote = (nodeId: string) => this.peers.session(nodeId)?.remote;
    const reads = new Reads({
      store,
      topology,
      clock,
      metrics,
      quorum: new QuorumReader({
        nodeId: identity.nodeId,
        store,
        clock,
        scheduler: deadlines,
        metrics,
        ...settings,
        horizonMs: (key) => horizonMs(topology.partitionOf(key)),
        repairs,
        onShown,
      }),
      remote,
    });
    const pages = new ClusterPages({ store, topology, clock, scheduler, metrics, remote });
    const listings = new Listings({ pages, clock });
    const scans = new Scans({ pages, clock, admit: (bytes, read) => inFlight.run(bytes, read) });
    this.watches = new Watches({
      ...options,
      identity,
      standing,
      topology,
      lowWaterMs: (partition) => collection.collector.lowWaterMs(partition),
      horizonMs,
      headerFor: (peer) => this.headerFor(peer),
      call: (peer, request, signal) =>
        options.transport.watchPartitions(this.addressOf(peer), request, signal),
      settings: settings.watch,
      metrics,
    });
    const forwarder = new Forwarder({ topology, clock, scheduler: deadlines, metrics, remote });
    const local: Pick<KeyValueEngine, 'put' | 'delete' | 'get'> = {
      put: (operation) => this.coordinator.put(operation),
      delete: (operation) => this.coordinator.delete(operation),
      get: async (operation) => {
        const found = inFlight.closed ? undefined : reads.atOnce(operation);
        if (found !== undefined) return found.value;
        return inFlight.run(operation.key.length, () => reads.get(operation));
      },
    };
    const isLocal = ({ key }: { readonly key: Buffer }): boolean =>
      topology.serves(topology.partitionOf(key)) || inFlight.closed;
    // With a clock that is off it coordinates nothing, but others may.
    const coordinates = (operation: { readonly key: Buffer }): boolean =>
      isLocal(operation) && this.clockSkew.refuses === undefined;
    this.engine = {
      put: (operation) =>
        coordinates(operation)
          ? local.put(operation)
          : inFlight.run(operation.key.length + operation.value.length, () => forwarder.put(operation)),
      delete: (operation) =>
        coordinates(operation)
          ? local.delete(operation)
          : inFlight.run(operation.key.length, () => forwarder.delete(operation)),
      get: (operation) =>
        isLocal(operation)
          ? local.get(operation)
          : inFlight.run(operation.key.length, () => forwarder.get(operation)),
      listKeys: (operation) => inFlight.run(operation.maxBytes, () => listings.listKeys(operation)),
      scan: (operation) => scans.scan(operation),
      watch: (operation) => this.watches.watch(operation),
    };
    this.peers = new Peers({
      ...options,
      identity,
      standing,
      topology,
      memories,
      ownLog,
      hybridClock,
      pending,
      settings,
      metrics,
      rules,
      maps: this.maps,
      floor: this.floor,
      collected: (key, record) => collection.supersederOf(key, record),
      isOutlived: (key) => collection.isOutlived(key),
      onApplied: (key, record) => collection.note(key, record),
      writes: this.requests,
      onClock: (peer, wallMs) => this.clockSkew.heard(peer, wallMs),
      horizonMs,
      served: () => (this.probation.over ? standing.readable : nothing),
      horizonReport: () => collection.report(),
      onBeat: () => {
        this.residue.look();
        this.closeEmptyGaps();
        this.clockSkew.evaluate(metrics);
        collection.beat();
        // Epochs that peers announce, and labels, change with heartbeats.
        this.antiEntropy.wake();
      },
      onDisplaced: () => this.probation.postpone(),
      onConnected: (session) => {
        collection.onConnected(session.peer, session);
        this.probation.judged(session.peer);
      },
      requests: new RequestHandler({
        store,
        ownLog,
        clock: hybridClock,
        topology,
        horizonMs,
        mayApply,
        repairs,
        index: this.requests,
        onShown,
        forwarded: new Forwarded({ topology, local, clock, refusesWrites: () => this.clockSkew.refuses }),
        digests: async (request) => ({ id: request.id, ...(await digestAnswers.digests(request)) }),
        leaves: async (request) => ({ id: request.id, ...(await digestAnswers.leaves(request)) }),
        lookup: (request) => answerLookup(lookupSources, request),
      }),
      draining: () => inFlight.closed,
      onChange: () => this.onPeersChanged(),
      onLoss: (past, peer) => void this.onLoss(past, peer),
      onFenced: (kind, message) => this.fail(kind, message),
    });
    standing.onChange(() => this.onStandingChanged());
    this.maps.onAdopted((map) => {
      // The store may be closed already.
      if (this.stopped) return;
      this.watches.update();
      this.coordinator.onMapAdopted();
      void this.settleInto(map);
    });
  }

  async start(): Promise<void> {
    const { store, logger } = this.options;
    store.failed.catch((error: unknown) =>
      this.fail('store-failed', `the store failed: ${messageOf(error)}`, error),
    );
    if (this.maps.current !== undefined) await this.settleInto(this.maps.current);
    this.metrics.gauge('readable', this.notReadyReason === undefined ? 1 : 0);
    logger.info(
      {
        node: this.nodeId,
        incarnation: this.identity.incarnation,
        boot: this.identity.bootCounter,
        state: nodeState(this.map, this.nodeId, this.standing),
        epoch: this.map?.epoch,
      },
      'replica started',
    );
    this.watches.update();
    this.peers.start();
    this.probation.begin();
    this.halts.start();
    this.antiEntropy.start();
    this.scrub.start();
    this.requests.learnAnew(this.topology.held, this.options.clock.wallMs() - this.standing.filledAtMs);
    recallRequests({ ...this.options, index: this.requests, signal: this.streams.signal }).catch(
      (error: unknown) => logger.warn({ error: messageOf(error) }, 'recent requests could not be read again'),
    );
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
    const { identity, standing, topology, peers, map } = this;
    return statusOf({
      namespace,
      name,
      store,
      identity,
      standing,
      topology,
      peers,
      memories: this.memories,
      map,
      draining: this.inFlight.closed,
      wallMs: clock.wallMs(),
      reports: {
        settledEpoch: this.antiEntropy.settlement.settledEpoch(),
        residualPartitions: this.residue.size,
        horizonMs: this.collection.collector.lowestMs,
        collectionFrozenReason: this.collection.collector.frozenReason,
        equalPartitions: this.antiEntropy.status().equalPartitions,
        writeRefusal: this.writeRefusal('put')?.message ?? '',
      },
    });
  }

  async proposeMap(map: ClusterMap): Promise<ProposeResult> {
    const adoption = await this.maps.adopt(map);
    const accepted = adoption.kind === 'adopted' || adoption.kind === 'same';
    if (accepted) await this.duties.found(map);
    return {
      accepted,
      epoch: this.map?.epoch ?? 0,
      hash: this.map?.hash ?? '',
      message: 'message' in adoption ? adoption.message : '',
    };
  }

  async forceActivate(dryRun: boolean): Promise<readonly number[]> {
    const { map, nodeId, standing, topology } = this;
    const outside = standingOutside(map, nodeId);
    if (outside !== undefined) throw new KvError('FAILED_PRECONDITION', outside);
    const partitions = topology.held.filter((partition) => !standing.isReadable(partition));
    if (!dryRun && partitions.length > 0) {
      this.options.logger.error({ partitions: partitions.length }, 'partitions are made readable by force');
      await standing.markReadable(partitions);
    }
    return partitions;
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
        gives: (partition) =>
          request.header === undefined ? this.topology.serves(partition) : this.topology.holds(partition),
        // Peers settle by comparison what is left out; a backup must be whole.
        ...(request.header === undefined ? {} : { onDamaged: (key: Buffer) => this.scrub.report(key) }),
        horizonMs: (partition) => this.collection.horizons.effectiveMs(partition),
      },
      request,
      ended,
    );
    if (ended.aborted) throw abortReason(ended);
  }

  async *watchPartitions(request: WatchPartitionsRequest, signal: AbortSignal): AsyncIterable<WatchChunk> {
    this.admitPeer(request.header);
    yield* this.watches.serve(request, signal);
  }

  drain(): void {
    this.inFlight.close('this node is draining');
    this.watches.close('this node is draining');
    this.peers.announce();
  }

  idle(): Promise<void> {
    return this.inFlight.idle();
  }

  async stop(): Promise<void> {
    if (this.stopped) return;
    this.stopped = true;
    this.inFlight.close('this node stops');
    this.watches.close('this node stops');
    const comparisons = Promise.all([this.antiEntropy.stop(), this.scrub.stop()]);
    this.collection.stop();
    this.probation.stop();
    this.halts.stop();
    this.streams.abort(new KvError('UNAVAILABLE', 'this node stops'));
    this.coordinator.abandon('this node stops');
    // The last word on how far this disk is: what a volume that comes back is measured by.
    this.peers.announce();
    this.peers.stop();
    await Promise.all([this.inFlight.idle(), comparisons]);
  }

  /** Why this node is not ready; undefined when it serves all that the map reads from it (PROTOCOL 34). */
  private get refusal(): string | undefined {
    const { map, nodeId, standing } = this;
    const outside = standingOutside(map, nodeId);
    if (outside !== undefined || map === undefined) return outside;
    if (!standing.begun) return `${nodeId} has no data yet`;
    const missing = missingPartitions(map, nodeId, standing).length;
    if (missing === 0) {
      return this.probation.over ? undefined : `${nodeId} waits for its peers to accept its volume`;
    }
    return this.antiEntropy.reason ?? `${missing} partitions of ${nodeId} are not readable yet`;
  }

  /**
   * A blank volume in a cluster that is only just being founded has nothing to be filled with: the map's writer makes all
   * of it readable at once. Filled in part, it would not be blank any more when the writer comes.
   */
  private get awaitsFounding(): boolean {
    return this.map?.initialised === false && !this.standing.begun;
  }

  private acknowledgedByAll(): number {
    const members = this.map?.members.filter(
      ({ nodeId, state }) => nodeId !== this.nodeId && state !== 'down',
    );
    return Math.min(
      this.options.store.head,
      ...(members ?? []).map(({ nodeId }) => this.memories.get(nodeId)?.acknowledged ?? 0),
    );
  }

  /** How far the own log is durable here and at every member that keeps a partition with this node. */
  private acknowledgedBySharers(): number {
    if (this.map === undefined) return 0;
    const sharers = this.sharers('with those down');
    return Math.min(this.ownLog.durableHead, ...sharers.map((other) => this.acknowledgedBy(other)));
  }

  /** Members that keep a partition with this node, with or without those that the map marks down. */
  private sharers(which: 'up' | 'with those down'): readonly string[] {
    const { map, nodeId } = this;
    if (map === undefined) return [];
    return map.members.flatMap((member) => {
      const other = member.nodeId;
      if (other === nodeId || (which === 'up' && member.state === 'down')) return [];
      return sharedPartitions(map, nodeId, other).length > 0 ? other : [];
    });
  }

  private acknowledgedBy(nodeId: string): number {
    const acknowledged = this.memories.get(nodeId)?.acknowledged ?? 0;
    const { fallenOffAcknowledgedNothing } = this.options.rules ?? SAFETY_RULES;
    return fallenOffAcknowledgedNothing ? acknowledged : Math.max(acknowledged, this.floor.sequence);
  }

  /** What a peer's log no longer has is of no concern to a node that shares no partition with it. */
  private closeEmptyGaps(): void {
    const { map, nodeId } = this;
    if (map === undefined) return;
    for (const session of this.peers.sessions) {
      if (!session.hasGap || !session.mutual || sharedPartitions(map, nodeId, session.peer).length > 0)
        continue;
      session
        .promote(session.state.head)
        .catch((error: unknown) =>
          this.options.logger.warn(
            { peer: session.peer, error: messageOf(error) },
            'a cursor could not be moved',
          ),
        );
    }
  }

  /** Why this node coordinates no write although it serves reads. */
  private writeRefusal(kind: 'put' | 'delete'): KvError | undefined {
    const { refuses } = this.clockSkew;
    if (refuses !== undefined) {
      return new KvError('UNAVAILABLE', `${refuses}; nothing was applied, send it to another node`);
    }
    // Deletes and collection make room again, out of what is kept in reserve.
    if (kind === 'put' && this.options.store.quotaExceeded) {
      return new KvError(
        'RESOURCE_EXHAUSTED',
        'the volume is as full as it may be; nothing was applied: delete keys, or give the nodes larger volumes',
      );
    }
    return undefined;
  }

  /** Epoch that every member that the map does not mark down has announced; 0 when there is none. */
  private barrierEpoch(): number {
    const { map, nodeId } = this;
    if (map === undefined) return 0;
    const awaited = map.members.filter((member) => member.nodeId !== nodeId && member.state !== 'down');
    return Math.min(
      map.epoch,
      ...awaited.map((member) => this.peers.session(member.nodeId)?.link.peerEpoch ?? 0),
    );
  }

  private pull(
    peer: string,
    partitions: readonly number[],
    after: PullRecordsRequest['after'],
    signal: AbortSignal,
  ): AsyncIterable<RecordsChunk> {
    const request = { header: this.headerFor(peer), after, partitions: [...partitions] };
    return this.options.transport.pullRecords(this.addressOf(peer), request, signal);
  }

  private addressOf(peer: string): PeerAddress {
    const address = this.peers.addressOf(peer);
    if (address === undefined) throw new KvError('UNAVAILABLE', `the address of ${peer} is not known`);
    return address;
  }

  private headerFor(peer: string): PeerHeader {
    const { identity, map } = this;
    return {
      clusterId: identity.clusterId,
      epoch: map?.epoch ?? 0,
      sender: identity.nodeId,
      senderIncarnation: identity.incarnation,
      recipient: peer,
    };
  }

  /** Backups and snapshots take what clients may read; peers judge for themselves what they are given. */
  private admitStream({ header, partitions }: PullRecordsRequest): void {
    const { identity } = this;
    if (header === undefined) {
      if (this.refusal !== undefined) throw new KvError('UNAVAILABLE', this.refusal);
      return;
    }
    this.admitPeer(header);
    // Left out without a word, they would pass for empty.
    const foreign = partitions.find((partition) => !this.topology.holds(partition));
    if (foreign !== undefined) {
      throw new KvError('UNAVAILABLE', `${identity.nodeId} does not keep partition ${foreign}`);
    }
  }

  /** @throws KvError FAILED_PRECONDITION when a call is not meant for this node of this cluster. */
  private admitPeer(header: PeerHeader | undefined): void {
    const { identity } = this;
    if (header?.recipient !== identity.nodeId) {
      throw new KvError(
        'FAILED_PRECONDITION',
        `this is ${identity.nodeId}, not ${header?.recipient ?? 'nobody'}`,
      );
    }
    if (header.clusterId !== identity.clusterId) {
      throw new KvError('FAILED_PRECONDITION', `this node belongs to cluster ${identity.clusterId}`);
    }
  }

  private async settleInto(map: ClusterMap): Promise<void> {
    this.metrics.gauge('map_epoch', map.epoch);
    await this.duties.settleInto(map);
    this.antiEntropy.wake();
  }

  private onPeersChanged(): void {
    this.antiEntropy.wake();
    this.metrics.gauge('in_sync', isInSync(this.map, this.nodeId, this.peers) ? 1 : 0);
  }

  private onStandingChanged(): void {
    // Before what has changed is written.
    this.watches.update();
    this.options.logger.info(
      { state: nodeState(this.map, this.nodeId, this.standing), readable: this.standing.readable.size },
      'standing changed',
    );
    this.metrics.gauge('readable', this.refusal === undefined ? 1 : 0);
    this.peers.announce();
    this.antiEntropy.wake();
  }

  /** Takes a new incarnation, under which nothing is acknowledged yet. */
  private onLoss(past: LostPast, peer: string): Promise<void> {
    this.losing ??= this.renew(past, peer).finally(() => {
      this.losing = undefined;
    });
    return this.losing;
  }

  private async renew(past: LostPast, peer: string): Promise<void> {
    const { logger } = this.options;
    logger.error(
      { peer, past },
      'this volume has lost what it acknowledged or sent; it goes on as a new incarnation',
    );
    try {
      // What it sent and lost is gone, but everything it acknowledged is here: it goes on serving. What is not here any more
      // must have stopped to count before another name could hide that.
      if (past === 'rolled-back') await this.loseAll();
      await this.identity.renew(() => {
        // Told under the new name, what the old one's peers had acknowledged would make them think that they lost it.
        this.memories.forgetAcknowledgements();
        this.collection.onRenewed();
        this.coordinator.abandon('this node lost data and goes on as a new incarnation');
        this.peers.reset('a new incarnation');
      });
    } catch (error) {
      logger.error({ error: messageOf(error) }, 'the new incarnation could not be written');
      return;
    }
    this.antiEntropy.wake();
  }

  private loseAll(): Promise<void> {
    const lost = this.standing.loseAll();
    this.antiEntropy.forget(this.topology.held);
    return lost;
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
