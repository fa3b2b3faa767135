import type { Clock } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { mapToProto } from '../../client/cluster-map-codec.ts';
import {
  KeyValueStoreService,
  type DeleteRequest,
  type DeleteResponse,
  type DescribeClusterResponse,
  type GetRequest,
  type GetResponse,
  type PutRequest,
  type PutResponse,
  type ScanRequest,
  type ScanResponse,
  type WatchRequest,
  type WatchResponse,
} from '../../proto/gen/kvstore.ts';
import type { SnapshotResult } from '../backup/snapshots.ts';
import { consistencyOf } from '../replication/consistency.ts';
import type { OperationOptions, Replica } from '../replication/engine.ts';
import type { ServiceDefinition, UntypedServiceImplementation } from './grpc.ts';
import {
  streamHandler,
  tolerantMethod,
  unaryHandler,
  type CallContext,
  type HandlerOptions,
} from './handlers.ts';
import {
  checkKey,
  checkMinVersion,
  checkRequestId,
  checkTtl,
  checkValue,
  refuseCondition,
  unsupportedCondition,
} from './kv-requests.ts';
import { listKeys } from './list-keys.ts';
import { findReservedField, type ReservedFields } from './reserved-fields.ts';
import { scan } from './scan.ts';
import { watch } from './watch.ts';

/** What the public service needs. */
export interface KvServiceOptions {
  readonly replica: Pick<Replica, 'engine' | 'nodeId' | 'map'>;
  readonly clock: Clock;
  readonly maxValueBytes: number;
  readonly softwareVersion: string;
  /** Makes a node-local snapshot; the signal says that nobody waits for it any more. */
  readonly snapshot: (signal: AbortSignal) => Promise<SnapshotResult>;
  readonly handlers: HandlerOptions;
}

/** No operation holds its resources longer, whatever deadline the caller sets. */
const MAX_OPERATION_MS = 60_000;
const NOTHING = Buffer.alloc(0);

/** The fields that a request's message reserves (kvstore.proto). */
const RESERVED: Readonly<Record<'put' | 'get' | 'delete' | 'listKeys' | 'scan' | 'watch', ReservedFields>> = {
  put: { from: 7, to: 15 },
  get: { from: 4, to: 15 },
  delete: { from: 5, to: 15 },
  listKeys: { from: 6, to: 15 },
  scan: { from: 7, to: 15 },
  watch: { from: 3, to: 15 },
};

const withoutReserved = (reserved: ReservedFields) => (bytes: Buffer) =>
  findReservedField(bytes, reserved) === undefined ? undefined : unsupportedCondition();

/** kvstore.KeyValueStore, its requests checked before they are believed. */
export const kvServiceDefinition = {
  put: tolerantMethod(KeyValueStoreService.put, withoutReserved(RESERVED.put)),
  get: tolerantMethod(KeyValueStoreService.get, withoutReserved(RESERVED.get)),
  delete: tolerantMethod(KeyValueStoreService.delete, withoutReserved(RESERVED.delete)),
  listKeys: tolerantMethod(KeyValueStoreService.listKeys, withoutReserved(RESERVED.listKeys)),
  scan: tolerantMethod(KeyValueStoreService.scan, withoutReserved(RESERVED.scan)),
  watch: tolerantMethod(KeyValueStoreService.watch, withoutReserved(RESERVED.watch)),
  backup: tolerantMethod(KeyValueStoreService.backup),
  ping: tolerantMethod(KeyValueStoreService.ping),
  describeCluster: tolerantMethod(KeyValueStoreService.describeCluster),
} satisfies ServiceDefinition;

