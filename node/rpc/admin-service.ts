import { mapFromProto, mapToProto } from '../../client/cluster-map-codec.ts';
import type { Clock } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { hashMatches } from '../../model/cluster-map.ts';
import {
  AdminService,
  type GetStatusResponse,
  type ProposeMapRequest,
  type ProposeMapResponse,
  type StreamRecordsRequest,
} from '../../proto/gen/admin.ts';
import type { RecordsChunk } from '../../proto/gen/peer.ts';
import type { DiskSpace } from '../backup/snapshot-directory.ts';
import type { Replica } from '../replication/engine.ts';
import type { ServiceDefinition, UntypedServiceImplementation } from './grpc.ts';
import { streamHandler, tolerantMethod, unaryHandler, type HandlerOptions } from './handlers.ts';

export interface AdminServiceOptions {
  readonly replica: Pick<Replica, 'map' | 'proposeMap' | 'status' | 'streamRecords'>;
  readonly softwareVersion: string;
  readonly clock: Clock;
  /** Of the volume of the data directory. */
  readonly diskSpace: () => Promise<DiskSpace>;
  /** Why /readyz says no; undefined when it says yes. */
  readonly notReadyReason: () => string | undefined;
  /** `admit` checks the callers' proofs. */
  readonly handlers: HandlerOptions;
}

/** kvcluster.admin.Admin. */
export const adminServiceDefinition = {
  getStatus: tolerantMethod(AdminService.getStatus),
  getMap: tolerantMethod(AdminService.getMap),
  proposeMap: tolerantMethod(AdminService.proposeMap),
  streamRecords: tolerantMethod(AdminService.streamRecords),
} satisfies ServiceDefinition;

/** The implementation of `adminServiceDefinition`. */
export function createAdminService(options: AdminServiceOptions): UntypedServiceImplementation {
  const { handlers, replica } = options;
  const startedMs = options.clock.monotonicMs();
  return {
    getStatus: unaryHandler(AdminService.getStatus.path, handlers, () => status(options, startedMs)),
    getMap: unaryHandler(AdminService.getMap.path, handlers, () => {
      const { map } = replica;
      return Promise.resolve(map === undefined ? { found: false } : { found: true, map: mapToProto(map) });
    }),
    proposeMap: unaryHandler(AdminService.proposeMap.path, handlers, (request: ProposeMapRequest) =>
      proposeMap(replica, request),
    ),
    streamRecords: streamHandler<StreamRecordsRequest, RecordsChunk>(
      AdminService.streamRecords.path,
      handlers,
      ({ after, partitions }, { signal }) =>
        replica.streamRecords({ header: undefined, after, partitions }, signal),
    ),
  };
}

async function status(options: AdminServiceOptions, startedMs: number): Promise<GetStatusResponse> {
  const { freeBytes, totalBytes } = await options.diskSpace();
  const notReadyReason = options.notReadyReason();
  return {
    ...options.replica.status(),
    ready: notReadyReason === undefined,
    notReadyReason: notReadyReason ?? '',
    diskFreeBytes: freeBytes,
    diskTotalBytes: totalBytes,
    version: options.softwareVersion,
    uptimeMs: Math.round(options.clock.monotonicMs() - startedMs),
  };
}

async function proposeMap(
  replica: Pick<Replica, 'proposeMap'>,
  request: ProposeMapRequest,
): Promise<ProposeMapResponse> {
  if (request.map === undefined) throw new KvError('INVALID_ARGUMENT', 'map is missing');
  const map = mapFromProto(request.map);
  if (!hashMatches(map)) {
    throw new KvError('INVALID_ARGUMENT', 'bad cluster map: its hash is not the hash of its content');
  }
  return replica.proposeMap(map, { epoch: request.expectedEpoch, hash: request.expectedHash });
}
