import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { Clock, Scheduler } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { diskSpace } from '../backup/snapshot-directory.ts';
import { Snapshots } from '../backup/snapshots.ts';
import type { NodeConfig } from '../config.ts';
import type { NodeMetrics } from '../metrics.ts';
import type { Replica } from '../replication/engine.ts';
import { adminServiceDefinition, createAdminService } from './admin-service.ts';
import { RpcServer } from './grpc.ts';
import type { HandlerOptions } from './handlers.ts';
import { HealthReporter } from './health-reporter.ts';
import { createKvService, kvServiceDefinition } from './kv-service.ts';
import { createPeerService, peerServiceDefinition } from './peer-service.ts';
import { Operations } from './kv-operations.ts';
import { Pipelines } from './pipeline.ts';
import { ProofGuard } from './proof-guard.ts';

const MIB = 1024 * 1024;
/** What gRPC clients take by default: a smaller limit would make refused requests look broken. */
const MIN_CLIENT_MESSAGE_BYTES = 4 * MIB;
/** Everything of a request beside its value. */
const MESSAGE_OVERHEAD_BYTES = 64 * 1024;
/** Frames hold a batch of up to one value beyond their target size. */
const PEER_BATCH_BYTES = 16 * MIB;
const CLIENT_CONNECTION_AGE_MS = 5 * 60_000;
/** From source and from dist the same way. */
const PROTO_DIRECTORY = join(import.meta.dirname, '../../proto');
const KV_SERVICE = 'kvstore.KeyValueStore';

/** Largest frame between peers. */
export function maxPeerFrameBytes({ maxValueBytes }: Pick<NodeConfig, 'maxValueBytes'>): number {
  return PEER_BATCH_BYTES + 2 * maxValueBytes;
}

export interface ServersOptions {
  readonly config: NodeConfig;
  readonly replica: Replica;
  readonly metrics: NodeMetrics;
  readonly secret: Buffer;
  readonly softwareVersion: string;
  readonly notReadyReason: () => string | undefined;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
}

/** The two gRPC servers of a node: one for clients, one for peers and administrators. */
export class Servers {
  private readonly config: NodeConfig;
  private readonly client: RpcServer;
  private readonly peer: RpcServer;
  private readonly health: HealthReporter;
  private readonly pipelines: Pipelines;
  private refusing = false;

  constructor(options: ServersOptions) {
    const { config, metrics, replica, scheduler, notReadyReason } = options;
    this.config = config;
    this.client = new RpcServer({
      maxMessageBytes: Math.max(MIN_CLIENT_MESSAGE_BYTES, config.maxValueBytes + MESSAGE_OVERHEAD_BYTES),
      maxConnectionAgeMs: CLIENT_CONNECTION_AGE_MS,
    });
    this.peer = new RpcServer({
      maxMessageBytes: maxPeerFrameBytes(config),
      tooLarge: (path) => metrics.countRefusedCall(path, 'too-large'),
    });
    const handlers: Omit<HandlerOptions, 'admit'> = {
      clock: options.clock,
      logger: options.logger,
      defaultDeadlineMs: config.defaultDeadlineMs,
      observe: (path, code, seconds) => metrics.observeCall(path, code, seconds),
    };
    this.pipelines = this.addClientServices(options, { ...handlers, admit: () => this.refuseWhenStopping() });
    const guard = new ProofGuard({
      secret: options.secret,
      nodeId: config.nodeId,
      isBlank: () => replica.map === undefined,
      clock: options.clock,
      refused: (path, reason) => metrics.countRefusedCall(path, reason),
    });
    this.addPeerServices(options, { ...handlers, admit: (path, metadata) => guard.check(path, metadata) });
    this.health = new HealthReporter({
      health: this.client.addHealth(['', KV_SERVICE]),
      services: ['', KV_SERVICE],
      isReady: () => notReadyReason() === undefined,
      scheduler,
    });
  }

  /** @throws KvError FAILED_PRECONDITION naming the address that cannot be had. */
  async listen(): Promise<{ clientPort: number; peerPort: number }> {
    const { listen } = this.config;
    const peerPort = await this.peer.bind(listen, this.config.peerPort);
    const clientPort = await this.client.bind(listen, this.config.clientPort);
    this.health.start();
    return { clientPort, peerPort };
  }

  /** Serves a client whose connection another process has accepted. */
  takeClient(connection: Socket): void {
    this.client.take(connection);
  }

  /** Clients are told to look for other nodes, and served meanwhile. */
  sendClientsAway(graceMs: number): void {
    this.health.update();
    this.pipelines.sendAway();
    this.client.sendGoAway(graceMs);
  }

  /** From now on new calls of clients are refused as UNAVAILABLE. */
  refuseClients(): void {
    this.refusing = true;
    this.pipelines.end();
  }

  /** Resolves when no client's call is under way; connections are not taken any more. */
  finishClients(): Promise<void> {
    return this.client.finish();
  }

  /** Cuts all connections. Idempotent. */
  close(): void {
    this.health.stop();
    this.client.kill();
    this.peer.kill();
  }

  private refuseWhenStopping(): void {
    if (this.refusing) throw new KvError('UNAVAILABLE', 'this node is shutting down: ask another one');
  }

  private addClientServices(options: ServersOptions, handlers: HandlerOptions): Pipelines {
    const { config, metrics, replica, softwareVersion, clock, scheduler, logger } = options;
    const snapshots = new Snapshots({
      replica,
      directory: config.backupDir,
      softwareVersion,
      diskSpace,
      clock,
      logger,
    });
    const operations = new Operations({
      engine: replica.engine,
      clock,
      maxValueBytes: config.maxValueBytes,
    });
    const pipelines = new Pipelines({
      operations,
      epoch: () => replica.map?.epoch ?? 0,
      clock,
      scheduler,
      handlers,
    });
    const service = createKvService({
      replica,
      operations,
      pipelines,
      softwareVersion,
      snapshot: async (signal) => {
        let succeeded = false;
        try {
          const result = await snapshots.take(signal);
          succeeded = true;
          return result;
        } finally {
          metrics.countSnapshot(succeeded);
        }
      },
      handlers,
    });
    this.client.addService(kvServiceDefinition, service);
    this.client.addReflection(PROTO_DIRECTORY, ['kvstore.proto']);
    return pipelines;
  }

  private addPeerServices(options: ServersOptions, handlers: HandlerOptions): void {
    const { clock, config, metrics, notReadyReason, replica, softwareVersion } = options;
    const { partitions } = config;
    const refused = (path: string, reason: string): void => metrics.countRefusedCall(path, reason);
    const admin = createAdminService({
      replica,
      softwareVersion,
      partitions,
      clock,
      diskSpace: () => diskSpace(config.dataDir),
      notReadyReason,
      handlers,
      refused,
    });
    const peer = createPeerService({
      replica,
      partitions,
      maxFrameBytes: maxPeerFrameBytes(config),
      handlers,
      refused,
    });
    this.peer.addService(peerServiceDefinition, peer);
    this.peer.addService(adminServiceDefinition, admin);
  }
}
