import { byteString } from '../../common/bytes.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { replicaSets } from '../../model/replica-sets.ts';
import { formatVersion } from '../../model/version.ts';
import type { StoredRecord } from '../../node/storage/store.ts';
import type { Member } from './member.ts';

type Records = ReadonlyMap<string, StoredRecord>;

/**
 * What the stores of all members hold of every partition, after a checkpoint; a partition's first holder speaks for it.
 */
export function contentsOf(members: readonly Member[], map: ClusterMap | undefined): Records {
  const all = new Map<string, StoredRecord>();
  for (const partition of partitionsOf(map)) {
    const [first] = holdersOf(members, map, partition);
    if (first === undefined) continue;
    for (const [key, record] of recordsOf(first, partition)) all.set(key, record);
  }
  return all;
}

/** Whether the digests of all holders of each partition are equal. */
export function haveEqualDigests(members: readonly Member[], map: ClusterMap | undefined): boolean {
  return partitionsOf(map).every((partition) => {
    const [first, ...others] = holdersOf(members, map, partition);
    const root = first?.running?.store.digest(partition).root;
    return others.every(({ running }) => running?.store.digest(partition).root === root);
  });
}

/** Keys whose holders differ, for a person. */
export function differences(members: readonly Member[], map: ClusterMap | undefined): readonly string[] {
  return partitionsOf(map).flatMap((partition) => {
    const holders = holdersOf(members, map, partition);
    const held = holders.map((member) => recordsOf(member, partition));
    const keys = new Set(held.flatMap((records) => [...records.keys()]));
    const differing = [...keys].filter((key) => {
      const [first, ...others] = held.map((records) => records.get(key)?.bytes);
      return others.some((bytes) =>
        bytes === undefined ? first !== undefined : first === undefined || !bytes.equals(first),
      );
    });
    const roots = holders.map(({ running }) => running?.store.digest(partition).root);
    if (differing.length === 0) {
      return new Set(roots).size === 1
        ? []
        : [`partition ${partition} has equal records and digests ${roots.join(', ')}`];
    }
    return differing.map((key) => {
      const versions = holders.map(({ nodeId }, index) => `${nodeId} ${describe(held[index]?.get(key))}`);
      return `${key} of partition ${partition} differs: ${versions.join(', ')}`;
    });
  });
}

function describe(record: StoredRecord | undefined): string {
  if (record === undefined) return 'nothing';
  const kind = record.tombstone
    ? 'deleted'
    : record.expiresAtMs === undefined
      ? 'a value'
      : 'an expiring value';
  return `${kind} at ${formatVersion(record.version)}`;
}

function partitionsOf(map: ClusterMap | undefined): readonly number[] {
  return map === undefined ? [] : [...map.assignment.keys()];
}

function holdersOf(
  members: readonly Member[],
  map: ClusterMap | undefined,
  partition: number,
): readonly Member[] {
  const names = map === undefined ? [] : replicaSets(map, partition).holders;
  return names.flatMap((name) => members.find(({ nodeId }) => nodeId === name) ?? []);
}

function recordsOf({ running, volume }: Member, partition: number): Records {
  const held = new Map<string, StoredRecord>();
  for (const { key } of volume.rows.partitions.get(partition)?.rows.values() ?? []) {
    const record = running?.store.get(key);
    if (record !== undefined) held.set(byteString(key), record);
  }
  return held;
}
