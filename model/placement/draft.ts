import type { Sites } from './sites.ts';

/** `to` takes the place of `from` as a replica of the partition. */
export interface Swap {
  readonly partition: number;
  readonly from: number;
  readonly to: number;
}

/**
 * A placement in the making. Every replica set in it keeps the rules at every moment: no two replicas in one pod, each
 * zone within its bounds or still able to get there.
 */
export class Draft {
  readonly sites: Sites;
  readonly partitions: number;
  /** Per partition, the sites that hold it. */
  readonly sets: readonly number[][];
  /** Per site, how many partitions it holds. */
  readonly loads: Int32Array;
  /** Per site, the partitions it holds. */
  readonly heldBy: readonly Set<number>[];
  /** Replicas that the previous placement did not have. */
  added = 0;
  private readonly addedToPartition: Uint8Array;
  private readonly addedAtSite: Int32Array;
  private readonly lostAtSite: Int32Array;
  private readonly before: Uint8Array;
  private readonly holds: Uint8Array;
  private readonly podTaken: Uint8Array;
  private readonly zoneCounts: Uint8Array;
  /** Per partition, replicas plus those that zones below their least still need. */
  private readonly spoken: Int32Array;

  /** Begins with the previous replica sets, without what breaks the rules today. */
  constructor(sites: Sites, partitions: number, previous: readonly (readonly number[])[]) {
    this.sites = sites;
    this.partitions = partitions;
    this.sets = Array.from({ length: partitions }, () => []);
    this.loads = new Int32Array(sites.count);
    this.heldBy = Array.from({ length: sites.count }, () => new Set<number>());
    this.before = new Uint8Array(partitions * sites.count);
    this.holds = new Uint8Array(partitions * sites.count);
    this.podTaken = new Uint8Array(partitions * sites.pods);
    this.zoneCounts = new Uint8Array(partitions * sites.zones.length);
    const needed = sites.zones.reduce((sum, { least }) => sum + least, 0);
    this.spoken = new Int32Array(partitions).fill(needed);
    this.addedToPartition = new Uint8Array(partitions);
    this.addedAtSite = new Int32Array(sites.count);
    this.lostAtSite = new Int32Array(sites.count);
    this.keep(previous);
  }

  /** How many replicas of a partition the previous placement did not have. */
  addedTo(partition: number): number {
    return this.addedToPartition[partition] ?? 0;
  }

  /** How many replicas a site has that it did not have before. */
  addedAt(site: number): number {
    return this.addedAtSite[site] ?? 0;
  }

  /** How many replicas a site had before and does not have now. */
  lostAt(site: number): number {
    return this.lostAtSite[site] ?? 0;
  }

  /** Whether the previous placement had this replica. */
  wasHeld(partition: number, site: number): boolean {
    return this.before[partition * this.sites.count + site] === 1;
  }

  isHeld(partition: number, site: number): boolean {
    return this.holds[partition * this.sites.count + site] === 1;
  }

  canAdd(partition: number, site: number): boolean {
    if (this.isPodTaken(partition, site)) return false;
    const zone = this.sites.zoneOf[site] ?? 0;
    const bounds = this.sites.zones[zone];
    const count = this.zoneCount(partition, zone);
    if (bounds === undefined || count >= bounds.most) return false;
    return count < bounds.least || (this.spoken[partition] ?? 0) < this.sites.copies;
  }

  add(partition: number, site: number): void {
    this.sets[partition]?.push(site);
    this.note(partition, site, 1);
  }

  /** Whether `to` may take the place of `from` in a full set. */
  canSwap({ partition, from, to }: Swap): boolean {
    const { podOf, zoneOf, zones } = this.sites;
    if (this.isHeld(partition, to)) return false;
    if (podOf[from] !== podOf[to] && this.isPodTaken(partition, to)) return false;
    const left = zoneOf[from] ?? 0;
    const entered = zoneOf[to] ?? 0;
    return (
      left === entered ||
      (this.zoneCount(partition, left) > (zones[left]?.least ?? 0) &&
        this.zoneCount(partition, entered) < (zones[entered]?.most ?? 0))
    );
  }

  swap({ partition, from, to }: Swap): void {
    const set = this.sets[partition];
    if (set === undefined) return;
    set[set.indexOf(from)] = to;
    this.note(partition, from, -1);
    this.note(partition, to, 1);
  }

  /** Makes the swaps in this order; or none, and gives the first that the ones before it do not permit. */
  swapAll(swaps: readonly Swap[]): Swap | undefined {
    for (const [done, swap] of swaps.entries()) {
      if (this.isHeld(swap.partition, swap.from) && this.canSwap(swap)) {
        this.swap(swap);
        continue;
      }
      for (const { partition, from, to } of swaps.slice(0, done).toReversed()) {
        this.swap({ partition, from: to, to: from });
      }
      return swap;
    }
    return undefined;
  }

  /** What a swap adds to the data to be moved: -1, 0 or 1 replicas. */
  swapCost({ partition, from, to }: Swap): number {
    return (this.wasHeld(partition, from) ? 1 : 0) - (this.wasHeld(partition, to) ? 1 : 0);
  }

  private keep(previous: readonly (readonly number[])[]): void {
    const loads = new Int32Array(this.sites.count);
    for (const [partition, set] of previous.entries()) {
      for (const site of set) {
        this.before[partition * this.sites.count + site] = 1;
        loads[site] = (loads[site] ?? 0) + 1;
        this.lostAtSite[site] = (this.lostAtSite[site] ?? 0) + 1;
      }
    }
    for (const [partition, set] of previous.entries()) {
      // Where not all can stay, those that hold least do.
      for (const site of set.toSorted((a, b) => (loads[a] ?? 0) - (loads[b] ?? 0) || a - b)) {
        if (this.canAdd(partition, site)) this.add(partition, site);
        else loads[site] = (loads[site] ?? 0) - 1;
      }
    }
  }

  private note(partition: number, site: number, change: 1 | -1): void {
    const { count, podOf, pods, zoneOf, zones } = this.sites;
    const zone = zoneOf[site] ?? 0;
    const zoneAt = partition * zones.length + zone;
    const inZone = this.zoneCounts[zoneAt] ?? 0;
    const least = zones[zone]?.least ?? 0;
    this.spoken[partition] =
      (this.spoken[partition] ?? 0) + Math.max(inZone + change, least) - Math.max(inZone, least);
    this.zoneCounts[zoneAt] = inZone + change;
    this.podTaken[partition * pods + (podOf[site] ?? 0)] = change === 1 ? 1 : 0;
    this.holds[partition * count + site] = change === 1 ? 1 : 0;
    this.loads[site] = (this.loads[site] ?? 0) + change;
    if (change === 1) this.heldBy[site]?.add(partition);
    else this.heldBy[site]?.delete(partition);
    if (this.wasHeld(partition, site)) this.lostAtSite[site] = (this.lostAtSite[site] ?? 0) - change;
    else {
      this.addedToPartition[partition] = (this.addedToPartition[partition] ?? 0) + change;
      this.addedAtSite[site] = (this.addedAtSite[site] ?? 0) + change;
      this.added += change;
    }
  }

  private isPodTaken(partition: number, site: number): boolean {
    return this.podTaken[partition * this.sites.pods + (this.sites.podOf[site] ?? 0)] === 1;
  }

  /** How many replicas of a partition are in a zone. */
  zoneCount(partition: number, zone: number): number {
    return this.zoneCounts[partition * this.sites.zones.length + zone] ?? 0;
  }
}
