import { type ClusterMap, type MapContent, type Member, sealMap } from '../../model/cluster-map.ts';
import { type DesiredCluster, type MemberReport, nextStep, type Reports } from '../../model/moves.ts';
import { place } from '../../model/placement.ts';
import { replicaSets } from '../../model/replica-sets.ts';
import { memberNamed } from './member.ts';

/** Members `kv-<n>`. */
export function membersAt(...numbers: readonly number[]): readonly Member[] {
  return numbers.map((number) => memberNamed(`kv-${number}`));
}

/** A map in use, placed as it should be. */
export function mapOf(changes: Partial<MapContent> = {}): ClusterMap {
  const { members = membersAt(0, 1, 2), partitions = 8, replicationFactor = 3 } = changes;
  return sealMap({
    clusterId: '0'.repeat(32),
    namespace: 'default',
    name: 'kv',
    epoch: 7,
    partitions,
    replicationFactor,
    initialised: true,
    members,
    retired: [],
    ...changes,
    assignment: changes.assignment ?? place({ members, partitions, replicationFactor }),
  });
}

/** What is wanted where nothing is to change, with differences. */
export function wanting(map: ClusterMap, changes: Partial<DesiredCluster> = {}): DesiredCluster {
  return { members: map.members, replicationFactor: map.replicationFactor, ...changes };
}

/**
 * Everybody has the map, has settled and holds no residue, apart from what is given by node id; `'silent'` does not answer.
 * Who is not in the map answers with a blank volume where it is named.
 */
export function reportsOn(
  map: ClusterMap,
  differing: Readonly<Record<string, Partial<MemberReport> | 'silent'>> = {},
): Reports {
  const reports = new Map<string, MemberReport>();
  for (const [index, { nodeId }] of map.members.entries()) {
    reports.set(nodeId, {
      epoch: map.epoch,
      mapHash: map.hash,
      incarnation: 100 + index,
      settledEpoch: map.epoch,
      residualPartitions: 0,
      fillingPartitions: 0,
    });
  }
  for (const [nodeId, change] of Object.entries(differing)) {
    if (change === 'silent') reports.delete(nodeId);
    else reports.set(nodeId, { ...BLANK, ...reports.get(nodeId), ...change });
  }
  return reports;
}

const BLANK: MemberReport = {
  epoch: 0,
  mapHash: '',
  incarnation: 0,
  settledEpoch: 0,
  residualPartitions: 0,
  fillingPartitions: 0,
};

/** Publishes every step while everybody does at once what it has to; the maps, the first included, and the reasons. */
export function playedOut(
  first: ClusterMap,
  desired: DesiredCluster,
): { readonly maps: readonly ClusterMap[]; readonly reasons: readonly string[]; readonly last: ClusterMap } {
  const maps = [first];
  const reasons: string[] = [];
  const blank = Object.fromEntries(desired.members.map(({ nodeId }) => [nodeId, {}]));
  for (;;) {
    const map = maps.at(-1)!;
    const step = nextStep(map, desired, reportsOn(map, blank));
    if (step.kind === 'wait') throw new Error(`waits: ${step.why}`);
    if (step.kind === 'done') return { maps, reasons, last: map };
    maps.push(step.map);
    reasons.push(step.why);
  }
}

/** Node ids per partition as they are read. */
export function readSets(map: ClusterMap): readonly (readonly string[])[] {
  return map.assignment.map((_, partition) => replicaSets(map, partition).read);
}
