import { PROOF_METADATA, proveCall } from '../common/call-proof.ts';
import type { Clock } from '../common/clock.ts';
import { KvError } from '../common/errors.ts';
import type { Random } from '../common/random.ts';
import type { ClusterMap } from '../model/cluster-map.ts';
import {
  AdminClient as AdminStub,
  AdminService,
  type GetMapResponse,
  type ForceActivateResponse,
  type GetStatusResponse,
} from '../proto/gen/admin.ts';
import type { RecordPosition, RecordsChunk } from '../proto/gen/peer.ts';
import { mapFromProto, mapToProto } from './cluster-map-codec.ts';
import { CallFailure, type Metadata, callStream, callUnary, channelOptions, plaintext } from './grpc.ts';
import { proofMetadata } from './proof-metadata.ts';

/** The member a call is meant for, and where to find it. */
export interface AdminTarget {
  /** Member's node id: the proof is good for it alone. */
  readonly nodeId: string;
  /** `host:port` of its admin service; the operator dials pod addresses. */
  readonly address: string;
  /** The member's DNS name, when `address` is not it. */
  readonly authority?: string | undefined;
}

export interface AdminClientOptions {
  /** The cluster's shared secret. */
  readonly secret: Buffer;
  /** Who calls, for the nodes' logs: `operator`, `kvctl`, `runner`. */
  readonly sender: string;
  readonly clock: Clock;
  readonly random: Random;
  /** How long a call other than `streamRecords` may take, milliseconds. @default 3000 */
  readonly deadlineMs?: number;
}

/** What a map is meant to replace; epoch 0 and an empty hash for none. */
export interface ExpectedMap {
  readonly epoch: number;
  readonly hash: string;
}

/** A node's answer to a proposed map. */
export interface ProposalAnswer {
  readonly accepted: boolean;
  /** Of the node's map after the call. */
  readonly epoch: number;
  readonly hash: string;
  /** Why not, for a person. */
  readonly message: string;
}

export interface RecordsRequest {
  /** Resume after this place; absent: from the beginning. */
  readonly after?: RecordPosition | undefined;
  /** Only these partitions; absent or empty: all that the node holds. */
  readonly partitions?: readonly number[] | undefined;
}

/**
 * The admin service of nodes. Errors are KvError: UNAVAILABLE (no connection), DEADLINE_EXCEEDED (no answer in time; a
 * map may have been taken), UNAUTHENTICATED (wrong secret, or another node answers at that address).
 */
export interface AdminClient {
  status(target: AdminTarget, signal?: AbortSignal): Promise<GetStatusResponse>;
  /** The node's map, undefined when it has none. */
  getMap(target: AdminTarget, signal?: AbortSignal): Promise<ClusterMap | undefined>;
  /** Compare-and-set of the node's map; durable there when accepted. */
  proposeMap(
    target: AdminTarget,
    map: ClusterMap,
    expected: ExpectedMap,
    signal?: AbortSignal,
  ): Promise<ProposalAnswer>;
  /** Makes partitions readable that wait for replicas which may never come back; with `dryRun` only tells which. */
  forceActivate(
    target: AdminTarget,
    request: { readonly dryRun: boolean },
    signal?: AbortSignal,
  ): Promise<ForceActivateResponse>;
  /**
   * The node's records, tombstones included, in (partition, key) order, no faster than they are consumed. Ends normally
   * only after the node's last chunk; a cut stream throws UNAVAILABLE.
   */
  streamRecords(
    target: AdminTarget,
    request: RecordsRequest,
    signal: AbortSignal,
  ): AsyncIterable<RecordsChunk>;
  /** Closes the connections. Idempotent. */
  close(): void;
}

/** Connections kept; beyond it the least recently used idle one is closed. */
const MAX_CONNECTIONS = 1024;
const DEFAULT_DEADLINE_MS = 3000;

/** Opens no connection yet; each target is dialled at its first call and the connection is kept. */
export function createAdminClient(options: AdminClientOptions): AdminClient {
  return new ConnectedAdminClient(options);
}

interface Connection {
  readonly stub: AdminStub;
  /** As the channel names it; a call's peer differs from it once the call has a connection. */
  readonly channelTarget: string;
  /** Node's wall clock minus ours, as far as it matters for proofs. */
  clockOffsetMs: number;
  calls: number;
}

class ConnectedAdminClient implements AdminClient {
  private readonly options: AdminClientOptions;
  /** In order of use, the most recent last. */
  private readonly connections = new Map<string, Connection>();
  private closed = false;

  constructor(options: AdminClientOptions) {
    this.options = options;
  }

  status(target: AdminTarget, signal?: AbortSignal): Promise<GetStatusResponse> {
    return this.unary(
      target,
      AdminService.getStatus.path,
      signal,
      (stub) => (metadata, options, done) => stub.getStatus({}, metadata, options, done),
    );
  }

