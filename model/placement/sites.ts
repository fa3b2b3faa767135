import type { Member } from '../cluster-map.ts';
import { compareNatural } from '../natural-order.ts';

/** How many replicas of one partition a zone takes. */
export interface ZoneBounds {
  /** Sites of the zone, ascending. */
  readonly sites: readonly number[];
  readonly least: number;
  readonly most: number;
}

/**
 * The members that may hold replicas, numbered in the natural order of their names, so that a placement does not depend
 * on the order in which members are given; with the failure domains that replicas are spread over.
 */
export interface Sites {
  readonly count: number;
  /** Per site, its index among the members given. */
  readonly memberIndexes: readonly number[];
  readonly siteOfName: ReadonlyMap<string, number>;
  /** Per site, its pod's number. */
  readonly podOf: readonly number[];
  readonly pods: number;
  /** Per site, its zone's number. */
  readonly zoneOf: readonly number[];
  readonly zones: readonly ZoneBounds[];
  /** Replicas of each partition: min(replication factor, distinct pods). */
  readonly copies: number;
}

/** The sites that active members make. */
export function sitesOf(members: readonly Member[], replicationFactor: number): Sites {
  const active = [...members.entries()]
    .filter(([, { state }]) => state === 'active')
    .toSorted(([, a], [, b]) => compareNatural(a.nodeId, b.nodeId));
  const pods = numbered(active.map(([, { pod }]) => pod));
  // A pod is in one zone, whatever its members say while its label is being learned.
  const zoneOfPod = new Map(active.toReversed().map(([, { pod, zone }]) => [pod, zone]));
  const zones = numbered(active.map(([, { pod }]) => zoneOfPod.get(pod) ?? ''));
  const copies = Math.min(replicationFactor, pods.count);
  return {
    count: active.length,
    memberIndexes: active.map(([index]) => index),
    siteOfName: new Map(active.map(([, { nodeId }], site) => [nodeId, site])),
    podOf: pods.of,
    pods: pods.count,
    zoneOf: zones.of,
    zones: boundsOf(zones, pods.of, copies),
    copies,
  };
}

interface Numbering {
  readonly of: readonly number[];
  readonly count: number;
}

function numbered(names: readonly string[]): Numbering {
  const numbers = new Map<string, number>();
  for (const name of names) if (!numbers.has(name)) numbers.set(name, numbers.size);
  return { of: names.map((name) => numbers.get(name) ?? 0), count: numbers.size };
}

/**
 * Replicas per zone as even as the pods of each zone permit: every zone has `level` of them or all its pods, and what is
 * left over goes to one more each. With more zones than copies that is at most one each, otherwise at least one.
 */
function boundsOf(zones: Numbering, podOf: readonly number[], copies: number): readonly ZoneBounds[] {
  const sites = Array.from({ length: zones.count }, (_, zone) =>
    [...zones.of.keys()].filter((site) => zones.of[site] === zone),
  );
  const pods = sites.map((members) => new Set(members.map((site) => podOf[site])).size);
  const taken = (level: number): number => pods.reduce((sum, count) => sum + Math.min(count, level), 0);
  let level = 0;
  while (level < copies && taken(level + 1) <= copies) level += 1;
  return sites.map((members, zone) => ({
    sites: members,
    least: Math.min(pods[zone] ?? 0, level),
    most: Math.min(pods[zone] ?? 0, level + 1),
  }));
}
