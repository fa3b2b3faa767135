import type { ClusterMap } from '../../model/cluster-map.ts';
import type { Version } from '../../model/version.ts';
import type { GetStatusResponse } from '../../proto/gen/admin.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import type {
  PullRecordsRequest,
  RecordsChunk,
  WatchChunk,
  WatchPartitionsRequest,
} from '../../proto/gen/peer.ts';
import type { PeerStream } from './transport.ts';

export type Consistency = 'ONE' | 'QUORUM' | 'ALL';

/** Asked of every operation. */
export interface OperationOptions {
  readonly consistency: Consistency;
  /** When the caller stops waiting, by the node's monotonic clock, milliseconds. */
  readonly deadlineMs: number;
  /** Aborts when nobody waits for the answer any more: what is kept for it is let go; a write may still be applied. */
  readonly signal?: AbortSignal;
}

export interface LiveValue {
  readonly value: Buffer;
  readonly version: Version;
  readonly remainingTtlMs: number | undefined;
}

export interface PutOperation extends OperationOptions {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly ttlMs: number | undefined;
  readonly requestId: RequestId | undefined;
}

export interface DeleteOperation extends OperationOptions {
  readonly key: Buffer;
  readonly requestId: RequestId | undefined;
}

export interface GetOperation extends OperationOptions {
  readonly key: Buffer;
  readonly minVersion: Version | undefined;
}

export interface ListKeysOperation extends OperationOptions {
  readonly prefix: Buffer;
  /** Exclusive. */
  readonly startAfter: Buffer | undefined;
  /** Most keys to return. */
  readonly limit: number;
  /** Most bytes of keys to return; at least one key comes. */
  readonly maxBytes: number;
}

export interface ScanOperation extends OperationOptions {
  readonly prefix: Buffer;
  /** Inclusive. */
  readonly from: Buffer | undefined;
  /** Exclusive. */
  readonly before: Buffer | undefined;
  /** Exclusive. */
  readonly startAfter: Buffer | undefined;
  /** Most records to send, Infinity for all. */
  readonly limit: number;
}

export interface ScannedRecord extends LiveValue {
  readonly key: Buffer;
}

export interface WatchOperation {
  readonly prefix: Buffer;
  /** Where to resume; undefined: from now on. */
  readonly token: Buffer | undefined;
  /** Ends the stream. */
  readonly signal: AbortSignal;
}

export interface WatchedChange {
  readonly key: Buffer;
  readonly version: Version;
  /** Undefined: the key was deleted at this version, or what it was given has expired since. */
  readonly live: LiveValue | undefined;
}

export interface WatchBatch {
  readonly changes: readonly WatchedChange[];
  /** Resumes after all changes so far; empty: the last one still does, with repetitions. */
  readonly token: Buffer;
}

export interface KeyPage {
  /** In byte order, live keys only. */
  readonly keys: readonly Buffer[];
  /** Whether there may be keys after the last one. */
  readonly more: boolean;
}

/**
 * The operations of clients. Arguments have been validated.
 *
 * Errors, as KvError: UNAVAILABLE when nothing was applied anywhere and a retry is safe; DEADLINE_EXCEEDED when the
 * outcome is unknown ("applied on k of n"); RESOURCE_EXHAUSTED when too much is in flight; DATA_LOSS.
 */
export interface KeyValueEngine {
  /** Resolves when W replicas hold the write durably. `old` is what this replica held, advisory. */
  put(operation: PutOperation): Promise<{ version: Version; old: LiveValue | undefined }>;
  /** Always writes a tombstone. */
  delete(operation: DeleteOperation): Promise<{ version: Version; existed: boolean }>;
  /** The live value, or undefined when R replicas say there is none. */
  get(operation: GetOperation): Promise<LiveValue | undefined>;
  listKeys(operation: ListKeysOperation): Promise<KeyPage>;
  /** Live records in key order, a page at a time; read on only when the next page is asked for. */
  scan(operation: ScanOperation): AsyncIterable<readonly ScannedRecord[]>;
  /**
   * Changes as this node learns of them, each at least once; the versions of a key never go down. The first batch comes
   * when everything from then on will be told, further ones at least every few seconds. Ends only by error: OUT_OF_RANGE
   * when the token is too old, INVALID_ARGUMENT when it is none.
   */
  watch(operation: WatchOperation): AsyncIterable<WatchBatch>;
}

export interface ProposeResult {
  readonly accepted: boolean;
  readonly epoch: number;
  readonly hash: string;
  readonly message: string;
}

/** A running replica: what the RPC layer talks to. Built by node/replication/replica.ts from store, transport, clock. */
export interface Replica {
  readonly engine: KeyValueEngine;
  readonly nodeId: string;
  /** The map held now. */
  readonly map: ClusterMap | undefined;
  /** Undefined when ready, otherwise the reason for a person (PROTOCOL 34). */
  readonly notReadyReason: string | undefined;
  /** Everything the admin service reports except what only the process knows (version, uptime, disk). */
  status(): Omit<
    GetStatusResponse,
    'version' | 'uptimeMs' | 'diskFreeBytes' | 'diskTotalBytes' | 'ready' | 'notReadyReason'
  >;
  /** Durable when it resolves with accepted=true. */
  proposeMap(map: ClusterMap, expected: { epoch: number; hash: string }): Promise<ProposeResult>;
  /**
   * Makes the partitions readable that wait for replicas which may never come back (PROTOCOL 32), durably; gives them.
   * With `dryRun` nothing changes.
   *
   * @throws KvError FAILED_PRECONDITION without a map that lists this node.
   */
  forceActivate(dryRun: boolean): Promise<readonly number[]>;
  /** Takes over the answering end of a stream that a peer opened. */
  acceptStream(stream: PeerStream): void;
  /** Streams flushed records in (partition, key) order, first chunk with the head; for peers, backups and snapshots. */
  streamRecords(request: PullRecordsRequest, signal: AbortSignal): AsyncIterable<RecordsChunk>;
  /** Tells another node, for watches there, the changes of partitions that this node serves. */
  watchPartitions(request: WatchPartitionsRequest, signal: AbortSignal): AsyncIterable<WatchChunk>;
  /** New operations are refused with UNAVAILABLE from now on, watches end; peers are told. */
  drain(): void;
  /** Resolves when no operation is in flight. */
  idle(): Promise<void>;
  /** Rejects when the node must stop: store failure, a copy of its volume is running, retired incarnation. */
  readonly fatal: Promise<never>;
  /** Closes streams and timers; leaves the store to its opener. Idempotent. */
  stop(): Promise<void>;
}
