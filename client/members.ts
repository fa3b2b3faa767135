import { isIP } from 'node:net';
import { KvError, messageOf } from '../common/errors.ts';
import { newestMap } from '../model/bootstrap.ts';
import type { ClusterMap, Member } from '../model/cluster-map.ts';
import type { GetStatusResponse } from '../proto/gen/admin.ts';
import type { AdminClient, AdminTarget } from './admin-client.ts';
import { hostInService, membersOfService } from './headless-service.ts';

/** Where members are found before their map is known. */
export type MemberSeeds =
  | { readonly kind: 'list'; readonly targets: readonly AdminTarget[] }
  /** Full DNS name of the headless Service. */
  | { readonly kind: 'service'; readonly service: string };

/** A member and what it says of itself, or why it says nothing. */
export interface MemberReport {
  readonly target: AdminTarget;
  readonly status: GetStatusResponse | undefined;
  readonly error: Error | undefined;
}

/**
 * The members that the seeds name.
 *
 * @throws KvError UNAVAILABLE when the Service has no records (yet).
 */
export async function locateSeeds(seeds: MemberSeeds): Promise<readonly AdminTarget[]> {
  if (seeds.kind === 'list') return seeds.targets;
  try {
    const members = await membersOfService(seeds.service);
    return members.map(({ nodeId, host, port }) => ({ nodeId, address: `${host}:${port}` }));
  } catch (error) {
    const message = `the Service ${seeds.service} names no member (${messageOf(error)})`;
    throw new KvError('UNAVAILABLE', message, { cause: error });
  }
}

/** Where a member's admin service is: its map entry names a host within the Service, or an address. */
export function targetOf(member: Member, seeds: MemberSeeds): AdminTarget {
  const host = seeds.kind === 'service' ? hostInService(member.host, seeds.service) : member.host;
  const address = isIP(host) === 6 ? `[${host}]:${member.peerPort}` : `${host}:${member.peerPort}`;
  return { nodeId: member.nodeId, address };
}

/**
 * The newest map that any seed holds.
 *
 * @throws KvError UNAVAILABLE when no seed answers or none has a map, naming what each said; FAILED_PRECONDITION when
 * two maps of one epoch, or of two clusters, are about.
 */
export async function findMap(
  admin: AdminClient,
  seeds: MemberSeeds,
  signal: AbortSignal,
): Promise<ClusterMap> {
  const targets = await locateSeeds(seeds);
  const answers = await Promise.allSettled(targets.map((target) => admin.getMap(target, signal)));
  signal.throwIfAborted();
  const maps = answers.flatMap((answer) => (answer.status === 'fulfilled' ? (answer.value ?? []) : []));
  if (new Set(maps.map(({ clusterId }) => clusterId)).size > 1) {
    throw new KvError('FAILED_PRECONDITION', 'the members belong to different clusters');
  }
  const newest = newestMap(maps);
  if (newest === 'conflict') {
    throw new KvError('FAILED_PRECONDITION', 'two different cluster maps carry the same epoch');
  }
  if (newest !== undefined) return newest;
  throw noMap(targets, answers);
}

function noMap(targets: readonly AdminTarget[], answers: readonly PromiseSettledResult<unknown>[]): KvError {
  const reasons = targets.map(({ nodeId, address }, index) => {
    const answer = answers[index];
    const why = answer?.status === 'rejected' ? messageOf(answer.reason) : 'it has no map';
    return `${nodeId} at ${address}: ${why}`;
  });
  const refused = answers.find(
    ({ status, ...answer }) =>
      status === 'rejected' &&
      'reason' in answer &&
      answer.reason instanceof KvError &&
      answer.reason.code === 'UNAUTHENTICATED',
  );
  const code = refused === undefined ? 'UNAVAILABLE' : 'UNAUTHENTICATED';
  return new KvError(code, `no member has a cluster map (${reasons.join('; ')})`);
}

/** What every member says of itself, in the order of the map. */
export async function askMembers(
  admin: AdminClient,
  map: ClusterMap,
  seeds: MemberSeeds,
  signal: AbortSignal,
): Promise<readonly MemberReport[]> {
  const targets = map.members.map((member) => targetOf(member, seeds));
  const answers = await Promise.allSettled(targets.map((target) => admin.status(target, signal)));
  signal.throwIfAborted();
  return targets.map((target, index) => {
    const answer = answers[index];
    if (answer?.status === 'fulfilled') return { target, status: answer.value, error: undefined };
    const error = answer?.reason instanceof Error ? answer.reason : new Error('not asked');
    return { target, status: undefined, error };
  });
}
