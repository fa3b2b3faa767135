import type { ClusterMap, Member } from '../cluster-map.ts';
import { canonicalJson } from '../cluster-map.ts';
import { compareNatural } from '../natural-order.ts';
import { hasTaken, type MemberReport, type Reports } from './reports.ts';

/** A member as it shall be; its state is the map's business. */
export type WantedMember = Omit<Member, 'state'>;

/** What the cluster shall be. */
export interface DesiredCluster {
  /** Everybody who shall hold data. */
  readonly members: readonly WantedMember[];
  readonly replicationFactor: number;
  /** Partitions that move at once at most. @default 64 */
  readonly batchPartitions?: number | undefined;
}

/** How the members of a map have to change, and why. */
export interface MemberChange {
  readonly members: readonly Member[];
  readonly reasons: readonly string[];
}

/** Whether everybody who is wanted is in the map: before that nobody may leave, or there would be fewer copies meanwhile. */
export function isComplete(map: ClusterMap, desired: DesiredCluster): boolean {
  return absentees(map, desired).length === 0;
}

/** Wanted members that the map does not list. */
export function absentees(map: ClusterMap, { members }: DesiredCluster): readonly WantedMember[] {
  const listed = new Set(map.members.map(({ nodeId }) => nodeId));
  return members.filter(({ nodeId }) => !listed.has(nodeId));
}

/** The members of the map as they shall be now; no reasons when nothing changes. None of it moves any data. */
export function changeMembers(map: ClusterMap, desired: DesiredCluster, reports: Reports): MemberChange {
  const wanted = new Map(desired.members.map((member) => [member.nodeId, member]));
  // Who cannot be asked is not let in: the next barrier would wait for it.
  const joining = absentees(map, desired).filter(({ nodeId }) => reports.has(nodeId));
  const mayLeave = joining.length === absentees(map, desired).length;
  const reasons = joining.map(({ nodeId }) => `${nodeId} joins`);
  const staying = map.members.map((member) => {
    const wish = wanted.get(member.nodeId);
    const isBack = member.state === 'down' && hasTaken(map, reports.get(member.nodeId));
    const next: Member = { ...member, ...wish, state: stateOf(member, wish !== undefined, isBack, mayLeave) };
    reasons.push(...differencesOf(member, next));
    return next;
  });
  const members = [...staying, ...joining.map((member): Member => ({ ...member, state: 'active' }))];
  return { members: members.toSorted((a, b) => compareNatural(a.nodeId, b.nodeId)), reasons };
}

function stateOf({ state }: Member, isWanted: boolean, isBack: boolean, mayLeave: boolean): Member['state'] {
  if (state === 'down' && !isBack) return 'down';
  if (isWanted) return 'active';
  return mayLeave || state === 'draining' ? 'draining' : 'active';
}

function differencesOf(before: Member, after: Member): readonly string[] {
  const { nodeId } = before;
  const reasons: string[] = [];
  if (before.state === 'down' && after.state !== 'down') reasons.push(`${nodeId} is back`);
  else if (after.state === 'draining' && before.state !== 'draining') reasons.push(`${nodeId} leaves`);
  else if (before.state !== after.state) reasons.push(`${nodeId} stays`);
  if (canonicalJson({ ...before, state: after.state }) !== canonicalJson(after)) {
    reasons.push(`${nodeId} has another address, zone or pod`);
  }
  return reasons;
}

/** Every incarnation of a member that anybody who answers knows of. */
export function incarnationsOf(nodeId: string, reports: Reports): readonly number[] {
  const known = [...reports].map(([reporter, report]) => knownOf(nodeId, reporter, report));
  return [...new Set(known)].filter((incarnation) => incarnation !== 0);
}

function knownOf(nodeId: string, reporter: string, report: MemberReport): number {
  return reporter === nodeId ? report.incarnation : (report.peerIncarnations?.get(nodeId) ?? 0);
}
