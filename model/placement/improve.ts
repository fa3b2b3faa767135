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
  for (let ring = savingRing(draft); ring !== undefined; ring = savingRing(draft)) {
    if (!exchange(draft, ring)) return;
  }
}

/** Makes all swaps or, when one that was made hinders another, none. */
function exchange(draft: Draft, ring: readonly Exchange[]): boolean {
  const swapped: { readonly partition: number; readonly from: number; readonly to: number }[] = [];
  for (const { partition, from, to } of ring) {
    if (partition === undefined) continue;
    if (!draft.isHeld(partition, from) || !draft.canSwap(partition, from, to)) {
      for (const swap of swapped.toReversed()) draft.swap(swap.partition, swap.to, swap.from);
      return false;
    }
    draft.swap(partition, from, to);
    swapped.push({ partition, from, to });
  }
  return true;
}

/** A ring of exchanges whose costs sum to less than nothing, found as a negative cycle (Bellman and Ford). */
function savingRing(draft: Draft): readonly Exchange[] | undefined {
  const exchanges = cheapestExchanges(draft);
  const count = draft.sites.count;
  const distances = new Int32Array(count);
  const parents = new Int32Array(count);
  let lowered = -1;
  for (let round = 0; round < count; round += 1) {
    lowered = -1;
    for (let from = 0; from < count; from += 1) {
      for (let to = 0; to < count; to += 1) {
        const distance = (distances[from] ?? 0) + (exchanges.costs[from * count + to] ?? 0);
        if (distance >= (distances[to] ?? 0)) continue;
        distances[to] = distance;
        parents[to] = from;
        lowered = to;
      }
    }
    if (lowered === -1) return undefined;
  }
  // So many steps back from a site that was still lowered lie on a ring.
  for (let step = 0; step < count; step += 1) lowered = parents[lowered] ?? 0;
  const ring: Exchange[] = [];
  let to = lowered;
  do {
    const from = parents[to] ?? 0;
    const partition = exchanges.partitions[from * count + to] ?? NO_PARTITION;
    ring.push({ from, to, partition: partition === NO_PARTITION ? undefined : partition });
    to = from;
  } while (to !== lowered);
  return ring;
}

const NO_PARTITION = -1;
/** More than any way of exchanges costs. */
const IMPOSSIBLE = 2 ** 20;

interface Exchanges {
  /** From site times the number of sites plus to site. */
  readonly costs: Int32Array;
  readonly partitions: Int32Array;
}

function cheapestExchanges(draft: Draft): Exchanges {
  const { count } = draft.sites;
  const costs = new Int32Array(count * count).fill(IMPOSSIBLE);
  const partitions = new Int32Array(count * count).fill(NO_PARTITION);
  for (const [partition, set] of draft.sets.entries()) {
    for (const from of set) {
      for (let to = 0; to < count; to += 1) {
        const at = from * count + to;
        const cost = draft.swapCost(partition, from, to);
        if (cost >= (costs[at] ?? 0) || !draft.canSwap(partition, from, to)) continue;
        costs[at] = cost;
        partitions[at] = partition;
      }
    }
  }
  for (let more = 0; more < count; more += 1) {
    for (let less = 0; less < count; less += 1) {
      // The one of the two that holds one replica more may as well be the other.
      const at = less * count + more;
      if (draft.loads[more] !== (draft.loads[less] ?? 0) + 1 || (costs[at] ?? 0) <= 0) continue;
      costs[at] = 0;
      partitions[at] = NO_PARTITION;
    }
  }
  return { costs, partitions };
}
