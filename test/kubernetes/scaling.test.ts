import { expect } from 'chai';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { partitionsHeldBy, replicaSets } from '../../model/replica-sets.ts';
import type { KubernetesObject, Pod } from '../support/kubernetes-objects.ts';
import { useStand } from '../support/kubernetes-stand.ts';
import { KVClusterUnderTest, stands } from '../support/kvcluster.ts';
import { underWriter } from '../support/kvcluster-writer.ts';
import { measured, secondsBetween } from '../support/measured.ts';
import { waitFor } from '../support/wait.ts';

/** Three nodes become four, and four become three again, in less. */
const SCALE_MS = 150_000;

async function mapOf(cluster: KVClusterUnderTest): Promise<ClusterMap> {
  await using client = await cluster.connect();
  const map = await client.describeCluster();
  if (map === undefined) throw new Error('the cluster has no map');
  return map;
}

async function scale(cluster: KVClusterUnderTest, replicas: number): Promise<void> {
  await cluster.kubectl.run(['scale', 'kvcluster', cluster.name, `--replicas=${replicas}`]);
}

describe('a KVCluster whose size changes', () => {
  const stand = useStand();

  it('gives an added node its share of partitions under the writer', async () => {
    const { cluster, kubectl } = stand();
    const larger = new KVClusterUnderTest(kubectl, cluster.name, 4);
    await underWriter(larger, async () => {
      const sinceMs = performance.now();
      await scale(cluster, 4);
      await larger.ready(SCALE_MS);
      measured(`scale from 3 to 4 nodes under 250 writes/s: ${secondsBetween(sinceMs, performance.now())} s`);
    });
    const map = await mapOf(larger);
    expect(map.members.map(({ nodeId }) => nodeId)).to.deep.equal(larger.podNames);
    for (const nodeId of larger.podNames) {
      expect(partitionsHeldBy(map, nodeId), nodeId).to.have.length((map.partitions * 3) / 4);
    }
    const { status } = await larger.get();
    expect(status?.nodes?.map(({ name, partitions }) => `${name} ${partitions}`)).to.deep.equal(
      larger.podNames.map((name) => `${name} ${(map.partitions * 3) / 4}`),
    );
  });

  it('empties a node under the writer before its pod goes, and keeps its volume', async () => {
    const { cluster, kubectl } = stand();
    const leaving = `${cluster.name}-3`;
    await using pods = cluster.watchPods();
    let early: string | undefined;
    await underWriter(cluster, async () => {
      const sinceMs = performance.now();
      await scale(cluster, 3);
      await waitFor({ what: `${leaving} to go`, timeoutMs: SCALE_MS, intervalMs: 200 }, async (see) => {
        const going = pods.sightings.some(
          ({ object }) => object.metadata.name === leaving && object.metadata.deletionTimestamp !== undefined,
        );
        const map = await mapOf(cluster);
        see(`the map of epoch ${map.epoch} has ${map.members.length} members`);
        const listed = map.members.some(({ nodeId }) => nodeId === leaving);
        if (going && listed) early ??= `${leaving} went while epoch ${map.epoch} listed it`;
        return going && !listed;
      });
      await cluster.ready(SCALE_MS);
      measured(`drain from 4 to 3 nodes under 250 writes/s: ${secondsBetween(sinceMs, performance.now())} s`);
    });
    expect(early).to.equal(undefined);
    const map = await mapOf(cluster);
    expect(map.members.map(({ nodeId }) => nodeId)).to.deep.equal(cluster.podNames);
    expect(map.retired.map(({ nodeId }) => nodeId)).to.include(leaving);
    expect(
      (await kubectl.list<Pod>('pods', cluster.selector)).map(({ metadata }) => metadata.name),
    ).to.have.members(cluster.podNames);
    const claim = await kubectl.get<KubernetesObject>('persistentvolumeclaim', `data-${leaving}`);
    expect(claim.metadata.name).to.equal(`data-${leaving}`);
  });

  it('begins blank on the volume of a node that had left', async () => {
    const { cluster, kubectl } = stand();
    const larger = new KVClusterUnderTest(kubectl, cluster.name, 4);
    await scale(cluster, 4);
    await larger.ready(SCALE_MS);
    const map = await mapOf(larger);
    expect(partitionsHeldBy(map, `${cluster.name}-3`)).to.have.length((map.partitions * 3) / 4);
    await scale(cluster, 3);
    await cluster.ready(SCALE_MS);
    await waitFor(
      { what: 'the pod to go', timeoutMs: 60_000 },
      async () => (await cluster.pods()).length === 3,
    );
    await kubectl.run(['delete', 'persistentvolumeclaim', `data-${cluster.name}-3`]);
  });

  it('drops copies and makes them again when replicationFactor changes, under the writer', async () => {
    const { cluster } = stand();
    await using status = cluster.watch();
    await underWriter(cluster, async () => {
      for (const replicationFactor of [2, 3]) {
        await cluster.patch({ replicationFactor });
        await cluster.ready(SCALE_MS);
        const map = await mapOf(cluster);
        const copies = map.assignment.map(
          (_replicas, partition) => replicaSets(map, partition).holders.length,
        );
        expect(new Set(copies)).to.deep.equal(new Set([replicationFactor]));
      }
    });
    expect(status.sightings.some(({ object }) => stands(object, 'Progressing', 'True', 'Scaling'))).to.equal(
      true,
    );
  });
});
