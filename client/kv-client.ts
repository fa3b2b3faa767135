import { bufferOver, byteString } from '../common/bytes.ts';
import { type Clock, type Scheduler, systemClock, systemScheduler } from '../common/clock.ts';
import { KvError } from '../common/errors.ts';
import { type Random, systemRandom } from '../common/random.ts';
import type { ClusterMap, Member } from '../model/cluster-map.ts';
import type { Version } from '../model/version.ts';
import { Consistency as WireConsistency } from '../proto/gen/kvstore.ts';
import { mapFromProto } from './cluster-map-codec.ts';
import { Endpoint, type EndpointCall } from './endpoint.ts';
import { parseEndpoints } from './endpoint-list.ts';
import { resumedScan, type ScannedEntry } from './resumed-scan.ts';
import { resumedWatch, type WatchEvent } from './resumed-watch.ts';
import { Failover, type FailoverOperation } from './failover.ts';
import { memberAddress } from './member-address.ts';
import type { OperationOutcome, PipelinedOperation } from './pipeline.ts';
import { type Route, Router } from './router.ts';
import { Session } from './session.ts';

export { KvError, type ErrorCode } from '../common/errors.ts';
export type { ClusterMap, Member, ScannedEntry, Version, WatchEvent };

/** A key or value; a string stands for its UTF-8 bytes. */
export type Bytes = string | Uint8Array;

/** How many replicas take part before the answer: one, a majority, or all. */
export type Consistency = 'ONE' | 'QUORUM' | 'ALL';

export interface ConnectOptions {
  /** Nodes or Services as `host:port`, in a list or separated by commas. Each is used when others fail. */
  readonly endpoints: string | readonly string[];
  /**
   * For operations that name none. @default QUORUM for writes and listings; reads of single keys ask one replica, which
   * must have what this client wrote or read of the key in the last minute
   */
  readonly consistency?: Consistency;
  /** For operations that name none, milliseconds. @default 5000 */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /**
   * Whether operations go straight to replicas of their keys, by the cluster's map; `false`: to the endpoints only, for a
   * few operations. @default true
   */
  readonly routing?: boolean;
  /**
   * `host:port` of a member as this client reaches it, undefined when it does not. @default the map's, or within the
   * headless Service when that is a name
   */
  readonly addressOf?: (member: Member, map: ClusterMap) => string | undefined;
  /** Keys whose versions are remembered for a minute, so that reads at one replica never go back. @default 100,000 */
  readonly sessionKeys?: number;
  /** @default the system's */
  readonly clock?: Clock;
  /** @default the system's */
  readonly scheduler?: Scheduler;
  /** @default the system's */
  readonly random?: Random;
}

export interface OperationOptions {
  readonly consistency?: Consistency;
  /** For the operation with all its retries, milliseconds. */
  readonly timeoutMs?: number;
  /** Ends the operation with the signal's reason; a write may have been applied all the same. */
  readonly signal?: AbortSignal;
}

export interface PutOptions extends OperationOptions {
  /** Time to live, milliseconds, 1 to 10 years. @default for ever */
  readonly ttlMs?: number;
}

export interface GetOptions extends OperationOptions {
  /** Answers with this version of the key or a newer one. */
  readonly minVersion?: Version;
}

export interface ListOptions extends OperationOptions {
  /** Only keys that begin with these bytes. */
  readonly prefix?: Bytes;
  /** Only keys after this one. */
  readonly startAfter?: Bytes;
  /** Keys fetched at a time, 1 to 10000. @default 1000 */
  readonly pageSize?: number;
}

export interface ScanOptions extends OperationOptions {
  /** Only keys that begin with these bytes. */
  readonly prefix?: Bytes;
  /** Only this key and greater ones. */
  readonly start?: Bytes;
  /** Only keys smaller than this one. */
  readonly end?: Bytes;
  /** Only keys after this one. */
  readonly startAfter?: Bytes;
  /** Most entries. @default all */
  readonly limit?: number;
}

export interface WatchOptions {
  /** Only keys that begin with these bytes. @default all */
  readonly prefix?: Bytes;
  /** From a watch of the same prefix: goes on from there. @default from now on */
  readonly token?: Uint8Array;
  /** For finding a node that goes on with the watch, milliseconds. @default 30000 */
  readonly timeoutMs?: number;
  /** Ends the watch with the signal's reason. */
  readonly signal?: AbortSignal;
}

export interface PutResult {
  readonly version: Version;
  /** What the coordinating replica held before; advisory under concurrent writes. */
  readonly oldValue: Buffer | undefined;
}

