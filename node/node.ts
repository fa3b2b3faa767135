import { rename, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { sleep, type Clock, type Scheduler } from '../common/clock.ts';
import { messageOf } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';
import type { Random } from '../common/random.ts';
import { FatalError } from './cluster/fatal-error.ts';
import type { NodeConfig } from './config.ts';
import { StaticDiscovery } from './discovery.ts';
import { DnsDiscovery } from './dns-discovery.ts';
import { createNodeMetrics, type NodeMetrics } from './metrics.ts';
import { openData } from './open-data.ts';
import type { Replica } from './replication/engine.ts';
import { collectionSettings } from './replication/horizon/collector.ts';
import { createReplica } from './replication/replica.ts';
import { HttpServer } from './rpc/http-server.ts';
import { GrpcPeerTransport } from './rpc/peer-transport.ts';
import { maxPeerFrameBytes, Servers } from './rpc/servers.ts';
import { setAside } from './storage/set-aside.ts';
import type { Store } from './storage/store.ts';

/** What a node is built from. */
export interface NodeParts {
  readonly config: NodeConfig;
  /** Shared by all members and administrators. */
  readonly secret: Buffer;
  readonly softwareVersion: string;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly logger: Logger;
}

/** The ports that were bound. */
export interface BoundPorts {
  readonly clientPort: number;
  readonly peerPort: number;
  readonly httpPort: number;
}

/** Connections get this much longer than the operations on them, milliseconds. */
const CONNECTION_GRACE_MS = 1000;

/** One node: store, replication and servers, from start to stop. */
export class Node {
  private readonly parts: NodeParts;
  private readonly metrics: NodeMetrics;
  private readonly http: HttpServer;
  private store: Store | undefined;
  private replica: Replica | undefined;
  private servers: Servers | undefined;
  private draining = false;
  private failure: string | undefined;

  private constructor(parts: NodeParts) {
    this.parts = parts;
    this.metrics = createNodeMetrics();
    const { registry } = this.metrics;
    this.http = new HttpServer({
      metrics: { contentType: registry.contentType, metrics: () => registry.metrics() },
      unhealthyReason: () => this.failure,
      notReadyReason: () => this.notReadyReason,
      clock: parts.clock,
      scheduler: parts.scheduler,
    });
  }

  /**
   * Starts a node: probes are answered first, so that a long recovery is seen; clients and peers when the store is open.
   *
   * @throws KvError FAILED_PRECONDITION when a port or the data directory is in use, or the volume is another node's.
   * What was opened is closed again.
   */
  static async start(parts: NodeParts): Promise<{ node: Node; ports: BoundPorts }> {
    const node = new Node(parts);
    try {
      return { node, ports: await node.open() };
    } catch (error) {
      await node.close();
      throw error;
    }
  }

  /** Why clients should be sent elsewhere; undefined when ready (PROTOCOL 34). */
  get notReadyReason(): string | undefined {
    if (this.failure !== undefined) return this.failure;
    if (this.draining) return 'shutting down';
    if (this.servers === undefined) return 'starting: opening the store';
    return this.replica?.notReadyReason;
  }

  /**
   * Resolves with the reason when the node cannot go on: its store has failed, its volume is in use elsewhere, its
   * incarnation was retired. It serves nothing from then on; `close` it and exit.
   */
  async failed(): Promise<FatalError | Error> {
    const { promise, resolve } = Promise.withResolvers<Error>();
    const fail = (error: unknown): void =>
      resolve(error instanceof Error ? error : new Error(messageOf(error)));
    this.replica?.fatal.catch(fail);
    this.store?.failed.catch(fail);
    const error = await promise;
    this.failure = error.message;
    this.metrics.storeFailed();
    this.servers?.close();
    if (error instanceof FatalError && error.kind === 'retired') await this.discardRetired();
    return error;
  }

  /** Whether clients and peers are served: the store is open. */
  get isListening(): boolean {
    return this.servers !== undefined;
  }

  /** Why the process should be replaced by a new one; undefined when it is well. */
  get unhealthyReason(): string | undefined {
    return this.failure;
  }

  /** Members of this pod by the map that the node holds. */
  get podMembers(): readonly string[] {
    const members = this.replica?.map?.members ?? [];
    return members.filter(({ pod }) => pod === this.parts.config.pod).map(({ nodeId }) => nodeId);
  }

  /** Serves a client whose connection another process has accepted. */
  takeClient(connection: Socket): void {
    if (this.servers === undefined) connection.destroy();
    else this.servers.takeClient(connection);
  }

  /** The metrics, as text for Prometheus. */
  metricsText(): Promise<string> {
    return this.metrics.registry.metrics();
  }

  /** Stops as OPERATOR 11 says: leave, serve a while, refuse, finish, flush, close. */
  async stop(): Promise<void> {
    const { config, logger, scheduler } = this.parts;
    const { drainServeMs, drainTimeoutMs } = config;
    this.draining = true;
    this.servers?.sendClientsAway(drainServeMs + drainTimeoutMs + CONNECTION_GRACE_MS);
    logger.info({ drainServeMs }, 'shutting down: not ready any more, serving a little longer');
    await sleep(scheduler, drainServeMs);
    this.servers?.refuseClients();
    this.replica?.drain();
    if (!(await this.within(drainTimeoutMs, this.replica?.idle()))) {
      logger.warn({ drainTimeoutMs }, 'operations are still under way and are given up');
    }
    await this.within(CONNECTION_GRACE_MS, this.servers?.finishClients());
    await this.close();
    logger.info({}, 'stopped');
  }

  /** Closes everything at once, in the opposite order of opening; the store flushes what it has. Idempotent. */
  async close(): Promise<void> {
    const { replica, servers, store } = this;
    this.replica = this.servers = this.store = undefined;
    servers?.close();
    await replica?.stop();
    await store?.close();
    await this.http.close();
  }

  private async open(): Promise<BoundPorts> {
    const { config, logger } = this.parts;
    const httpPort = await this.http.listen(config.listen, config.httpPort);
    const store = (this.store = await openData({
      ...this.parts,
      ...config,
      directory: config.dataDir,
      observeSync: (entries, seconds) => this.metrics.observeSync(entries, seconds),
    }));
    this.metrics.watchStore(store);
    const replica = (this.replica = await this.createReplica(store));
    const notReadyReason = (): string | undefined => this.notReadyReason;
    const servers = new Servers({ ...this.parts, replica, metrics: this.metrics, notReadyReason });
    const ports = { ...(await listenOrClose(servers)), httpPort };
    this.servers = servers;
    this.metrics.watchReadiness(() => this.notReadyReason === undefined);
    if (config.portsFile !== undefined) await writePorts(config.portsFile, ports);
    logger.info({ ...ports, listen: config.listen, version: this.parts.softwareVersion }, 'node started');
    return ports;
  }

  private createReplica(store: Store): Promise<Replica> {
    const { config, ...rest } = this.parts;
    return createReplica({
      ...rest,
      store,
      nodeId: config.nodeId,
      namespace: config.namespace,
      name: config.clusterName,
      transport: new GrpcPeerTransport({
        ...rest,
        nodeId: config.nodeId,
        maxFrameBytes: maxPeerFrameBytes(config),
        refused: (path, reason) => this.metrics.countRefusedCall(path, reason),
      }),
      discovery:
        config.discovery.kind === 'static'
          ? new StaticDiscovery(config.discovery.peers)
          : new DnsDiscovery({ ...config, clusterDomain: config.discovery.clusterDomain }),
      metrics: this.metrics.replication,
      settings: {
        heartbeatMs: config.heartbeatMs,
        failureDetectionMs: config.failureDetectionMs,
        skewBoundMs: config.skewBoundMs,
        collection: collectionSettings(config.collectionAgeMs),
        maxInFlightBytes: config.maxInFlightBytes,
      },
    });
  }

  /** A retired incarnation must not come back (PROTOCOL 27): the next start is a blank one. */
  private async discardRetired(): Promise<void> {
    const { config, logger } = this.parts;
    await this.close();
    const movedTo = await setAside(config.dataDir);
    logger.warn({ movedTo }, 'the store of the retired incarnation was set aside; the next start is blank');
  }

  /** Whether the work was done in that time. */
  private async within(limitMs: number, work: Promise<void> = Promise.resolve()): Promise<boolean> {
    const { scheduler } = this.parts;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = scheduler.after(limitMs, () => resolve(false));
    work.then(
      () => resolve(true),
      () => resolve(true),
    );
    const done = await promise;
    timer.cancel();
    return done;
  }
}

async function listenOrClose(servers: Servers): ReturnType<Servers['listen']> {
  try {
    return await servers.listen();
  } catch (error) {
    servers.close();
    throw error;
  }
}

async function writePorts(path: string, ports: BoundPorts): Promise<void> {
  await writeFile(`${path}.tmp`, `${JSON.stringify(ports)}\n`);
  await rename(`${path}.tmp`, path);
}
