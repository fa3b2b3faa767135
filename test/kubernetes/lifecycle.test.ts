import { expect } from 'chai';
import {
  auditEvents,
  auditMark,
  describeEvent,
  isWrite,
  serviceAccountUser,
} from '../support/kubernetes-audit.ts';
import type { KubernetesObject } from '../support/kubernetes-objects.ts';
import { useStand } from '../support/kubernetes-stand.ts';
import { conditionOf, KVClusterUnderTest, stands } from '../support/kvcluster.ts';
import { waitFor } from '../support/wait.ts';

interface Spread extends KubernetesObject {
  spec: Record<string, unknown>;
}

const ownedKinds = 'statefulsets,services,configmaps,secrets,poddisruptionbudgets,cronjobs,pods';
const keys = Array.from({ length: 100 }, (_, index) => `lifecycle/${index}`);

/** Names, with kinds, of what belongs to a KVCluster, except volume claims. */
async function belongings({ kubectl, name }: KVClusterUnderTest): Promise<string[]> {
  const objects = await kubectl.list(ownedKinds, `--selector=app.kubernetes.io/instance=${name}`);
  return objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`).sort();
}

/** Claims' uids by name: what tells a volume from its successor. */
async function claims({ kubectl, name }: KVClusterUnderTest): Promise<Record<string, string>> {
  const objects = await kubectl.list(
    'persistentvolumeclaims',
    `--selector=app.kubernetes.io/instance=${name}`,
  );
  // Scenarios before may have left a volume for backups.
  const ofNodes = objects.filter(({ metadata }) => metadata.name.startsWith('data-'));
  return Object.fromEntries(ofNodes.map(({ metadata }) => [metadata.name, metadata.uid]));
}

async function putAll(cluster: KVClusterUnderTest, value: string): Promise<void> {
  await using client = await cluster.connect();
  await Promise.all(keys.map((key) => client.put(key, value)));
}

/** How many keys have which value, read at ONE from each node. */
async function valuesByPod(cluster: KVClusterUnderTest): Promise<Record<string, Record<string, number>>> {
  const counts: Record<string, Record<string, number>> = {};
  for (const pod of cluster.podNames) {
    await using client = await cluster.connectTo(pod);
    const answers = await Promise.all(keys.map((key) => client.get(key, { consistency: 'ONE' })));
    const values = answers.map((answer) => answer?.value.toString() ?? 'missing');
    counts[pod] = Object.fromEntries(
      [...new Set(values)].map((value) => [value, values.filter((other) => other === value).length]),
    );
  }
  return counts;
}

async function expectAll(cluster: KVClusterUnderTest, value: string): Promise<void> {
  const expected = Object.fromEntries(cluster.podNames.map((pod) => [pod, { [value]: keys.length }]));
  expect(await valuesByPod(cluster)).to.deep.equal(expected);
}

async function untilGone(cluster: KVClusterUnderTest): Promise<void> {
  await waitFor({ what: 'all owned objects to be gone', timeoutMs: 90_000, intervalMs: 500 }, async (see) => {
    const left = await belongings(cluster);
    see(left.join(', '));
    return left.length === 0;
  });
}

describe('the life of a KVCluster', () => {
  let clusterId: string | undefined;
  const stand = useStand({
    async prepare({ cluster }) {
      await putAll(cluster, 'kept');
      clusterId = (await cluster.get()).status?.clusterId;
      expect(clusterId).to.match(/^[0-9a-f]{32}$/);
    },
  });

  /** The cluster is the same as at the beginning: identity, volumes and data. */
  async function expectSame(volumes: Readonly<Record<string, string>>): Promise<void> {
    const { cluster } = stand();
    expect((await cluster.get()).status?.clusterId, 'the cluster id').to.equal(clusterId);
    expect(await claims(cluster)).to.deep.equal(volumes);
    await expectAll(cluster, 'kept');
  }

  it('leaves only the volumes when it is deleted, and has its data again when it is applied again', async () => {
    const { cluster } = stand();
    const volumes = await claims(cluster);
    expect(Object.keys(volumes)).to.deep.equal(cluster.podNames.map((pod) => `data-${pod}`));
    await cluster.delete();
    await untilGone(cluster);
    expect(await claims(cluster)).to.deep.equal(volumes);
    await cluster.apply();
    await cluster.ready();
    await expectSame(volumes);
  });

  it('has its data again when it is applied again in the second of its deletion', async () => {
    const { cluster } = stand();
    const volumes = await claims(cluster);
    const { uid } = (await cluster.get()).metadata;
    await cluster.delete();
    await cluster.apply();
    expect((await cluster.get()).metadata.uid).not.to.equal(uid);
    await cluster.ready(90_000);
    await expectSame(volumes);
  });

  it('rebuilds a node whose volume claim was deleted while the cluster was away', async () => {
    const { cluster, kubectl } = stand();
    const volumes = await claims(cluster);
    await cluster.delete();
    await untilGone(cluster);
    await kubectl.run(['delete', 'persistentvolumeclaim', 'data-kv-1']);
    await cluster.apply();
    await cluster.ready(90_000);
    const { 'data-kv-1': renewed, ...others } = await claims(cluster);
    expect(renewed).to.be.a('string').and.not.equal(volumes['data-kv-1']);
    await expectSame({ ...volumes, 'data-kv-1': renewed ?? '' });
    expect(others).to.deep.equal({ 'data-kv-0': volumes['data-kv-0'], 'data-kv-2': volumes['data-kv-2'] });
  });

  it('keeps its pods, uids and all, when it is deleted with orphans and applied again', async () => {
    const { cluster } = stand();
    const volumes = await claims(cluster);
    const pods = await cluster.podUids();
    await cluster.delete('--cascade=orphan');
    await cluster.apply();
    await cluster.ready();
    expect(await cluster.podUids()).to.deep.equal(pods);
    const { uid } = (await cluster.get()).metadata;
    const set = await cluster.kubectl.get('statefulset', cluster.name);
    expect(set.metadata.ownerReferences?.map((owner) => owner.uid)).to.deep.equal([uid]);
    await expectSame(volumes);
  });

  it('gets its set back when only that is deleted', async () => {
    const { cluster, kubectl } = stand();
    const volumes = await claims(cluster);
    const pods = await cluster.podUids();
    await kubectl.run(['delete', 'statefulset', cluster.name, '--wait=false']);
    await cluster.podsReady(pods);
    await cluster.ready();
    await expectSame(volumes);
  });

  it('gets its map back from the nodes when only the topology is deleted', async () => {
    const { cluster, kubectl } = stand();
    const volumes = await claims(cluster);
    const pods = await cluster.podUids();
    const topology = `${cluster.name}-topology`;
    const mapOf = async (): Promise<unknown> =>
      (await kubectl.find<KubernetesObject & { data?: unknown }>('configmap', topology))?.data;
    const map = await mapOf();
    await kubectl.run(['delete', 'configmap', topology]);
    const restored = await waitFor(
      { what: 'the topology to be back', timeoutMs: 20_000, intervalMs: 500 },
      mapOf,
    );
    expect(restored).to.deep.equal(map);
    expect(await cluster.podUids()).to.deep.equal(pods);
    await cluster.ready();
    await expectSame(volumes);
  });

  it('gets its Services back when only they are deleted', async () => {
    const { cluster, kubectl } = stand();
    const volumes = await claims(cluster);
    const pods = await cluster.podUids();
    const services = [cluster.name, `${cluster.name}-headless`];
    await kubectl.run(['delete', 'services', ...services]);
    await waitFor({ what: 'the Services to be back', timeoutMs: 20_000, intervalMs: 500 }, async () => {
      const found = await Promise.all(services.map((service) => kubectl.find('service', service)));
      return found.every((service) => service !== undefined);
    });
    expect(await cluster.podUids()).to.deep.equal(pods);
    await cluster.ready();
    await expectSame(volumes);
  });

  it('touches nothing of others that are called as it would call its own, and says so', async () => {
    const { kubectl, operator } = stand();
    const foreign = [
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'taken' },
        spec: { selector: { app: 'theirs' }, ports: [{ port: 80 }] },
      },
      {
        apiVersion: 'apps/v1',
        kind: 'StatefulSet',
        metadata: { name: 'taken' },
        spec: {
          serviceName: 'theirs',
          replicas: 0,
          selector: { matchLabels: { app: 'theirs' } },
          template: {
            metadata: { labels: { app: 'theirs' } },
            spec: { containers: [{ name: 'theirs', image: 'theirs' }] },
          },
        },
      },
    ];
    await kubectl.apply(foreign);
    const theirs = async (): Promise<unknown[]> => {
      const objects = await kubectl.list<Spread>(
        'services,statefulsets',
        '--field-selector=metadata.name=taken',
      );
      return objects.map(({ kind, metadata, spec }) => {
        const { uid, labels, annotations, ownerReferences } = metadata;
        return { kind, uid, labels, annotations, ownerReferences, spec };
      });
    };
    const before = await theirs();
    const mark = auditMark();
    const cluster = new KVClusterUnderTest(kubectl, 'taken');
    await cluster.apply();
    await using status = cluster.watch();
    try {
      const { object } = await status.until(
        { what: 'Degraded for NameConflict', timeoutMs: 20_000 },
        (seen) => stands(seen, 'Degraded', 'True', 'NameConflict'),
      );
      expect(conditionOf(object, 'Degraded')?.message).to.include('taken');
      expect(conditionOf(object, 'Ready')?.status).to.equal('False');
      expect(await theirs()).to.deep.equal(before);
      const user = serviceAccountUser(kubectl.namespace ?? '', operator.name);
      const written = (await auditEvents(mark)).filter(
        ({ objectRef, ...event }) =>
          isWrite(event) &&
          event.user.username === user &&
          objectRef?.name?.startsWith('taken') === true &&
          !['kvclusters', 'events'].includes(objectRef.resource),
      );
      expect(written.map(describeEvent)).to.deep.equal([]);
    } finally {
      await cluster.delete();
      await kubectl.delete(foreign, '--wait=false');
    }
  });

  it('lives beside one of the same name in another namespace, each with its own data', async () => {
    const { cluster, neighbour } = stand();
    const twin = new KVClusterUnderTest(neighbour, cluster.name, 1);
    await twin.apply({ replicationFactor: 5 });
    try {
      await twin.ready();
      expect((await twin.get()).status?.clusterId)
        .to.match(/^[0-9a-f]{32}$/)
        .and.not.equal(clusterId);
      await using client = await twin.connect();
      expect((await client.describeCluster())?.replicationFactor).to.equal(5);
      expect(await client.get(keys[0] ?? '')).to.equal(undefined);
      await putAll(twin, 'of the twin');
      await expectAll(twin, 'of the twin');
      await expectAll(cluster, 'kept');
    } finally {
      await twin.delete();
    }
    await untilGone(twin);
    await expectAll(cluster, 'kept');
  });
});