export interface GetResult {
  readonly value: Buffer;
  readonly version: Version;
  /** Undefined when the key does not expire. */
  readonly remainingTtlMs: number | undefined;
}

export interface DeleteResult {
  readonly version: Version;
  /** Whether the coordinating replica held the key; advisory under concurrent writes. */
  readonly existed: boolean;
}

export interface PingResult {
  /** The node that answered. */
  readonly nodeId: string;
  /** Empty while the node has no map. */
  readonly clusterId: string;
  readonly epoch: number;
  /** Software version. */
  readonly version: string;
}

export interface BackupResult {
  readonly success: boolean;
  readonly message: string;
  /** Name of the snapshot in the node's backup directory. */
  readonly name: string;
  readonly records: number;
  readonly sizeBytes: number;
}

const DEFAULT_TIMEOUT_MS = 5000;
const DEFAULT_PAGE_SIZE = 1000;
const WATCH_TIMEOUT_MS = 30_000;
const CLIENT_ID_BYTES = 16;
const DEFAULT_SESSION_KEYS = 100_000;

/**
 * A client of one cluster.
 *
 * Operations throw KvError. UNAVAILABLE: nothing was applied, retrying is safe (the client already did, on every
 * endpoint, until `timeoutMs`). DEADLINE_EXCEEDED: a write may or may not have been applied, and the client could not
 * find out: it sends a write again under the same request id, which applies it once, while less than 45 s have passed
 * since it was first sent. Others as in docs/api_reference.md.
 */
export class KvClient {
  private readonly router: Router;
  private readonly failover: Failover;
  private readonly session: Session;
  private readonly clock: Clock;
  private readonly scheduler: Scheduler;
  private readonly random: Random;
  private readonly consistency: Consistency | undefined;
  private readonly timeoutMs: number;
  /** Of writes. */
  private lastNumber = 0;
  private closed = false;
  private readonly closing = new AbortController();

  private constructor(options: ConnectOptions) {
    const { clock = systemClock, scheduler = systemScheduler, random = systemRandom } = options;
    const addresses = parseEndpoints(options.endpoints);
    this.clock = clock;
    this.scheduler = scheduler;
    this.random = random;
    this.consistency = options.consistency;
    this.timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.session = new Session(clock, options.sessionKeys ?? DEFAULT_SESSION_KEYS);
    const client = { id: random.bytes(CLIENT_ID_BYTES), startMs: clock.wallMs() };
    const openEndpoint = (address: string): Endpoint =>
      new Endpoint({
        address,
        client,
        onEpoch: (epoch) => this.router.noteEpoch(epoch),
        onSentAway: (endpoint) => this.router.avoid(endpoint),
        clock,
        scheduler,
      });
    this.router = new Router({
      seeds: addresses.map(openEndpoint),
      firstSeed: Math.floor(random.fraction() * addresses.length),
      openEndpoint,
      addressOf: options.addressOf ?? memberAddress,
      fetchMap: () => this.describeCluster(),
      clock,
      scheduler,
    });
    this.failover = new Failover({ router: this.router, clock, scheduler, random });
  }

