/**
 * Chooses one replica of each set as the coordinator that clients prefer, so that the counts per site are as equal as the
 * sets permit. A previous choice stays unless balance needs another. (Optimal semi-matching by cost-reducing paths:
 * Harvey, Ladner, Lovász and Tamir, "Semi-matchings for bipartite graphs and load balancing", 2003.)
 *
 * @param previous per partition the earlier choice, undefined where there is none; it need not be in the set any more
 * @returns per partition the chosen site
 */
export function preferredOf(
  sets: readonly (readonly number[])[],
  previous: readonly (number | undefined)[],
  sites: number,
): readonly number[] {
  const choice = new Choice(sets, sites);
  for (const [partition, set] of sets.entries()) {
    const before = previous[partition];
    if (before !== undefined && set.includes(before)) choice.set(partition, before);
  }
  for (const [partition, set] of sets.entries()) {
    if (choice.of[partition] === undefined) choice.set(partition, choice.leastUsed(partition, set));
  }
  choice.evenOut();
  return choice.of.map((site) => site ?? 0);
}

/** How a site is reached: `from` gives up being the choice for the partition. */
interface Step {
  readonly partition: number;
  readonly from: number;
}

class Choice {
  readonly of: (number | undefined)[];
  private readonly sets: readonly (readonly number[])[];
  private readonly chosenFor: readonly Set<number>[];

  constructor(sets: readonly (readonly number[])[], sites: number) {
    this.sets = sets;
    this.of = sets.map(() => undefined);
    this.chosenFor = Array.from({ length: sites }, () => new Set<number>());
  }

  set(partition: number, site: number): void {
    const before = this.of[partition];
    if (before !== undefined) this.chosenFor[before]?.delete(partition);
    this.of[partition] = site;
    this.chosenFor[site]?.add(partition);
  }

  /** Ties rotate with the partition. */
  leastUsed(partition: number, set: readonly number[]): number {
    const sites = this.chosenFor.length;
    const rank = (site: number): number =>
      this.count(site) * sites + ((((site - partition) % sites) + sites) % sites);
    return set.reduce((best, site) => (rank(site) < rank(best) ? site : best));
  }

  /** Passes choices on from the sites with most to sites with at least two fewer, until none can be. */
  evenOut(): void {
    const settled = new Set<number>();
    for (;;) {
      const open = [...this.chosenFor.keys()].filter((site) => !settled.has(site));
      const most = Math.max(0, ...open.map((site) => this.count(site)));
      if (most < 2) return;
      const reached = new Map<number, Step | undefined>(
        open.filter((site) => this.count(site) === most).map((site) => [site, undefined]),
      );
      if (this.passOn(reached, most - 2)) continue;
      // Everything that these lead to holds as many, or one fewer: nothing can leave this circle any more.
      for (const site of reached.keys()) settled.add(site);
    }
  }

  /** Whether a choice was passed on from one of the sites given; `reached` then holds all sites on the way there. */
  private passOn(reached: Map<number, Step | undefined>, few: number): boolean {
    for (const from of reached.keys()) {
      for (const partition of this.chosenFor[from] ?? []) {
        for (const to of this.sets[partition] ?? []) {
          if (reached.has(to)) continue;
          reached.set(to, { partition, from });
          if (this.count(to) > few) continue;
          this.follow(reached, to);
          return true;
        }
      }
    }
    return false;
  }

  private follow(reached: ReadonlyMap<number, Step | undefined>, end: number): void {
    let site = end;
    for (let step = reached.get(site); step !== undefined; step = reached.get(site)) {
      this.set(step.partition, site);
      site = step.from;
    }
  }

  private count(site: number): number {
    return this.chosenFor[site]?.size ?? 0;
  }
}
