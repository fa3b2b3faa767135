import type { ClusterMap } from '../../../model/cluster-map.ts';
import { movingOwners, replicaSets } from '../../../model/replica-sets.ts';
import type { PartitionSet } from '../../cluster/partition-set.ts';
import type { SafetyRules } from '../safety-rules.ts';
import type { Label } from './label.ts';

/** What a member says of itself in a heartbeat, and this node in its own. */
export interface HorizonReport {
  /** 0: not known. */
  readonly lowWaterMs: number;
  /** Empty: not known. */
  readonly label: Buffer;
  /** Partitions of which it has completed comparisons with all other replicas, begun under that label. */
  readonly settled: PartitionSet;
}

/** A member as this node sees it. */
export type MemberView =
  | { readonly kind: 'heard'; readonly report: HorizonReport }
  /** No heartbeat in time; `sinceMs` in milliseconds since 1970, undefined: not since this node started. */
  | { readonly kind: 'silent'; readonly sinceMs: number | undefined };

/** What the horizons are decided from. */
export interface CollectionView {
  readonly nodeId: string;
  readonly map: ClusterMap;
  readonly label: Label;
  readonly member: (nodeId: string) => MemberView;
  readonly wallMs: number;
  /** The wall clock of the member that is ahead of all, milliseconds since 1970. */
  readonly latestWallMs: number;
  readonly ageMs: number;
  readonly stepMs: number;
  readonly slowMs: number;
  readonly rules: SafetyRules;
}

/**
 * - `disconnected`, `unknown`: something is not known of a member.
 * - `unacknowledged`: what a member wrote some time ago is not at all replicas yet.
 * - `moving`: the partition is part of the map's move.
 * - `unsettled`: a replica has yet to compare the partition with the others.
 */
export type FreezeKind = 'disconnected' | 'unknown' | 'unacknowledged' | 'moving' | 'unsettled';

export const FREEZE_KINDS: readonly FreezeKind[] = [
  'disconnected',
  'unknown',
  'unacknowledged',
  'moving',
  'unsettled',
];

/** Why a horizon stands still, and which member is the reason. */
export interface Freeze {
  readonly kind: FreezeKind;
  readonly member: string | undefined;
  /** For a person. */
  readonly why: string;
}

export interface CollectionVerdict {
  /** How far the horizon of every partition may rise that is not frozen, milliseconds. */
  readonly targetMs: number;
  /** Every lower version of a partition that is not frozen is held by all its replicas, milliseconds; 0: not known. */
  readonly lowWaterMs: number;
  /** Undefined when the partition's horizon may rise to the target. Only for partitions that this node holds. */
  readonly freezeOf: (partition: number) => Freeze | undefined;
  /** What keeps the target itself back, although nothing is frozen. */
  readonly slow: Freeze | undefined;
}

/** Decides how far the horizons of the partitions held here may rise (PROTOCOL 22, 23). */
export function judgeCollection(view: CollectionView): CollectionVerdict {
  const { map, ageMs, stepMs, slowMs, wallMs } = view;
  let lowest = { member: '', lowWaterMs: Infinity };
  // Asked once of each: what the node itself has to say takes a look at all partitions.
  const views = new Map(map.members.map(({ nodeId }) => [nodeId, view.member(nodeId)]));
  for (const [nodeId, member] of views) {
    if (member.kind === 'silent') return frozen(disconnected(nodeId, member.sinceMs));
    const { lowWaterMs } = member.report;
    if (lowWaterMs < lowest.lowWaterMs) lowest = { member: nodeId, lowWaterMs };
  }
  if (lowest.lowWaterMs === 0) return frozen(unacknowledged(lowest.member, undefined));
  // Versions run ahead of the wall clock, by as much as a ceiling does after a start; what expires goes by the wall clock.
  const passedMs = Math.min(lowest.lowWaterMs, view.latestWallMs);
  // In steps, so that replicas choose the same horizon and what they have collected does not tell them apart.
  const reached = (passedMs - ageMs) / stepMs;
  const targetMs = Number.isFinite(reached) ? Math.max(0, Math.floor(reached) * stepMs) : 0;
  const slow =
    wallMs - lowest.lowWaterMs > slowMs ? unacknowledged(lowest.member, lowest.lowWaterMs) : undefined;
  const { lowWaterMs } = lowest;
  const known = { ...view, member: (nodeId: string) => views.get(nodeId) ?? view.member(nodeId) };
  return { targetMs, lowWaterMs, slow, freezeOf: (partition) => freezeOf(known, partition) };
}

function freezeOf(view: CollectionView, partition: number): Freeze | undefined {
  const { map, nodeId, label, member, rules } = view;
  if (movingOwners(map, partition) !== undefined) {
    return { kind: 'moving', member: undefined, why: 'the partition moves' };
  }
  if (!rules.freezeAfterNewIncarnation) return undefined;
  if (label.kind === 'unknown') {
    return { kind: 'unknown', member: label.member, why: `${label.member} ${label.why}` };
  }
  // This node first: what it has not compared itself, it should not blame on others.
  const { holders } = replicaSets(map, partition);
  for (const holder of [nodeId, ...holders.filter((other) => other !== nodeId)]) {
    const view = member(holder);
    if (view.kind === 'silent') return disconnected(holder, view.sinceMs);
    if (!view.report.label.equals(label.bytes)) {
      const why = `${holder} does not know the same map and volumes of members yet`;
      return { kind: 'unsettled', member: holder, why };
    }
    if (!view.report.settled.has(partition)) {
      const why = `${holder} has yet to compare it with all other replicas, since the last change of a member`;
      return { kind: 'unsettled', member: holder, why };
    }
  }
  return undefined;
}

function frozen(freeze: Freeze): CollectionVerdict {
  return { targetMs: 0, lowWaterMs: 0, slow: undefined, freezeOf: () => freeze };
}

function disconnected(member: string, sinceMs: number | undefined): Freeze {
  const since = sinceMs === undefined ? 'this node started' : new Date(sinceMs).toISOString();
  return { kind: 'disconnected', member, why: `${member} is not connected since ${since}` };
}

function unacknowledged(member: string, lowWaterMs: number | undefined): Freeze {
  const since = lowWaterMs === undefined ? 'its start' : new Date(lowWaterMs).toISOString();
  const why = `not every replica has acknowledged what ${member} wrote since ${since}`;
  return { kind: 'unacknowledged', member, why };
}
