import type { Sites } from './sites.ts';

/**
 * How many replicas each site gets: as equal as pods and zones permit (the largest shares cannot be lowered by raising
 * smaller ones), and among the equally balanced answers the one that keeps most of what the sites hold.
 *
 * The bounds are nested (a site in a pod, a pod in a zone), so giving one replica at a time to the smallest site that may
 * still take one ends at the optimum (greedy resource allocation: Ibaraki and Katoh, "Resource Allocation Problems",
 * 1988), and every answer within the bounds can be met by actual replica sets.
 */
export function fairShares(sites: Sites, partitions: number, held: Int32Array): Int32Array {
  const shares = new Int32Array(sites.count);
  const ofPod = new Int32Array(sites.pods);
  const ofZone = new Int32Array(sites.zones.length);
  const everybody = [...shares.keys()];

  const giveOne = (candidates: readonly number[]): void => {
    let best = -1;
    let bestRank = Infinity;
    for (const site of candidates) {
      const pod = sites.podOf[site] ?? 0;
      const zone = sites.zoneOf[site] ?? 0;
      if ((ofPod[pod] ?? 0) >= partitions) continue;
      const share = shares[site] ?? 0;
      const rank = 2 * share + ((held[site] ?? 0) > share ? 0 : 1);
      if (rank >= bestRank || (ofZone[zone] ?? 0) >= (sites.zones[zone]?.most ?? 0) * partitions) continue;
      best = site;
      bestRank = rank;
    }
    shares[best] = (shares[best] ?? 0) + 1;
    const pod = sites.podOf[best] ?? 0;
    const zone = sites.zoneOf[best] ?? 0;
    ofPod[pod] = (ofPod[pod] ?? 0) + 1;
    ofZone[zone] = (ofZone[zone] ?? 0) + 1;
  };

  let left = sites.copies * partitions;
  for (const zone of sites.zones) {
    for (let given = 0; given < zone.least * partitions; given += 1, left -= 1) giveOne(zone.sites);
  }
  for (; left > 0; left -= 1) giveOne(everybody);
  return shares;
}
