import { expect } from 'chai';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { partitionsHeldBy, replicaSets } from '../../model/replica-sets.ts';
import { workerNames } from '../../model/workers.ts';
import { workerPid } from '../support/kubernetes-faults.ts';
import { isReady, type Pod } from '../support/kubernetes-objects.ts';
import { useStand } from '../support/kubernetes-stand.ts';
import { KVClusterUnderTest } from '../support/kvcluster.ts';
import { MembersObserver } from '../support/kvcluster-members.ts';
import { underWriter } from '../support/kvcluster-writer.ts';
import { measured, secondsBetween } from '../support/measured.ts';
import { waitFor } from '../support/wait.ts';

/** Pods are restarted one by one, and partitions move, in less. */
const CHANGE_MS = 180_000;

async function mapOf(cluster: KVClusterUnderTest): Promise<ClusterMap> {
  await using client = await cluster.connect();
  const map = await client.describeCluster();
  if (map === undefined) throw new Error('the cluster has no map');
  return map;
}

function membersOf(cluster: KVClusterUnderTest, workers: number): readonly string[] {
  return cluster.podNames.flatMap((pod) => workerNames(pod, workers));
}

/** The largest number of pods that were not Ready at the same time. */
function mostNotReady(sightings: readonly { readonly object: Pod }[], pods: readonly string[]): number {
  const ready = new Set(pods);
  let most = 0;
  for (const { object } of sightings) {
    if (isReady(object)) ready.add(object.metadata.name);
    else ready.delete(object.metadata.name);
    most = Math.max(most, pods.length - ready.size);
  }
  return most;
}

describe('a KVCluster with several workers in each pod', () => {
  let cluster: KVClusterUnderTest;
  const stand = useStand({
    async prepare({ neighbour }) {
      cluster = new KVClusterUnderTest(neighbour, 'kw');
      cluster.workers = 2;
      await cluster.apply({ workersPerPod: cluster.workers, partitions: 64 });
      await cluster.ready(120_000);
    },
    async leave() {
      await cluster.delete();
      await waitFor({ what: 'the pods to be gone', timeoutMs: 90_000, intervalMs: 500 }, async () => {
        return (await cluster.pods()).length === 0;
      });
      await stand().neighbour.run(['delete', 'persistentvolumeclaims', cluster.selector]);
    },
  });

  it('has each worker as a member, and never two copies of a key in one pod', async () => {
    const map = await mapOf(cluster);
    expect(map.members.map(({ nodeId }) => nodeId)).to.deep.equal(membersOf(cluster, 2));
    expect(map.members.slice(0, 2).map(({ clientPort, peerPort }) => [clientPort, peerPort])).to.deep.equal([
      [50_101, 50_052],
      [50_151, 50_152],
    ]);
    const podOf = new Map(map.members.map(({ nodeId, pod }) => [nodeId, pod]));
    for (const partition of map.assignment.keys()) {
      const pods = replicaSets(map, partition).read.map((nodeId) => podOf.get(nodeId));
      expect(new Set(pods).size, `pods of partition ${partition}`).to.equal(3);
    }
    // The kubelet asks a pod that has become ready only at its next probe.
    const status = await waitFor({ what: 'three ready pods', timeoutMs: 30_000 }, async (see) => {
      const { status: now } = await cluster.get();
      see(`${now?.readyReplicas} pods are ready`);
      return now?.readyReplicas === 3 ? now : undefined;
    });
    expect(status).to.include({ replicas: 3, readyReplicas: 3, inSyncReplicas: 3 });
    expect(status.nodes?.map(({ name, partitions }) => `${name} ${partitions}`)).to.deep.equal(
      membersOf(cluster, 2).map((name) => `${name} 32`),
    );
  });

  it('loses no acknowledged write when a worker is killed, which its pod starts again, and when the pod is deleted', async () => {
    const [killed = '', deleted = ''] = cluster.podNames;
    const before = await cluster.kubectl.get<Pod>('pod', killed);
    const older = await cluster.podUids();
    await using members = await MembersObserver.start(cluster);
    await using pods = cluster.watchPods();
    await underWriter(cluster, async () => {
      const killedMs = performance.now();
      const pid = await workerPid(cluster.kubectl, killed, `${killed}-w1`);
      if (pid === undefined) throw new Error(`there is no process of ${killed}-w1`);
      process.kill(pid, 'SIGKILL');
      await waitFor(
        { what: 'another process of the worker', timeoutMs: 20_000, intervalMs: 50 },
        async () => {
          const now = await workerPid(cluster.kubectl, killed, `${killed}-w1`);
          return now !== undefined && now !== pid;
        },
      );
      await members.allInSync(performance.now());
      measured(
        `worker killed under a writer: all in sync after ${secondsBetween(killedMs, performance.now())} s`,
      );
      const deletedMs = performance.now();
      await cluster.kubectl.run(['delete', 'pod', deleted, '--wait=false']);
      await cluster.podsReady({ [deleted]: older[deleted] ?? '' }, [deleted]);
      measured(
        `pod of two workers deleted under a writer: Ready after ${secondsBetween(deletedMs, performance.now())} s`,
      );
    });
    await cluster.ready();
    const after = await cluster.kubectl.get<Pod>('pod', killed);
    expect(after.metadata.uid, 'the same pod').to.equal(before.metadata.uid);
    expect(after.status.containerStatuses?.[0]?.restartCount, 'restarts of the container').to.equal(0);
    expect(mostNotReady(pods.sightings, cluster.podNames)).to.equal(1);
  });

  for (const [what, workersPerPod] of [
    ['empties the workers that are not wanted any more, then restarts the pods without them', 1],
    ['restarts the pods with more workers, which then get their share', 2],
  ] as const) {
    it(`${what}, one pod at a time, under the writer`, async () => {
      const older = await cluster.podUids();
      await using pods = cluster.watchPods();
      await underWriter(cluster, async () => {
        const sinceMs = performance.now();
        await cluster.patch({ workersPerPod });
        cluster.workers = workersPerPod;
        await cluster.ready(CHANGE_MS);
        measured(`to ${workersPerPod} workers in a pod: ${secondsBetween(sinceMs, performance.now())} s`);
      });
      const map = await mapOf(cluster);
      const members = membersOf(cluster, workersPerPod);
      expect(map.members.map(({ nodeId }) => nodeId)).to.deep.equal(members);
      for (const nodeId of members) {
        expect(partitionsHeldBy(map, nodeId), nodeId).to.have.length(map.partitions / workersPerPod);
      }
      const uids = await cluster.podUids();
      expect(
        cluster.podNames.filter((pod) => uids[pod] === older[pod]),
        'pods not restarted',
      ).to.deep.equal([]);
      expect(mostNotReady(pods.sightings, cluster.podNames)).to.equal(1);
      expect((await cluster.get()).status?.nodes?.map(({ name }) => name)).to.deep.equal(members);
    });
  }
});
