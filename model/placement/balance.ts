import type { Draft } from './draft.ts';

/** Gives partitions that lack replicas the sites with most room, in an order that scatters who is together with whom. */
export function fill(draft: Draft, shares: Int32Array): void {
  for (const [partition, set] of draft.sets.entries()) {
    while (set.length < draft.sites.copies) {
      const site = roomiest(draft, shares, partition);
      if (site === undefined) return;
      draft.add(partition, site);
    }
  }
}

function roomiest(draft: Draft, shares: Int32Array, partition: number): number | undefined {
  let best: number | undefined;
  let bestRank = -Infinity;
  for (let site = 0; site < draft.sites.count; site += 1) {
    // What was held before comes back free of cost, as far as there is room.
    const room = (shares[site] ?? 0) - (draft.loads[site] ?? 0);
    const rank = room + scatter(partition, site);
    if (rank > bestRank && draft.canAdd(partition, site)) {
      best = site;
      bestRank = rank;
    }
  }
  return best;
}

/** A number in [0, 1), the same for the same pair: ties go to other sites for other partitions. */
function scatter(partition: number, site: number): number {
  let hash = Math.imul(partition + 1, 0x9e3779b1) ^ Math.imul(site + 1, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  hash = Math.imul(hash ^ (hash >>> 13), 0x297a2d39);
  return ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32;
}

/** Hands replicas on until every site has its share. */
export function balance(draft: Draft, shares: Int32Array): void {
  for (let site = 0; site < draft.sites.count; site += 1) {
    while ((draft.loads[site] ?? 0) > (shares[site] ?? 0)) {
      if (!handOver(draft, shares, site) && !handAlong(draft, shares, site)) break;
    }
  }
}

/**
 * Moves one replica from a site to one below its share: rather one that costs no movement, and rather of a partition
 * whose other replicas stay.
 */
function handOver(draft: Draft, shares: Int32Array, from: number): boolean {
  const takers = [...draft.loads.keys()].filter((site) => (draft.loads[site] ?? 0) < (shares[site] ?? 0));
  const returning = takers.filter((site) => draft.lost(site) > 0);
  let best: Step | undefined;
  let bestRank = Infinity;
  for (const partition of draft.heldBy[from] ?? []) {
    const leaving = draft.wasHeld(partition, from) ? RANKS_PER_COST : 0;
    const rank = leaving + Math.min(draft.addedTo(partition), RANKS_PER_COST - 1);
    const cheapest = rank - (returning.length > 0 ? RANKS_PER_COST : 0);
    if (cheapest >= bestRank) continue;
    const back = returning.find((to) => draft.wasHeld(partition, to) && draft.canSwap(partition, from, to));
    const to = back ?? firstTaker(draft, takers, partition, from);
    const found = back === undefined ? rank : cheapest;
    if (to === undefined || found >= bestRank) continue;
    best = { partition, from, to };
    bestRank = found;
  }
  if (best === undefined) return false;
  draft.swap(best.partition, best.from, best.to);
  return true;
}

/** Ranks between two costs: how many replicas of a partition may change before that no longer counts. */
const RANKS_PER_COST = 8;

function firstTaker(
  draft: Draft,
  takers: readonly number[],
  partition: number,
  from: number,
): number | undefined {
  const start = Math.floor(scatter(partition, from) * takers.length);
  for (let step = 0; step < takers.length; step += 1) {
    const to = takers[(start + step) % takers.length];
    if (to !== undefined && draft.canSwap(partition, from, to)) return to;
  }
  return undefined;
}

interface Step {
  readonly partition: number;
  readonly from: number;
  readonly to: number;
}

/**
 * Moves one replica from a site to one below its share over the fewest sites in between. Because the way is a shortest
 * one, its swaps do not get in each other's way even where they concern one partition.
 */
function handAlong(draft: Draft, shares: Int32Array, first: number): boolean {
  const reached = new Map<number, Step | undefined>([[first, undefined]]);
  for (const from of reached.keys()) {
    for (const partition of draft.heldBy[from] ?? []) {
      for (let to = 0; to < draft.sites.count; to += 1) {
        if (reached.has(to) || !draft.canSwap(partition, from, to)) continue;
        reached.set(to, { partition, from, to });
        if ((draft.loads[to] ?? 0) >= (shares[to] ?? 0)) continue;
        for (let step = reached.get(to); step !== undefined; step = reached.get(step.from)) {
          draft.swap(step.partition, step.from, step.to);
        }
        return true;
      }
    }
  }
  return false;
}
