import type { Draft } from './draft.ts';

interface Exchange {
  readonly from: number;
  readonly to: number;
  /** Whose replica is handed over; undefined when the two only swap the sizes of their shares. */
  readonly partition: number | undefined;
}

/**
 * Exchanges replicas in rings that leave the placement as balanced and save movement, until there are none: the movement
 * is then the least possible (no negative cycle: Klein, "A primal method for minimal cost flows", 1967).
 */
export function improve(draft: Draft): void {
  for (;;) {
    const exchanges = new CheapestExchanges(draft);
    let saved = false;
    // Most of what was found to be possible still is after a ring, and finding it all anew is the larger part of the work.
    for (let ring = exchanges.savingRing(); ring !== undefined; ring = exchanges.savingRing()) {
      const hindered = exchange(draft, ring);
      if (hindered === undefined) saved = true;
      else exchanges.forget(hindered);
    }
    if (!saved) return;
  }
}

/** Makes all exchanges of a ring; or none, and gives the one that is not possible. */
function exchange(draft: Draft, ring: readonly Exchange[]): Exchange | undefined {
  const outdated = ring.find(
    ({ partition, from, to }) => partition === undefined && !differByOne(draft, to, from),
  );
  const swaps = ring.flatMap(({ partition, from, to }) =>
    partition === undefined ? [] : [{ partition, from, to }],
  );
  return outdated ?? draft.swapAll(swaps);
}

/** Then the one that holds one replica more may as well be the other. */
function differByOne(draft: Draft, more: number, less: number): boolean {
  return draft.loads[more] === (draft.loads[less] ?? 0) + 1;
}

const NO_PARTITION = -1;
/** More than any way of exchanges costs. */
const IMPOSSIBLE = 2 ** 20;

/** The cheapest exchange from each site to each other, as the draft was when this was made. */
class CheapestExchanges {
  private readonly count: number;
  /** From site times the number of sites plus to site. */
  private readonly costs: Int32Array;
  private readonly partitions: Int32Array;

  constructor(draft: Draft) {
    this.count = draft.sites.count;
    this.costs = new Int32Array(this.count ** 2).fill(IMPOSSIBLE);
    this.partitions = new Int32Array(this.count ** 2).fill(NO_PARTITION);
    for (const [partition, set] of draft.sets.entries()) {
      for (const from of set) this.offer(draft, partition, from);
    }
    for (let more = 0; more < this.count; more += 1) {
      for (let less = 0; less < this.count; less += 1) {
        const at = less * this.count + more;
        if ((this.costs[at] ?? 0) <= 0 || !differByOne(draft, more, less)) continue;
        this.costs[at] = 0;
        this.partitions[at] = NO_PARTITION;
      }
    }
  }

  forget({ from, to }: Pick<Exchange, 'from' | 'to'>): void {
    this.costs[from * this.count + to] = IMPOSSIBLE;
  }

  /** A ring of exchanges whose costs sum to less than nothing, found as a negative cycle (Bellman and Ford). */
  savingRing(): readonly Exchange[] | undefined {
    const distances = new Int32Array(this.count);
    const parents = new Int32Array(this.count).fill(-1);
    while (this.lower(distances, parents)) {
      const site = onRing(parents);
      if (site !== undefined) return this.ringThrough(site, parents);
    }
    return undefined;
  }

  private offer(draft: Draft, partition: number, from: number): void {
    for (let to = 0; to < this.count; to += 1) {
      const at = from * this.count + to;
      const swap = { partition, from, to };
      const cost = draft.swapCost(swap);
      if (cost >= (this.costs[at] ?? 0) || !draft.canSwap(swap)) continue;
      this.costs[at] = cost;
      this.partitions[at] = partition;
    }
  }

  private lower(distances: Int32Array, parents: Int32Array): boolean {
    let lowered = false;
    for (let from = 0; from < this.count; from += 1) {
      const distance = distances[from] ?? 0;
      for (let to = 0; to < this.count; to += 1) {
        const reached = distance + (this.costs[from * this.count + to] ?? 0);
        if (reached >= (distances[to] ?? 0)) continue;
        distances[to] = reached;
        parents[to] = from;
        lowered = true;
      }
    }
    return lowered;
  }

  private ringThrough(site: number, parents: Int32Array): readonly Exchange[] {
    const ring: Exchange[] = [];
    let to = site;
    do {
      const from = parents[to] ?? 0;
      const partition = this.partitions[from * this.count + to] ?? NO_PARTITION;
      ring.push({ from, to, partition: partition === NO_PARTITION ? undefined : partition });
      to = from;
    } while (to !== site);
    return ring;
  }
}

/** A site that is its own ancestor. */
function onRing(parents: Int32Array): number | undefined {
  const seenFrom = new Int32Array(parents.length).fill(-1);
  for (let start = 0; start < parents.length; start += 1) {
    let site = start;
    while (site !== -1 && seenFrom[site] === -1) {
      seenFrom[site] = start;
      site = parents[site] ?? -1;
    }
    if (site !== -1 && seenFrom[site] === start) return site;
  }
  return undefined;
}