/** The implementation of `kvServiceDefinition`. */
export function createKvService(options: KvServiceOptions): UntypedServiceImplementation {
  const { replica, handlers } = options;
  const { engine } = replica;
  return {
    put: unaryHandler(KeyValueStoreService.put.path, handlers, (request: PutRequest, context) =>
      put(options, request, context),
    ),
    get: unaryHandler(KeyValueStoreService.get.path, handlers, (request: GetRequest, context) =>
      get(options, request, context),
    ),
    delete: unaryHandler(KeyValueStoreService.delete.path, handlers, (request: DeleteRequest, context) =>
      remove(options, request, context),
    ),
    listKeys: unaryHandler(KeyValueStoreService.listKeys.path, handlers, listKeys.bind(undefined, engine)),
    scan: streamHandler<ScanRequest, ScanResponse>(
      KeyValueStoreService.scan.path,
      handlers,
      scan.bind(undefined, engine),
    ),
    watch: streamHandler<WatchRequest, WatchResponse>(
      KeyValueStoreService.watch.path,
      handlers,
      watch.bind(undefined, engine),
    ),
    backup: unaryHandler(KeyValueStoreService.backup.path, handlers, async (_request, { signal }) => {
      const { name, records, sizeBytes } = await options.snapshot(signal);
      const message = `wrote ${records} records (${sizeBytes} bytes) to snapshot ${name}`;
      return { success: true, message, name, records, sizeBytes };
    }),
    ping: unaryHandler(KeyValueStoreService.ping.path, handlers, () =>
      Promise.resolve({
        message: 'OK',
        nodeId: replica.nodeId,
        clusterId: replica.map?.clusterId ?? '',
        epoch: replica.map?.epoch ?? 0,
        version: options.softwareVersion,
      }),
    ),
    describeCluster: unaryHandler(KeyValueStoreService.describeCluster.path, handlers, () =>
      describe(replica),
    ),
  };
}

async function put(
  options: KvServiceOptions,
  request: PutRequest,
  context: CallContext,
): Promise<PutResponse> {
  const { key, value, ttlMs, requestId } = request;
  const operation = operationOptions(options, request, context);
  refuseCondition(request.condition);
  checkKey(key);
  checkValue(value, options.maxValueBytes);
  checkTtl(ttlMs);
  checkRequestId(requestId);
  const { version, old } = await options.replica.engine.put({ ...operation, key, value, ttlMs, requestId });
  return { oldValue: old?.value ?? NOTHING, oldFound: old !== undefined, version };
}

async function get(
  options: KvServiceOptions,
  request: GetRequest,
  context: CallContext,
): Promise<GetResponse> {
  const operation = operationOptions(options, request, context);
  checkKey(request.key);
  const minVersion = checkMinVersion(request.minVersion);
  const live = await options.replica.engine.get({ ...operation, key: request.key, minVersion });
  if (live === undefined) return { value: NOTHING, found: false, version: undefined };
  return { value: live.value, found: true, version: live.version, remainingTtlMs: live.remainingTtlMs };
}

async function remove(
  options: KvServiceOptions,
  request: DeleteRequest,
  context: CallContext,
): Promise<DeleteResponse> {
  const { key, requestId } = request;
  const operation = operationOptions(options, request, context);
  refuseCondition(request.condition);
  checkKey(key);
  checkRequestId(requestId);
  return options.replica.engine.delete({ ...operation, key, requestId });
}

function operationOptions(
  options: KvServiceOptions,
  request: Pick<PutRequest, 'consistency'>,
  context: CallContext,
): OperationOptions {
  const deadlineMs = Math.min(context.deadlineMs, options.clock.monotonicMs() + MAX_OPERATION_MS);
  return { consistency: consistencyOf(request.consistency), deadlineMs, signal: context.signal };
}

function describe(replica: Pick<Replica, 'map' | 'nodeId'>): Promise<DescribeClusterResponse> {
  const { map, nodeId } = replica;
  if (map === undefined) {
    throw new KvError(
      'UNAVAILABLE',
      `${nodeId} has no cluster map yet: wait until it has joined, or ask another node`,
    );
  }
  return Promise.resolve({ map: mapToProto(map) });
}
