import { KvError } from '../../common/errors.ts';
import { mapToProto } from '../../client/cluster-map-codec.ts';
import {
  KeyValueStoreService,
  type DeleteRequest,
  type DescribeClusterResponse,
  type GetRequest,
  type PutRequest,
  type ScanRequest,
  type ScanResponse,
  type WatchRequest,
  type WatchResponse,
} from '../../proto/gen/kvstore.ts';
import {
  decodeGetRequest,
  decodePutRequest,
  encodeGetResponse,
  encodePutResponse,
} from '../../proto/serialize.ts';
import type { SnapshotResult } from '../backup/snapshots.ts';
import type { Replica } from '../replication/engine.ts';
import {
  bytesMethod,
  type ServerDuplexStream,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from './grpc.ts';
import {
  handWrittenMethod,
  streamHandler,
  tolerantMethod,
  unaryHandler,
  type HandlerOptions,
} from './handlers.ts';
import type { Operations } from './kv-operations.ts';
import { unsupportedCondition } from './kv-requests.ts';
import { listKeys } from './list-keys.ts';
import { multiGet, multiPut, refuseReservedOfEach } from './multi.ts';
import type { Pipelines } from './pipeline.ts';
import { findReservedField, type ReservedFields } from './reserved-fields.ts';
import { scan } from './scan.ts';
import { watch } from './watch.ts';

/** What the public service needs. */
export interface KvServiceOptions {
  readonly replica: Pick<Replica, 'engine' | 'nodeId' | 'map'>;
  readonly operations: Operations;
  readonly pipelines: Pipelines;
  readonly softwareVersion: string;
  /** Makes a node-local snapshot; the signal says that nobody waits for it any more. */
  readonly snapshot: (signal: AbortSignal) => Promise<SnapshotResult>;
  readonly handlers: HandlerOptions;
}

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
  put: handWrittenMethod(
    KeyValueStoreService.put,
    (bytes) => ({ request: decodePutRequest(bytes) }),
    encodePutResponse,
  ),
  get: handWrittenMethod(
    KeyValueStoreService.get,
    (bytes) => {
      const { value, hasReserved } = decodeGetRequest(bytes);
      return hasReserved ? { refusal: unsupportedCondition() } : { request: value };
    },
    encodeGetResponse,
  ),
  delete: tolerantMethod(KeyValueStoreService.delete, withoutReserved(RESERVED.delete)),
  multiGet: tolerantMethod(KeyValueStoreService.multiGet, refuseReservedOfEach(RESERVED.get)),
  multiPut: tolerantMethod(KeyValueStoreService.multiPut, refuseReservedOfEach(RESERVED.put)),
  pipeline: bytesMethod(KeyValueStoreService.pipeline.path),
  listKeys: tolerantMethod(KeyValueStoreService.listKeys, withoutReserved(RESERVED.listKeys)),
  scan: tolerantMethod(KeyValueStoreService.scan, withoutReserved(RESERVED.scan)),
  watch: tolerantMethod(KeyValueStoreService.watch, withoutReserved(RESERVED.watch)),
  backup: tolerantMethod(KeyValueStoreService.backup),
  ping: tolerantMethod(KeyValueStoreService.ping),
  describeCluster: tolerantMethod(KeyValueStoreService.describeCluster),
} satisfies ServiceDefinition;

/** The implementation of `kvServiceDefinition`. */
export function createKvService(options: KvServiceOptions): UntypedServiceImplementation {
  const { replica, handlers, operations } = options;
  const { engine } = replica;
  return {
    put: unaryHandler(KeyValueStoreService.put.path, handlers, (request: PutRequest, context) =>
      operations.put(request, context),
    ),
    get: unaryHandler(KeyValueStoreService.get.path, handlers, (request: GetRequest, context) =>
      operations.get(request, context),
    ),
    delete: unaryHandler(KeyValueStoreService.delete.path, handlers, (request: DeleteRequest, context) =>
      operations.delete(request, context),
    ),
    multiGet: unaryHandler(
      KeyValueStoreService.multiGet.path,
      handlers,
      multiGet.bind(undefined, operations),
    ),
    multiPut: unaryHandler(
      KeyValueStoreService.multiPut.path,
      handlers,
      multiPut.bind(undefined, operations),
    ),
    pipeline: (call: ServerDuplexStream<Buffer, Buffer>) => options.pipelines.accept(call),
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
