import { mapFromProto, mapToProto } from '../../client/cluster-map-codec.ts';
import type { Clock } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { hashMatches } from '../../model/cluster-map.ts';
import {
  AdminService,
  type ForceActivateRequest,
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
import { hasMoreElements, shapeOf } from '../../common/message-elements.ts';
import { checkRecordsRequest } from './records-request.ts';

export interface AdminServiceOptions {
  readonly replica: Pick<Replica, 'map' | 'proposeMap' | 'status' | 'streamRecords' | 'forceActivate'>;
  readonly softwareVersion: string;
  /** Number of hash partitions. */
  readonly partitions: number;
  readonly clock: Clock;
  /** Of the volume of the data directory. */
  readonly diskSpace: () => Promise<DiskSpace>;
  /** Why /readyz says no; undefined when it says yes. */
  readonly notReadyReason: () => string | undefined;
  /** `admit` checks the callers' proofs. */
  readonly handlers: HandlerOptions;
  /** Told of maps that were proposed and not taken. */
  readonly refused: (path: string, reason: string) => void;
}

/** Members, retired ones, an assignment and a move for each of 65,536 partitions. */
const MAX_MAP_ELEMENTS = 200_000;
const PROPOSAL_SHAPE = shapeOf({ 1: shapeOf([12]) });

/** kvcluster.admin.Admin. */
export const adminServiceDefinition = {
  getStatus: tolerantMethod(AdminService.getStatus),
  getMap: tolerantMethod(AdminService.getMap),
  proposeMap: tolerantMethod(AdminService.proposeMap, (bytes) =>
    hasMoreElements(bytes, PROPOSAL_SHAPE, MAX_MAP_ELEMENTS)
      ? new KvError('INVALID_ARGUMENT', `bad cluster map: it has more than ${MAX_MAP_ELEMENTS} elements`)
      : undefined,
  ),
  streamRecords: tolerantMethod(AdminService.streamRecords),
  forceActivate: tolerantMethod(AdminService.forceActivate),
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
    proposeMap: unaryHandler(AdminService.proposeMap.path, handlers, async (request: ProposeMapRequest) => {
      const answer = await proposeMap(replica, request);
      if (!answer.accepted) options.refused(AdminService.proposeMap.path, 'map-not-taken');
      return answer;
    }),
    forceActivate: unaryHandler(
      AdminService.forceActivate.path,
      handlers,
      async ({ dryRun }: ForceActivateRequest) => {
        const partitions = await replica.forceActivate(dryRun);
        return { partitions: [...partitions], consequence: consequenceOf(partitions.length) };
      },
    ),
    streamRecords: streamHandler<StreamRecordsRequest, RecordsChunk>(
      AdminService.streamRecords.path,
      handlers,
      ({ after, partitions }, { signal }) => {
        checkRecordsRequest({ after, partitions }, options.partitions);
        return replica.streamRecords({ header: undefined, after, partitions }, signal);
      },
    ),
  };
}

function consequenceOf(partitions: number): string {
  return partitions === 0
    ? 'every partition that this node holds is readable already: nothing is lost'
    : `${partitions} partitions serve what this node has of them: writes that were acknowledged only by replicas that ` +
        'did not come back are lost, and keys deleted there may come back';
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
  replica: Pick<Replica, 'map' | 'proposeMap'>,
  request: ProposeMapRequest,
): Promise<ProposeMapResponse> {
  if (request.map === undefined) throw new KvError('INVALID_ARGUMENT', 'map is missing');
  const map = mapFromProto(request.map);
  if (!hashMatches(map)) {
    throw new KvError('INVALID_ARGUMENT', 'bad cluster map: its hash is not the hash of its content');
  }
  const held = replica.map;
  if (held?.epoch === request.expectedEpoch && held.hash !== request.expectedHash) {
    // The proposal follows another map of the epoch that is held here: two writers, and this one is not to be followed.
    const message = `epoch ${held.epoch} has hash ${held.hash} here, not the expected ${request.expectedHash}`;
    return { accepted: false, epoch: held.epoch, hash: held.hash, message };
  }
  return replica.proposeMap(map, { epoch: request.expectedEpoch, hash: request.expectedHash });
}