  async getMap(target: AdminTarget, signal?: AbortSignal): Promise<ClusterMap | undefined> {
    const answer = await this.unary<GetMapResponse>(target, AdminService.getMap.path, signal, (stub) => {
      return (metadata, options, done) => stub.getMap({}, metadata, options, done);
    });
    return answer.found && answer.map !== undefined ? mapFromProto(answer.map) : undefined;
  }

  proposeMap(
    target: AdminTarget,
    map: ClusterMap,
    expected: ExpectedMap,
    signal?: AbortSignal,
  ): Promise<ProposalAnswer> {
    const request = { map: mapToProto(map), expectedEpoch: expected.epoch, expectedHash: expected.hash };
    return this.unary(
      target,
      AdminService.proposeMap.path,
      signal,
      (stub) => (metadata, options, done) => stub.proposeMap(request, metadata, options, done),
    );
  }

  forceActivate(
    target: AdminTarget,
    request: { readonly dryRun: boolean },
    signal?: AbortSignal,
  ): Promise<ForceActivateResponse> {
    return this.unary(
      target,
      AdminService.forceActivate.path,
      signal,
      (stub) => (metadata, options, done) => stub.forceActivate(request, metadata, options, done),
    );
  }

  async *streamRecords(
    target: AdminTarget,
    request: RecordsRequest,
    signal: AbortSignal,
  ): AsyncGenerator<RecordsChunk, void, undefined> {
    const connection = this.connect(target);
    const message = { after: request.after, partitions: [...(request.partitions ?? [])] };
    connection.calls += 1;
    try {
      for (let attempt = 0; ; attempt += 1) {
        const metadata = this.proof(connection, target, AdminService.streamRecords.path);
        let complete = false;
        try {
          for await (const chunk of callStream(
            () => connection.stub.streamRecords(message, metadata),
            signal,
          )) {
            complete = chunk.complete;
            yield chunk;
          }
          if (complete) return;
          throw new KvError('UNAVAILABLE', `the stream of records from ${target.nodeId} was cut short`);
        } catch (error) {
          if (attempt > 0 || !this.adjustClock(connection, error)) throw asKvError(error);
        }
      }
    } finally {
      connection.calls -= 1;
    }
  }

  close(): void {
    this.closed = true;
    for (const { stub } of this.connections.values()) stub.close();
    this.connections.clear();
  }

  private async unary<Response>(
    target: AdminTarget,
    method: string,
    signal: AbortSignal | undefined,
    bind: (stub: AdminStub) => Parameters<typeof callUnary<Response>>[0],
  ): Promise<Response> {
    const connection = this.connect(target);
    connection.calls += 1;
    try {
      for (let attempt = 0; ; attempt += 1) {
        const deadlineMs = this.options.clock.wallMs() + (this.options.deadlineMs ?? DEFAULT_DEADLINE_MS);
        const metadata = this.proof(connection, target, method);
        try {
          return await callUnary(bind(connection.stub), connection.channelTarget, {
            deadlineMs,
            metadata,
            signal,
          });
        } catch (error) {
          if (attempt > 0 || !this.adjustClock(connection, error)) throw asKvError(error);
        }
      }
    } finally {
      connection.calls -= 1;
    }
  }

  private proof(connection: Connection, target: AdminTarget, method: string): Metadata {
    const { secret, sender, clock, random } = this.options;
    const timeMs = clock.wallMs() + connection.clockOffsetMs;
    return proofMetadata(proveCall(secret, { method, sender, recipient: target.nodeId, timeMs }, random));
  }

  /** Whether a node refused our time and told its own: the next proof is made for that clock. */
  private adjustClock(connection: Connection, error: unknown): boolean {
    if (!(error instanceof CallFailure) || error.error.code !== 'UNAUTHENTICATED') return false;
    const theirs = Number(error.metadata.get(PROOF_METADATA.time)[0] ?? Number.NaN);
    if (!Number.isSafeInteger(theirs)) return false;
    connection.clockOffsetMs = theirs - this.options.clock.wallMs();
    return true;
  }

  private connect(target: AdminTarget): Connection {
    if (this.closed) throw new KvError('UNAVAILABLE', 'the admin client is closed', { retryable: false });
    const key = `${target.address} ${target.authority ?? ''}`;
    let connection = this.connections.get(key);
    if (connection === undefined) {
      this.makeRoom();
      const stub = new AdminStub(
        target.address,
        plaintext(),
        channelOptions({ authority: target.authority }),
      );
      const channelTarget = stub.getChannel().getTarget();
      connection = { stub, channelTarget, clockOffsetMs: 0, calls: 0 };
    } else {
      this.connections.delete(key);
    }
    this.connections.set(key, connection);
    return connection;
  }

  private makeRoom(): void {
    if (this.connections.size < MAX_CONNECTIONS) return;
    for (const [key, connection] of this.connections) {
      if (connection.calls > 0) continue;
      connection.stub.close();
      this.connections.delete(key);
      return;
    }
  }
}

function asKvError(error: unknown): unknown {
  return error instanceof CallFailure ? error.error : error;
}
