import type { Draft, Swap } from './draft.ts';

/**
 * Gives partitions that lack replicas the sites with most room, in an order that scatters who is together with whom. What
 * zones need at the least comes first: the sites of a small zone would else have no room left for the last partitions.
 */
export function fill(draft: Draft, shares: Int32Array): void {
  const { zones, copies } = draft.sites;
  const everybody = [...shares.keys()];
  for (const partition of draft.sets.keys()) {
    for (const [zone, { sites, least }] of zones.entries()) {
      while (draft.zoneCount(partition, zone) < least) addRoomiest(draft, shares, partition, sites);
    }
  }
  for (const [partition, set] of draft.sets.entries()) {
    while (set.length < copies) addRoomiest(draft, shares, partition, everybody);
  }
}

function addRoomiest(
  draft: Draft,
  shares: Int32Array,
  partition: number,
  candidates: readonly number[],
): void {
  let best: number | undefined;
  let bestRank = -Infinity;
  for (const site of candidates) {
    const room = (shares[site] ?? 0) - (draft.loads[site] ?? 0);
    const rank = room + scatter(partition, site);
    if (rank <= bestRank || !draft.canAdd(partition, site)) continue;
    best = site;
    bestRank = rank;
  }
  // A set that is short and keeps the rules can always be completed: pods and zones are nested.
  if (best === undefined) throw new Error(`no member may hold partition ${partition}`);
  draft.add(partition, best);
}

/** A number in [0, 1), the same for the same pair: ties go to other sites for other partitions. */
function scatter(partition: number, site: number): number {
  let hash = Math.imul(partition + 1, 0x9e3779b1) ^ Math.imul(site + 1, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  hash = Math.imul(hash ^ (hash >>> 13), 0x297a2d39);
  return ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32;
}

/**
 * Hands replicas on until every site has its share, without movement as far as that is found.
 *
 * @param lacking how many replicas have to be added at the least, all in all: while what is left to hand on fits into it,
 * no roundabout way without movement is looked for
 */
export function balance(draft: Draft, shares: Int32Array, lacking: number): void {
  const passing = new Passing(draft, shares);
  let givenUp = 0;
  for (let site = 0; site < draft.sites.count; site += 1) {
    passing.handOver(site, 0);
    while (passing.isOver(site) && draft.added + passing.surplus() > lacking + givenUp) {
      if (!passing.handAlong(site, 0)) givenUp += 1;
    }
    passing.handOver(site, 1);
    while (passing.isOver(site) && passing.handAlong(site, 1)) continue;
  }
}

/** Ranks between two costs: how many replicas of a partition may change before that no longer counts. */
const RANKS_PER_COST = 8;

/** Replicas on their way from sites above their shares to those below. */
class Passing {
  private readonly draft: Draft;
  private readonly shares: Int32Array;
  private readonly everybody: readonly number[];
  private takers: readonly number[];

  constructor(draft: Draft, shares: Int32Array) {
    this.draft = draft;
    this.shares = shares;
    this.everybody = [...shares.keys()];
    this.takers = this.everybody.filter((site) => this.excess(site) < 0);
  }

  isOver(site: number): boolean {
    return this.excess(site) > 0;
  }

  /** Replicas above shares, all sites together. */
  surplus(): number {
    return this.everybody.reduce((sum, site) => sum + Math.max(0, this.excess(site)), 0);
  }

  /**
   * Moves replicas from a site straight to takers, at most at this cost each: first those that save movement, and first
   * those of partitions whose other replicas stay.
   */
  handOver(from: number, mostCost: 0 | 1): void {
    const { draft } = this;
    for (let rank = -RANKS_PER_COST; rank < (mostCost + 1) * RANKS_PER_COST; rank += 1) {
      if (rank < 0 && draft.addedAt(from) === 0) continue;
      for (const partition of [...(draft.heldBy[from] ?? [])]) {
        if (!this.isOver(from)) return;
        const leaving = draft.wasHeld(partition, from) ? RANKS_PER_COST : 0;
        const own = leaving + Math.min(draft.addedTo(partition), RANKS_PER_COST - 1);
        if (own !== rank && own - RANKS_PER_COST !== rank) continue;
        const to = this.takerOf(partition, from, own !== rank);
        if (to !== undefined) this.swapAll([{ partition, from, to }]);
      }
    }
  }

  /**
   * Moves one replica from a site to a taker over the fewest sites in between, by swaps that cost at most so much each.
   * Swaps of a shortest way do not get in each other's way even where they concern one partition, unless a shorter one
   * was too expensive.
   */
  handAlong(first: number, mostCost: 0 | 1): boolean {
    const { draft } = this;
    const ends = new Set(this.takers);
    const returning = this.everybody.filter((site) => draft.lostAt(site) > 0);
    const reached = new Map<number, Swap | undefined>([[first, undefined]]);
    for (const from of reached.keys()) {
      if (mostCost === 0 && returning.length === 0 && draft.addedAt(from) === 0) continue;
      for (const partition of draft.heldBy[from] ?? []) {
        const isFree = mostCost === 1 || !draft.wasHeld(partition, from);
        for (const to of isFree ? this.everybody : returning) {
          if (reached.has(to) || !(isFree || draft.wasHeld(partition, to))) continue;
          const swap = { partition, from, to };
          if (!draft.canSwap(swap)) continue;
          reached.set(to, swap);
          if (ends.has(to)) return this.swapAll(wayTo(to, reached));
        }
      }
    }
    return false;
  }

  private excess(site: number): number {
    return (this.draft.loads[site] ?? 0) - (this.shares[site] ?? 0);
  }

  private takerOf(partition: number, from: number, mustReturn: boolean): number | undefined {
    const start = Math.floor(scatter(partition, from) * this.takers.length);
    for (let step = 0; step < this.takers.length; step += 1) {
      const to = this.takers[(start + step) % this.takers.length] ?? from;
      if (mustReturn && !this.draft.wasHeld(partition, to)) continue;
      if (this.draft.canSwap({ partition, from, to })) return to;
    }
    return undefined;
  }

  private swapAll(swaps: readonly Swap[]): boolean {
    const isDone = this.draft.swapAll(swaps) === undefined;
    if (this.takers.some((site) => this.excess(site) >= 0)) {
      this.takers = this.takers.filter((site) => this.excess(site) < 0);
    }
    return isDone;
  }
}

/** The last swap first: each makes room for the one before it. */
function wayTo(end: number, reached: ReadonlyMap<number, Swap | undefined>): readonly Swap[] {
  const way: Swap[] = [];
  for (let swap = reached.get(end); swap !== undefined; swap = reached.get(swap.from)) way.push(swap);
  return way;
}
