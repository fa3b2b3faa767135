import { expect } from 'chai';
import { KvError } from '../../common/errors.ts';
import { type ClusterMap, memberOf } from '../../model/cluster-map.ts';
import { DEFAULT_COLLECTION_SETTINGS } from '../../node/replication/horizon/collector.ts';
import { PARTITIONS, type ReplicaCluster } from './replica-cluster.ts';

/** Tombstones are collected within seconds. */
export const SOON_COLLECTED = { ...DEFAULT_COLLECTION_SETTINGS, ageMs: 2000, stepMs: 500, slowMs: 5000 };

/** The code that an operation fails with; undefined when it succeeds. */
export async function codeOf(operation: Promise<unknown>): Promise<string | undefined> {
  const error: unknown = await operation.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  if (error === undefined) return undefined;
  expect(error).to.be.instanceOf(KvError);
  return (error as KvError).code;
}

/** Waits until all members hold the same, and gives it. */
export async function sameEverywhere(cluster: ReplicaCluster): Promise<readonly string[]> {
  // Heads are known with the next heartbeat.
  await cluster.time.advance(1000);
  await cluster.inSync();
  const [first, ...others] = cluster.nodes.flatMap(({ running }, index) =>
    running === undefined ? [] : [index],
  );
  const contents = await cluster.contents(first ?? 0);
  for (const index of others) expect(await cluster.contents(index)).to.deep.equal(contents);
  return contents;
}

/** Whether the digests of all partitions are equal on all running nodes, which hold all of them. */
export function haveEqualDigests(cluster: ReplicaCluster): boolean {
  const roots = cluster.nodes.flatMap(({ running }) =>
    running === undefined
      ? []
      : Array.from({ length: PARTITIONS }, (_, partition) => running.store.digest(partition).root).join(' '),
  );
  return new Set(roots).size === 1;
}

export function proposeEverywhere(cluster: ReplicaCluster, map: ClusterMap): Promise<void> {
  return cluster.nodes.reduce(async (before, { running, nodeId }, index) => {
    await before;
    if (running === undefined || memberOf(map, nodeId) === undefined) return;
    const { accepted, message } = await cluster.propose(index, map);
    expect(accepted, message).to.equal(true);
  }, Promise.resolve());
}

/**
 * Changes who holds everything, phase after phase, as the map's writer does: all partitions go from one set of members to
 * another, given by index among all members of the cluster.
 */
export async function moveAll(
  cluster: ReplicaCluster,
  oldReplicas: readonly number[],
  newReplicas: readonly number[],
  change: Partial<ClusterMap> = {},
): Promise<void> {
  const sets = { assignment: Array.from({ length: PARTITIONS }, () => oldReplicas), ...change };
  const moving = (phase: number): ClusterMap =>
    cluster.nextMap({
      ...sets,
      moving: {
        phase,
        partitions: sets.assignment.map((_, partition) => ({ partition, oldReplicas, newReplicas })),
      },
    });
  const first = moving(1);
  await proposeEverywhere(cluster, first);
  await cluster.time.until('all new owners have settled', () =>
    newReplicas.every((index) => cluster.replica(index).status().settledEpoch === first.epoch),
  );
  await proposeEverywhere(cluster, moving(2));
  await cluster.time.advance(1000);
  const last = cluster.nextMap({
    ...change,
    assignment: Array.from({ length: PARTITIONS }, () => newReplicas),
  });
  await proposeEverywhere(cluster, last);
  await cluster.time.until('nothing is left at old owners', () =>
    cluster.runningReplicas().every((replica) => replica.status().residualPartitions === 0),
  );
}
