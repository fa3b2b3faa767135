import { expect } from 'chai';
import type { Member } from '../../model/cluster-map.ts';
import { memberNamed } from './member.ts';

/** Node ids per partition, the preferred coordinator first. */
export type NamedPlacement = readonly (readonly string[])[];

/** How the members of a test lie in pods and zones. */
export interface Terrain {
  readonly workersPerPod: number;
  /** Zone of a pod; empty when unknown. */
  readonly zoneOfPod: (pod: number) => string;
}

/** Members `kv-0`, `kv-1`, ... where the terrain puts them. */
export function membersOn(count: number, { workersPerPod, zoneOfPod }: Terrain): readonly Member[] {
  return Array.from({ length: count }, (_, index) => {
    const pod = Math.floor(index / workersPerPod);
    return { ...memberNamed(`kv-${index}`), pod: `pod-${pod}`, zone: zoneOfPod(pod) };
  });
}

/** A placement by names, which stay when members come and go. */
export function named(
  members: readonly Member[],
  placement: readonly (readonly number[])[],
): readonly string[][] {
  return placement.map((set) => set.map((index) => members[index]!.nodeId));
}

/** Partitions per member, those that hold none included; names that are no members are left out. */
export function loadsOf(members: readonly Member[], placement: NamedPlacement): ReadonlyMap<string, number> {
  const loads = new Map(members.map(({ nodeId }) => [nodeId, 0]));
  for (const nodeId of placement.flat()) {
    const load = loads.get(nodeId);
    if (load !== undefined) loads.set(nodeId, load + 1);
  }
  return loads;
}

/** How many replicas have to be filled to get from one placement to another. */
export function movedReplicas(from: NamedPlacement, to: NamedPlacement): number {
  return to.reduce(
    (sum, set, partition) => sum + set.filter((nodeId) => !from[partition]!.includes(nodeId)).length,
    0,
  );
}

/**
 * No placement with these loads moves less: what members hold more of than before, and what partitions lack of which
 * members left. It may not be attainable.
 */
export function leastMoved(members: readonly Member[], from: NamedPlacement, to: NamedPlacement): number {
  const before = loadsOf(members, from);
  const loads = loadsOf(members, to);
  const gained = [...loads].map(([nodeId, load]) => Math.max(0, load - (before.get(nodeId) ?? 0)));
  const lacking = to.map((set, partition) =>
    Math.max(0, set.length - from[partition]!.filter((nodeId) => loads.has(nodeId)).length),
  );
  const sum = (counts: readonly number[]): number => counts.reduce((total, count) => total + count, 0);
  return Math.max(sum(gained), sum(lacking));
}

/** Largest minus smallest. */
export function spreadOf(counts: Iterable<number>): number {
  const all = [...counts];
  return Math.max(...all) - Math.min(...all);
}

/** Expects every rule of a placement that can be told from the placement alone. */
export function expectRules(
  members: readonly Member[],
  replicationFactor: number,
  placement: NamedPlacement,
): void {
  const active = members.filter(({ state }) => state === 'active');
  const pods = new Map(active.map(({ nodeId, pod }) => [nodeId, pod]));
  const zones = new Map(active.map(({ nodeId, zone }) => [nodeId, zone]));
  const podsOfZone = new Map<string, Set<string>>();
  for (const { zone, pod } of active) podsOfZone.set(zone, (podsOfZone.get(zone) ?? new Set()).add(pod));
  const copies = Math.min(replicationFactor, new Set(pods.values()).size);

  for (const [partition, set] of placement.entries()) {
    const where = `partition ${partition} on ${set.join(', ')}`;
    expect(
      set.filter((nodeId) => !pods.has(nodeId)),
      where,
    ).to.deep.equal([]);
    expect(set.length, where).to.equal(copies);
    expect(new Set(set.map((nodeId) => pods.get(nodeId))).size, where).to.equal(copies);
    const perZone = countsPerZone(set, zones);
    expect(perZone.size, `zones of ${where}`).to.equal(Math.min(copies, podsOfZone.size));
    for (const [zone, { size }] of podsOfZone) {
      const here = perZone.get(zone) ?? 0;
      if (here < size) expect(Math.max(...perZone.values()), `zones of ${where}`).to.be.at.most(here + 1);
    }
  }
  expectNoBetterBalance(active, placement, podsOfZone);
  expectNoBetterFirsts(placement);
}

/** Nobody could give a partition to somebody who holds two or more fewer. */
function expectNoBetterBalance(
  active: readonly Member[],
  placement: NamedPlacement,
  podsOfZone: ReadonlyMap<string, ReadonlySet<string>>,
): void {
  const loads = loadsOf(active, placement);
  if (spreadOf(loads.values()) < 2) return;
  const byName = new Map(active.map((member) => [member.nodeId, member]));
  const zones = new Map(active.map(({ nodeId, zone }) => [nodeId, zone]));
  for (const [partition, set] of placement.entries()) {
    const taken = new Set(set.map((nodeId) => byName.get(nodeId)!.pod));
    const perZone = countsPerZone(set, zones);
    for (const giver of set.map((nodeId) => byName.get(nodeId)!)) {
      for (const taker of active) {
        if (loads.get(giver.nodeId)! < loads.get(taker.nodeId)! + 2) continue;
        if (set.includes(taker.nodeId) || (taken.has(taker.pod) && taker.pod !== giver.pod)) continue;
        // The zones of a partition are as even as pods permit; a swap must leave them so.
        const after = new Map(perZone);
        after.set(giver.zone, perZone.get(giver.zone)! - 1);
        after.set(taker.zone, (after.get(taker.zone) ?? 0) + 1);
        const most = Math.max(...after.values());
        const isEven = [...podsOfZone].every(([zone, { size }]) => {
          const here = after.get(zone) ?? 0;
          return here >= size || most <= here + 1;
        });
        if (isEven) {
          expect.fail(
            `${giver.nodeId} could give partition ${partition} to ${taker.nodeId}, which holds less`,
          );
        }
      }
    }
  }
}

/** No preferred coordinator could leave a partition to another replica that is preferred two or more times less. */
function expectNoBetterFirsts(placement: NamedPlacement): void {
  const firsts = firstsOf(placement);
  for (const [partition, [first, ...others]] of placement.entries()) {
    for (const other of others) {
      expect(firsts.get(first!)!, `first of partition ${partition}`).to.be.at.most(
        (firsts.get(other) ?? 0) + 1,
      );
    }
  }
}

/** Per member, how many partitions prefer it as their coordinator. */
export function firstsOf(placement: NamedPlacement): ReadonlyMap<string, number> {
  const firsts = new Map<string, number>();
  for (const [first] of placement) firsts.set(first!, (firsts.get(first!) ?? 0) + 1);
  return firsts;
}

function countsPerZone(set: readonly string[], zones: ReadonlyMap<string, string>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const nodeId of set) {
    const zone = zones.get(nodeId)!;
    counts.set(zone, (counts.get(zone) ?? 0) + 1);
  }
  return counts;
}