  /**
   * Opens a client; resolves when one endpoint has answered.
   *
   * @throws KvError UNAVAILABLE when none does within `timeoutMs`, INVALID_ARGUMENT for a malformed endpoint.
   */
  static async connect(options: ConnectOptions): Promise<KvClient> {
    const client = new KvClient(options);
    try {
      await client.ping(options.signal === undefined ? {} : { signal: options.signal });
      if (options.routing ?? true) client.router.follow();
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** Stores a value. Resolves when enough replicas for the consistency hold it durably. */
  put(key: Bytes, value: Bytes, options: PutOptions = {}): Promise<PutResult> {
    const keyBytes = bufferOf(key);
    const request = {
      key: keyBytes,
      value: bufferOf(value),
      ttlMs: options.ttlMs,
      consistency: this.wireConsistency(options),
      requestId: undefined,
      condition: undefined,
    };
    return this.write(keyBytes, options, { $case: 'put', value: request }, (answer) => {
      if (answer.$case !== 'put') throw mixedUp();
      const { oldFound, oldValue } = answer.value;
      const version = versionOf(answer.value);
      this.session.note(byteString(keyBytes), version);
      return { version, oldValue: oldFound ? oldValue : undefined };
    });
  }

  /** Reads a value; undefined when the key does not exist or has expired. */
  get(key: Bytes, options: GetOptions = {}): Promise<GetResult | undefined> {
    const keyBytes = bufferOf(key);
    const name = byteString(keyBytes);
    const route: Route = { key: keyBytes, isRead: true };
    const operation: PipelinedOperation = {
      requestNumber: 0,
      attempt: 0,
      operation: { $case: 'get', value: { key: keyBytes, ...this.readAt(name, options) } },
    };
    const { signal, timeoutMs = this.timeoutMs } = options;
    const call = (endpoint: Endpoint, bounds: EndpointCall): Promise<OperationOutcome> =>
      endpoint.execute(operation, bounds);
    return this.unlessClosed({ kind: 'read', route, timeoutMs, signal, call }, (answer) => {
      if (answer.$case !== 'get') throw mixedUp();
      const { found, value, remainingTtlMs } = answer.value;
      if (!found) return undefined;
      const version = versionOf(answer.value);
      this.session.note(name, version);
      return { value, version, remainingTtlMs };
    });
  }

  /** Deletes a key; deleting a missing one succeeds. */
  delete(key: Bytes, options: OperationOptions = {}): Promise<DeleteResult> {
    const keyBytes = bufferOf(key);
    const request = {
      key: keyBytes,
      consistency: this.wireConsistency(options),
      requestId: undefined,
      condition: undefined,
    };
    return this.write(keyBytes, options, { $case: 'delete', value: request }, (answer) => {
      if (answer.$case !== 'delete') throw mixedUp();
      const version = versionOf(answer.value);
      this.session.note(byteString(keyBytes), version);
      return { version, existed: answer.value.existed };
    });
  }

  /**
   * Reads several keys, each for itself, in the order given.
   *
   * @throws the error of the first one that fails, when all have ended.
   */
  multiGet(keys: readonly Bytes[], options: OperationOptions = {}): Promise<(GetResult | undefined)[]> {
    return allOf(keys.map((key) => this.get(key, options)));
  }

  /**
   * Stores several values, each for itself: there is no transaction.
   *
   * @throws the error of the first one that fails, when all have ended.
   */
  multiPut(
    entries: readonly (readonly [key: Bytes, value: Bytes])[],
    options: PutOptions = {},
  ): Promise<PutResult[]> {
    return allOf(entries.map(([key, value]) => this.put(key, value, options)));
  }

  /**
   * Keys in byte order, fetched a page at a time. A key that exists throughout appears exactly once; there is no
   * snapshot across pages. `timeoutMs` is for each page.
   */
  async *listKeys(options: ListOptions = {}): AsyncGenerator<Buffer, void, undefined> {
    const request = {
      prefix: bufferOf(options.prefix ?? ''),
      startAfter: bufferOf(options.startAfter ?? ''),
      pageSize: options.pageSize ?? DEFAULT_PAGE_SIZE,
      consistency: this.wireConsistency(options),
    };
    let pageToken: Buffer = Buffer.alloc(0);
    do {
      const page = { ...request, pageToken };
      const answer = await this.run('read', options, (endpoint, call) => endpoint.listKeys(page, call));
      yield* answer.keys;
      pageToken = answer.nextPageToken;
    } while (pageToken.length > 0);
  }

  /**
   * Live entries in byte order of their keys, read as they are taken. A key that exists throughout appears exactly once;
   * there is no snapshot. A stream that breaks goes on at another node; `timeoutMs` is for each message.
   */
  scan(options: ScanOptions = {}): AsyncGenerator<ScannedEntry, void, undefined> {
    const { prefix = '', start = '', end = '', startAfter = '', limit = 0, signal } = options;
    const request = {
      prefix: bufferOf(prefix),
      start: bufferOf(start),
      end: bufferOf(end),
      startAfter: bufferOf(startAfter),
      limit,
      consistency: this.wireConsistency(options),
    };
    return resumedScan({
      run: (operation) => this.unlessClosed(operation, asItIs),
      request,
      timeoutMs: options.timeoutMs ?? this.timeoutMs,
      signal: this.untilClosed(signal),
    });
  }

  /**
   * Changes under a prefix as they happen, at least once each, until an error. The versions of a key never go down, and
   * values that were overwritten soon may be left out. A stream that breaks is resumed, here or at another node, and
   * repeats nothing of the 100,000 keys that changed last.
   *
   * Throws OUT_OF_RANGE when the token is too old: scan, and watch anew. UNAVAILABLE when no node goes on within
   * `timeoutMs`: the token of the last `progress` still serves.
   */
  watch(options: WatchOptions = {}): AsyncGenerator<WatchEvent, void, undefined> {
    return resumedWatch({
      run: (operation) => this.unlessClosed(operation, asItIs),
      prefix: bufferOf(options.prefix ?? ''),
      token: bufferOf(options.token ?? ''),
      timeoutMs: options.timeoutMs ?? WATCH_TIMEOUT_MS,
      signal: this.untilClosed(options.signal),
      clock: this.clock,
      scheduler: this.scheduler,
      random: this.random,
    });
  }

  /** Asks whichever node answers first who it is. */
  async ping(options: Omit<OperationOptions, 'consistency'> = {}): Promise<PingResult> {
    const { nodeId, clusterId, epoch, version } = await this.run('read', options, (endpoint, call) =>
      endpoint.ping(call),
    );
    return { nodeId, clusterId, epoch, version };
  }

  /** The cluster map of whichever node answers first; undefined while it has none. */
  async describeCluster(
    options: Omit<OperationOptions, 'consistency'> = {},
  ): Promise<ClusterMap | undefined> {
    const { map } = await this.run('read', options, (endpoint, call) => endpoint.describeCluster(call));
    return map === undefined ? undefined : mapFromProto(map);
  }

  /** Makes one node write a snapshot of its own records into its own backup directory. */
  backup(options: Omit<OperationOptions, 'consistency'> = {}): Promise<BackupResult> {
    return this.run('once', options, (endpoint, call) => endpoint.backup(call));
  }

  /** Closes the connections. Idempotent. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.closing.abort(clientClosed());
    this.router.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  /** A write, under the request id that tells nodes of its further attempts. */
  private write<Result>(
    key: Buffer,
    { signal, timeoutMs = this.timeoutMs }: OperationOptions,
    operation: NonNullable<PipelinedOperation['operation']>,
    finish: (answer: OperationOutcome) => Result,
  ): Promise<Result> {
    this.lastNumber += 1;
    const requestNumber = this.lastNumber;
    const route: Route = { key, isRead: false };
    const call = (endpoint: Endpoint, bounds: EndpointCall, attempt: number): Promise<OperationOutcome> =>
      endpoint.execute({ requestNumber, attempt, operation }, bounds);
    return this.unlessClosed({ kind: 'write', route, timeoutMs, signal, call }, finish);
  }

  private run<Response>(
    kind: FailoverOperation<Response>['kind'],
    options: OperationOptions,
    call: FailoverOperation<Response>['call'],
  ): Promise<Response> {
    const { signal, timeoutMs = this.timeoutMs } = options;
    return this.unlessClosed({ kind, timeoutMs, signal, call }, asItIs);
  }

  private unlessClosed<Response, Result>(
    operation: FailoverOperation<Response>,
    finish: (response: Response) => Result,
  ): Promise<Result> {
    if (this.closed) return Promise.reject(clientClosed());
    return this.failover.runThen(operation, finish);
  }

  /** A connection that is closed leaves its streams to end by themselves, which these never do. */
  private untilClosed(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.closing.signal : AbortSignal.any([this.closing.signal, signal]);
  }

  /** What a read asks of its replica: as the caller says, or what this client has seen of the key. */
  private readAt(
    name: string,
    options: GetOptions,
  ): { consistency: WireConsistency; minVersion: Version | undefined } {
    const { minVersion } = options;
    const consistency = this.wireConsistency(options);
    if (consistency !== WireConsistency.CONSISTENCY_UNSPECIFIED || minVersion !== undefined) {
      return { consistency, minVersion };
    }
    const floor = this.session.floorOf(name);
    return floor.kind === 'quorum'
      ? { consistency: WireConsistency.QUORUM, minVersion: undefined }
      : { consistency: WireConsistency.ONE, minVersion: floor.version };
  }

  private wireConsistency(options: OperationOptions): WireConsistency {
    const consistency = options.consistency ?? this.consistency;
    return consistency === undefined ? WireConsistency.CONSISTENCY_UNSPECIFIED : WireConsistency[consistency];
  }
}

function asItIs<Response>(response: Response): Response {
  return response;
}

function clientClosed(): KvError {
  return new KvError('FAILED_PRECONDITION', 'the client is closed');
}

function bufferOf(bytes: Bytes): Buffer {
  return typeof bytes === 'string' ? Buffer.from(bytes, 'utf8') : bufferOver(bytes);
}

function mixedUp(): KvError {
  return new KvError('INTERNAL', 'the node answered another operation');
}

/** All results, or the first error once nothing is under way any more. */
async function allOf<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

function versionOf(answer: { version: Version | undefined }): Version {
  if (answer.version === undefined) throw new KvError('INTERNAL', 'the node answered without a version');
  return answer.version;
}
