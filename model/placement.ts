import type { Member } from './cluster-map.ts';
import { balance, fill } from './placement/balance.ts';
import { Draft } from './placement/draft.ts';
import { improve } from './placement/improve.ts';
import { preferredOf } from './placement/preferred.ts';
import { fairShares } from './placement/shares.ts';
import { type Sites, sitesOf } from './placement/sites.ts';

/** What a placement is made of. */
export interface PlaceOptions {
  /** All members of the map; only active ones get partitions. */
  readonly members: readonly Member[];
  /** Number of hash partitions. */
  readonly partitions: number;
  /** Wanted copies; there are never more of a partition than there are distinct pods. */
  readonly replicationFactor: number;
  /** Node ids per partition as they are placed now, members that have gone included. @default nothing is placed */
  readonly previous?: readonly (readonly string[])[] | undefined;
}

/**
 * Decides who holds which partition. The rules, each only as far as those before it permit:
 *
 * 1. every partition has min(replicationFactor, distinct pods) replicas, no two in one pod;
 * 2. the replicas of a partition are spread over the zones as evenly as the pods there permit, hence over
 *    min(copies, zones) zones (members without a zone are in one zone together);
 * 3. members hold equally many partitions: they differ by at most one where zones are equally large and pods have equally
 *    many members. Otherwise nobody who could take one holds two or more fewer than who could give one: a small zone's
 *    or a small pod's members hold more, and the members of one zone with equal pods still differ by at most one;
 * 4. the fewest replicas move from `previous`;
 * 5. the first replica of each partition, the coordinator that clients prefer, is spread equally, and stays where it was
 *    when that balance permits.
 *
 * Deterministic, and the same whatever the order of `members`. Members that all hold everything rotate.
 *
 * @returns per partition, indexes into `members`
 * @throws RangeError when there is no active member, a count is not a positive integer, or `previous` has another number
 * of partitions.
 */
export function place(options: PlaceOptions): readonly (readonly number[])[] {
  const { members, partitions, replicationFactor, previous } = options;
  check(options);
  const sites = sitesOf(members, replicationFactor);
  if (sites.count === 0) throw new RangeError('a placement needs an active member');
  const before = Array.from({ length: partitions }, (_, partition) =>
    (previous?.[partition] ?? []).map((nodeId) => sites.siteOfName.get(nodeId)),
  );
  const draft = new Draft(
    sites,
    partitions,
    before.map((set) => set.filter((site) => site !== undefined)),
  );
  spread(draft);
  const preferred = preferredOf(
    draft.sets,
    before.map(([first]) => first),
    sites.count,
  );
  return draft.sets.map((set, partition) => ordered(set, preferred[partition] ?? 0, sites));
}

function check({ members, partitions, replicationFactor, previous }: PlaceOptions): void {
  for (const [name, count] of Object.entries({ partitions, replicationFactor })) {
    if (!Number.isSafeInteger(count) || count < 1)
      throw new RangeError(`${name} is ${count}, not a positive integer`);
  }
  if (new Set(members.map(({ nodeId }) => nodeId)).size < members.length) {
    throw new RangeError('two members have the same name');
  }
  if (previous !== undefined && previous.length !== partitions) {
    throw new RangeError(`the previous placement is of ${previous.length} partitions, not ${partitions}`);
  }
}

function spread(draft: Draft): void {
  const kept = draft.loads.slice();
  const shares = fairShares(draft.sites, draft.partitions, kept);
  // No placement as balanced moves less than what sites lack of their shares; most often that is what is moved.
  const lacking = shares.reduce((sum, share, site) => sum + Math.max(0, share - (kept[site] ?? 0)), 0);
  fill(draft, shares);
  balance(draft, shares, lacking);
  if (draft.added > lacking) improve(draft);
}

/** The preferred coordinator first, the others as they follow it in the circle of all sites. */
function ordered(set: readonly number[], first: number, sites: Sites): readonly number[] {
  const turn = (site: number): number => (site - first + sites.count) % sites.count;
  return set.toSorted((a, b) => turn(a) - turn(b)).map((site) => sites.memberIndexes[site] ?? 0);
}
