import type { Member } from './cluster-map.ts';

/**
 * Who holds which partition while members <= replicationFactor: everybody, in an order that rotates with the partition
 * so that the first replica (the coordinator that clients prefer) is spread evenly.
 *
 * @throws RangeError when there are more members than copies: that placement needs partitions to move.
 */
export function placeEverywhere(
  members: readonly Member[],
  partitions: number,
  replicationFactor: number,
): readonly (readonly number[])[] {
  if (members.length > replicationFactor) {
    throw new RangeError(`${members.length} members need a replicationFactor of at least ${members.length}`);
  }
  return Array.from({ length: partitions }, (_, partition) =>
    members.map((_member, index) => (partition + index) % members.length),
  );
}
