/**
 * Chooses one replica of each set as the coordinator that clients prefer, so that the counts per site are as equal as the
 * sets permit. A previous choice stays unless balance needs another.
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
  while (choice.evenOut()) continue;
  return choice.of.map((site) => site ?? 0);
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

  /** Passes choices on from sites with more to sites with at least two fewer; whether there was one to pass on. */
  evenOut(): boolean {
    let changed = false;
    for (let site = 0; site < this.chosenFor.length; site += 1) {
      while (this.passOn(site)) changed = true;
    }
    return changed;
  }

  private passOn(first: number): boolean {
    const enough = this.count(first) - 2;
    const reached = new Map<number, { readonly partition: number; readonly from: number } | undefined>([
      [first, undefined],
    ]);
    for (const from of reached.keys()) {
      for (const partition of this.chosenFor[from] ?? []) {
        for (const to of this.sets[partition] ?? []) {
          if (reached.has(to)) continue;
          reached.set(to, { partition, from });
          if (this.count(to) > enough) continue;
          for (let site = to, step = reached.get(to); step !== undefined; step = reached.get(site)) {
            this.set(step.partition, site);
            site = step.from;
          }
          return true;
        }
      }
    }
    return false;
  }

  private count(site: number): number {
    return this.chosenFor[site]?.size ?? 0;
  }
}
