import { type Clock, type Scheduler, systemClock, systemScheduler } from '../common/clock.ts';
import { KvError } from '../common/errors.ts';
import { type Random, systemRandom } from '../common/random.ts';
import type { ClusterMap } from '../model/cluster-map.ts';
import type { Version } from '../model/version.ts';
import { Consistency as WireConsistency, type RequestId } from '../proto/gen/kvstore.ts';
import { mapFromProto } from './cluster-map-codec.ts';
import { Endpoint } from './endpoint.ts';
import { parseEndpoints } from './endpoint-list.ts';
import { resumedScan, type ScannedEntry } from './resumed-scan.ts';
import { resumedWatch, type WatchEvent } from './resumed-watch.ts';
import { Failover, type FailoverOperation } from './failover.ts';

export { KvError, type ErrorCode } from '../common/errors.ts';
export type { ClusterMap, ScannedEntry, Version, WatchEvent };

/** A key or value; a string stands for its UTF-8 bytes. */
export type Bytes = string | Uint8Array;

/** How many replicas take part before the answer: one, a majority, or all. */
export type Consistency = 'ONE' | 'QUORUM' | 'ALL';

export interface ConnectOptions {
  /** Nodes or Services as `host:port`, in a list or separated by commas. Each is used when others fail. */
  readonly endpoints: string | readonly string[];
  /** For operations that name none. @default QUORUM */
  readonly consistency?: Consistency;
  /** For operations that name none, milliseconds. @default 5000 */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
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

/**
 * A client of one cluster.
 *
 * Operations throw KvError. UNAVAILABLE: nothing was applied, retrying is safe (the client already did, on every
 * endpoint, until `timeoutMs`). DEADLINE_EXCEEDED: a write may or may not have been applied, and the client could not
 * find out: it sends a write again under the same request id, which applies it once, while less than 45 s have passed
 * since it was first sent. Others as in docs/api_reference.md.
 */
export class KvClient {
  private readonly endpoints: readonly Endpoint[];
  private readonly failover: Failover;
  private readonly clock: Clock;
  private readonly scheduler: Scheduler;
  private readonly random: Random;
  private readonly consistency: Consistency | undefined;
  private readonly timeoutMs: number;
  private readonly clientId: Buffer;
  private readonly startMs: number;
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
    this.clientId = random.bytes(CLIENT_ID_BYTES);
    this.startMs = clock.wallMs();
    this.endpoints = addresses.map((address) => new Endpoint(address, clock, scheduler));
    this.failover = new Failover(this.endpoints, clock, scheduler, random);
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
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** Stores a value. Resolves when enough replicas for the consistency hold it durably. */
  async put(key: Bytes, value: Bytes, options: PutOptions = {}): Promise<PutResult> {
    const request = {
      key: bufferOf(key),
      value: bufferOf(value),
      ttlMs: options.ttlMs,
      consistency: this.wireConsistency(options),
      condition: undefined,
    };
    const idOf = this.nextRequest();
    const answer = await this.run('write', options, (endpoint, call, attempt) =>
      endpoint.put({ ...request, requestId: idOf(attempt) }, call),
    );
    return { version: versionOf(answer), oldValue: answer.oldFound ? answer.oldValue : undefined };
  }

  /** Reads a value; undefined when the key does not exist or has expired. */
  async get(key: Bytes, options: GetOptions = {}): Promise<GetResult | undefined> {
    const request = {
      key: bufferOf(key),
      consistency: this.wireConsistency(options),
      minVersion: options.minVersion,
    };
    const answer = await this.run('read', options, (endpoint, call) => endpoint.get(request, call));
    if (!answer.found) return undefined;
    return { value: answer.value, version: versionOf(answer), remainingTtlMs: answer.remainingTtlMs };
  }

  /** Deletes a key; deleting a missing one succeeds. */
  async delete(key: Bytes, options: OperationOptions = {}): Promise<DeleteResult> {
    const request = {
      key: bufferOf(key),
      consistency: this.wireConsistency(options),
      condition: undefined,
    };
    const idOf = this.nextRequest();
    const answer = await this.run('write', options, (endpoint, call, attempt) =>
      endpoint.delete({ ...request, requestId: idOf(attempt) }, call),
    );
    return { version: versionOf(answer), existed: answer.existed };
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
      run: (operation) => this.unlessClosed(operation),
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
      run: (operation) => this.unlessClosed(operation),
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
    for (const endpoint of this.endpoints) endpoint.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  private run<Response>(
    kind: FailoverOperation<Response>['kind'],
    options: OperationOptions,
    call: FailoverOperation<Response>['call'],
  ): Promise<Response> {
    const { signal, timeoutMs = this.timeoutMs } = options;
    return this.unlessClosed<Response>({ kind, timeoutMs, signal, call });
  }

  private unlessClosed<Response>(operation: FailoverOperation<Response>): Promise<Response> {
    if (this.closed) return Promise.reject(clientClosed());
    return this.failover.run(operation);
  }

  /** A connection that is closed leaves its streams to end by themselves, which these never do. */
  private untilClosed(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.closing.signal : AbortSignal.any([this.closing.signal, signal]);
  }

  /** The id of one more write, for each of its attempts. */
  private nextRequest(): (attempt: number) => RequestId {
    this.lastNumber += 1;
    const { clientId, lastNumber: number, startMs: clientStartMs } = this;
    return (attempt) => ({ clientId, number, clientStartMs, attempt });
  }

  private wireConsistency(options: OperationOptions): WireConsistency {
    const consistency = options.consistency ?? this.consistency;
    return consistency === undefined ? WireConsistency.CONSISTENCY_UNSPECIFIED : WireConsistency[consistency];
  }
}

function clientClosed(): KvError {
  return new KvError('FAILED_PRECONDITION', 'the client is closed');
}

function bufferOf(bytes: Bytes): Buffer {
  return typeof bytes === 'string'
    ? Buffer.from(bytes, 'utf8')
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function versionOf(answer: { version: Version | undefined }): Version {
  if (answer.version === undefined) throw new KvError('INTERNAL', 'the node answered without a version');
  return answer.version;
}
