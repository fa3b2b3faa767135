import { abortReason } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import type { PullRecordsRequest, RecordsChunk } from '../../proto/gen/peer.ts';
import { FatalError, type FatalKind } from '../cluster/fatal-error.ts';
import { VolumeIdentity } from '../cluster/identity.ts';
import { MapHolder } from '../cluster/map-holder.ts';
import { missingPartitions, nodeState } from '../cluster/node-state.ts';
import type { OwnPast } from '../cluster/own-past.ts';
import { PeerMemories } from '../cluster/peer-memory.ts';
import { Standing } from '../cluster/standing.ts';
import { ClusterPages } from './cluster-pages.ts';
import { Coordinator } from './coordinator.ts';
import type { KeyValueEngine, ProposeResult, Replica } from './engine.ts';
import { Forwarded } from './forwarded.ts';
import { Forwarder } from './forwarder.ts';
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
import { rebuildSources } from './quorum.ts';
import { QuorumReader } from './quorum-reader.ts';
import { Reads } from './reads.ts';
import { Rebuild } from './rebuild.ts';
import { streamRecords } from './record-stream.ts';
import { RequestHandler } from './request-handler.ts';
import { Residue } from './residue.ts';
import { SAFETY_RULES } from './safety-rules.ts';
import { Scans } from './scan.ts';
import { DEFAULT_REPLICATION_SETTINGS, type ReplicationSettings } from './settings.ts';
import { isInSync, statusOf } from './status.ts';
import { createTopology, standingOutside, type Topology } from './topology.ts';
import type { PeerStream } from './transport.ts';

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
  private readonly inFlight: InFlight;
  private readonly coordinator: Coordinator;
  private readonly duties: MapDuties;
  private readonly residue: Residue;
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
    const rules = options.rules ?? SAFETY_RULES;
    const fatal = Promise.withResolvers<never>();
    fatal.promise.catch(() => undefined);
    this.fatal = fatal.promise;
    this.rejectFatal = fatal.reject;

    this.standing = new Standing(store, identity);
    this.maps = new MapHolder({
      ...options,
      identity,
      onConflict: () => metrics.count('map_conflicts'),
      prepare: (map) => this.duties.prepare(map),
    });
    this.memories = new PeerMemories(store, () => identity.incarnation);
    this.ownLog = new OwnLog(store);
    this.inFlight = new InFlight(settings.maxInFlightBytes, metrics);
    const hybridClock = new HybridClock({ clock, store, writer: () => identity.incarnation, ...settings });
    const pending = new PendingWrites();
    const { ownLog, standing, memories, inFlight } = this;
    this.topology = createTopology({
      nodeId: identity.nodeId,
      partitions: store.partitions,
      standing,
      map: () => this.maps.current,
      peer: (nodeId) => this.peers.session(nodeId)?.state,
    });
    const { topology } = this;
    this.residue = new Residue({ store, topology, logger, acknowledged: () => this.acknowledgedByAll() });
    this.duties = new MapDuties({
      store,
      identity,
      standing,
      residue: this.residue,
      map: () => this.maps.current,
      logger,
      onRetired: (message) => this.fail('retired', message),
    });
    this.coordinator = new Coordinator({
      store,
      ownLog,
      hybridClock,
      pending,
      topology,
      writeRefusal: () => undefined,
      inFlight,
      clock,
      scheduler,
      metrics,
      rules,
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
        scheduler,
        metrics,
        ...settings,
        horizonMs: () => 0,
        mayApply: () => true,
      }),
      remote,
    });
    const pages = new ClusterPages({ store, topology, clock, scheduler, metrics, remote });
    const listings = new Listings({ pages, clock });
    const scans = new Scans({ pages, clock, admit: (bytes, read) => inFlight.run(bytes, read) });
    const forwarder = new Forwarder({ topology, clock, scheduler, metrics, remote });
    const local: Pick<KeyValueEngine, 'put' | 'delete' | 'get'> = {
      put: (operation) => this.coordinator.put(operation),
      delete: (operation) => this.coordinator.delete(operation),
      get: (operation) => inFlight.run(operation.key.length, () => reads.get(operation)),
    };
    const isLocal = ({ key }: { readonly key: Buffer }): boolean =>
      topology.serves(topology.partitionOf(key)) || inFlight.closed;
    this.engine = {
      put: (operation) =>
        isLocal(operation)
          ? local.put(operation)
          : inFlight.run(operation.key.length + operation.value.length, () => forwarder.put(operation)),
      delete: (operation) =>
        isLocal(operation)
          ? local.delete(operation)
          : inFlight.run(operation.key.length, () => forwarder.delete(operation)),
      get: (operation) =>
        isLocal(operation)
          ? local.get(operation)
          : inFlight.run(operation.key.length, () => forwarder.get(operation)),
      listKeys: (operation) => inFlight.run(operation.maxBytes, () => listings.listKeys(operation)),
      scan: (operation) => scans.scan(operation),
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
      floor: new LogFloor(store),
      collected: () => undefined,
      onRequest: () => undefined,
      horizonMs: () => 0,
      horizonReport: () => ({ lowWaterMs: 0, label: Buffer.alloc(0), settled: Buffer.alloc(0) }),
      onBeat: () => this.residue.wake(),
      requests: new RequestHandler({
        store,
        ownLog,
        clock: hybridClock,
        topology,
        horizonMs: () => 0,
        mayApply: () => true,
        forwarded: new Forwarded({ topology, local, clock }),
        digests: () => Promise.reject(new KvError('UNIMPLEMENTED', 'not yet')),
        leaves: () => Promise.reject(new KvError('UNIMPLEMENTED', 'not yet')),
        lookup: ({ id }) => ({
          id,
          found: false,
          version: undefined,
          record: Buffer.alloc(0),
          horizonMs: 0,
          unknown: true,
        }),
      }),
      draining: () => inFlight.closed,
      onChange: () => this.onPeersChanged(),
      onLoss: (past, peer) => void this.onLoss(past, peer),
      onFenced: (kind, message) => this.fail(kind, message),
    });
    this.rebuild = new Rebuild({
      store,
      standing,
      topology,
      hybridClock,
      clock,
      scheduler,
      metrics,
      logger,
      batchBytes: settings.chunkBytes,
      needed: () => rebuildSources(topology.others.length + 1),
      candidates: () => this.sourceCandidates(),
      open: (peer, after, signal) => this.pull(peer, after, signal),
      repair: async (peer, records) => {
        const session = this.peers.session(peer);
        if (session === undefined) throw new KvError('UNAVAILABLE', `${peer} is not connected`);
        await session.remote.repair(records.map((record) => ({ ...record, horizonMs: 0 })));
      },
      promote: async (peer, incarnation, head) => {
        const session = this.peers.session(peer);
        if (session?.incarnation !== incarnation) return false;
        await session.promote(head);
        return true;
      },
    });
    standing.onChange(() => this.onStandingChanged());
    this.maps.onAdopted((map) => {
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
    const { identity, standing, topology, peers, map } = this;
    return statusOf({
      namespace,
      name,
      store,
      identity,
      standing,
      topology,
      peers,
      map,
      draining: this.inFlight.closed,
      wallMs: clock.wallMs(),
      reports: {
        settledEpoch: 0,
        residualPartitions: this.residue.size,
        horizonMs: 0,
        collectionFrozenReason: '',
        equalPartitions: 0,
        writeRefusal: '',
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
        horizonMs: () => 0,
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

  /** Why this node is not ready; undefined when it serves all that the map reads from it (PROTOCOL 34). */
  private get refusal(): string | undefined {
    const { map, nodeId, standing } = this;
    const outside = standingOutside(map, nodeId);
    if (outside !== undefined || map === undefined) return outside;
    if (!standing.begun) return `${nodeId} has no data yet`;
    const missing = missingPartitions(map, nodeId, standing).length;
    if (missing === 0) return undefined;
    return this.rebuild.reason ?? `${missing} partitions of ${nodeId} are not readable yet`;
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

  private sourceCandidates(): readonly { peer: string; incarnation: number }[] {
    return this.topology.others.flatMap((nodeId) => {
      const session = this.peers.session(nodeId);
      // A merge must not begin before the stream that brings what is written during it.
      return session?.mutual === true && session.state.state === 'readable'
        ? [{ peer: nodeId, incarnation: session.incarnation }]
        : [];
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

  /** Backups and snapshots take what clients may read; peers judge for themselves what they are given. */
  private admitStream({ header, partitions }: PullRecordsRequest): void {
    const { identity } = this;
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
    // Left out without a word, they would pass for empty.
    const foreign = partitions.find((partition) => !this.topology.holds(partition));
    if (foreign !== undefined) {
      throw new KvError('UNAVAILABLE', `${identity.nodeId} does not keep partition ${foreign}`);
    }
  }

  private async settleInto(map: ClusterMap): Promise<void> {
    this.metrics.gauge('map_epoch', map.epoch);
    await this.duties.settleInto(map);
    this.rebuild.wake();
  }

  private onPeersChanged(): void {
    for (const session of this.peers.sessions) if (session.hasGap) this.rebuild.require(session.peer);
    this.rebuild.wake();
    this.metrics.gauge('in_sync', isInSync(this.map, this.nodeId, this.peers) ? 1 : 0);
  }

  private onStandingChanged(): void {
    this.options.logger.info(
      { state: nodeState(this.map, this.nodeId, this.standing), readable: this.standing.readable.size },
      'standing changed',
    );
    this.metrics.gauge('readable', this.refusal === undefined ? 1 : 0);
    this.peers.announce();
    this.rebuild.wake();
  }

  /** Takes a new incarnation, under which nothing is acknowledged yet. */
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
      'this volume has lost what it acknowledged or sent; it goes on as a new incarnation',
    );
    try {
      // What it sent and lost is gone, but everything it acknowledged is here: it goes on serving.
      if (past === 'rolled-back') await this.standing.loseAll();
      await this.identity.renew();
      await this.standing.renew();
      this.memories.forgetAcknowledgements();
    } catch (error) {
      logger.error({ error: messageOf(error) }, 'the new incarnation could not be written');
      return;
    }
    this.coordinator.abandon('this node lost data and goes on as a new incarnation');
    this.peers.reset('a new incarnation');
    this.rebuild.restart('a new incarnation');
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
