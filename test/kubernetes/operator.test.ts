import { expect } from 'chai';
import { retagImage } from '../support/kubernetes-image.ts';
import { isReady, type KubernetesObject, type Pod } from '../support/kubernetes-objects.ts';
import { type Stand, useStand } from '../support/kubernetes-stand.ts';
import type { Sighting } from '../support/kubernetes-watch.ts';
import { conditionOf, stands } from '../support/kvcluster.ts';
import { inSync, MembersObserver } from '../support/kvcluster-members.ts';
import { underWriter } from '../support/kvcluster-writer.ts';
import { imageValues } from '../support/operator-release.ts';
import { waitFor } from '../support/wait.ts';

interface StatefulSet extends KubernetesObject {
  spec: { template: unknown };
  status: { updateRevision?: string };
}

const operatorPods = '--selector=app.kubernetes.io/name=kvcluster-operator';

/** What restarts data pods when it changes, and the pods. */
async function dataPlane({ cluster, kubectl }: Stand): Promise<unknown> {
  const { metadata, spec, status } = await kubectl.get<StatefulSet>('statefulset', cluster.name);
  return {
    pods: await cluster.podUids(),
    set: { uid: metadata.uid, generation: metadata.generation, revision: status.updateRevision },
    template: spec.template,
  };
}

/** Waits for proof that the operator works: it repairs an object that is of no use to running nodes. */
async function operatorAtWork({ cluster, kubectl }: Stand): Promise<void> {
  await kubectl.run(['delete', 'poddisruptionbudget', cluster.name]);
  await waitFor({ what: 'the operator to repair something', timeoutMs: 60_000, intervalMs: 500 }, () =>
    kubectl.find('poddisruptionbudget', cluster.name),
  );
}

/** Pods in the order in which they were asked to go, with the time. */
function departures(sightings: readonly Sighting<Pod>[]): { pod: string; atMs: number }[] {
  const seen = new Set<string>();
  return sightings.flatMap(({ atMs, object: { metadata } }) => {
    if (metadata.deletionTimestamp === undefined || seen.has(metadata.uid)) return [];
    seen.add(metadata.uid);
    return [{ pod: metadata.name, atMs }];
  });
}

/** The largest number of pods that were not serving at the same time. */
function mostDownAtOnce(sightings: readonly Sighting<Pod>[]): number {
  const down = new Set<string>();
  return Math.max(
    ...sightings.map(({ object }) => {
      if (isReady(object)) down.delete(object.metadata.name);
      else down.add(object.metadata.name);
      return down.size;
    }),
  );
}

describe('the operator', () => {
  const stand = useStand();

  it('changes nothing in the data pods when it is restarted', async () => {
    const { kubectl, cluster } = stand();
    const before = await dataPlane(stand());
    await kubectl.run(['delete', 'pods', operatorPods]);
    await operatorAtWork(stand());
    await cluster.ready();
    expect(await dataPlane(stand())).to.deep.equal(before);
  });

  it('changes nothing in the data pods when it is upgraded to another tag with other labels', async () => {
    const { image, kubectl, cluster, operator } = stand();
    const before = await dataPlane(stand());
    const { status } = await cluster.get();
    const upgraded = await retagImage(image, 'upgraded');
    const older = await operator.kubectl.run(['get', 'pods', operatorPods, '--output=name']);
    await operator.upgrade({ image: imageValues(upgraded), podLabels: { generation: 'next' } });
    await kubectl.run(['wait', '--for=delete', ...older.trim().split('\n'), '--timeout=60s']);
    await operatorAtWork(stand());
    await cluster.ready();
    const [pod] = await operator.kubectl.list<Pod>(
      'pods',
      operatorPods,
      '--field-selector=status.phase=Running',
    );
    expect(pod?.spec.containers[0]?.image).to.equal(upgraded);
    expect(await dataPlane(stand())).to.deep.equal(before);
    expect((await cluster.get()).status?.image).to.equal(status?.image);
  });

  it('rolls a changed template one pod at a time, each after all are in sync, without an error for our client', async () => {
    const { cluster } = stand();
    const older = await cluster.podUids();
    await using pods = cluster.watchPods();
    await using members = await MembersObserver.start(cluster);
    await members.allInSync(0);

    let changedMs = 0;
    const { all } = await underWriter(cluster, async () => {
      changedMs = performance.now();
      await cluster.patch({ resources: { requests: { cpu: '60m' } } });
      await cluster.podsReady(older);
      await cluster.ready(90_000);
    });

    expect({ refused: all.refused, unknown: all.unknown }, 'errors that reached the caller').to.deep.equal({
      refused: 0,
      unknown: 0,
    });
    const gone = departures(pods.since(changedMs));
    expect(gone.map(({ pod }) => pod).sort(), 'restarted pods').to.deep.equal([...cluster.podNames]);
    expect(mostDownAtOnce(pods.sightings), 'pods down at once').to.equal(1);
    // From the return of one to the departure of the next there was a moment at which all were in sync.
    gone.slice(1).forEach(({ pod, atMs }, index) => {
      const previous = gone[index];
      const between = members.sightings.filter(
        (sighting) =>
          sighting.atMs > (previous?.atMs ?? 0) &&
          sighting.atMs < atMs &&
          inSync(sighting.byPod, cluster.replicas),
      );
      expect(between, `looks at which all were in sync before ${pod} went`).not.to.deep.equal([]);
    });
    for (const pod of await cluster.pods()) {
      expect(pod.spec.containers[0]).to.have.nested.property('resources.requests.cpu', '60m');
    }
  });

  it('stops at the first pod that an image breaks, and replaces it at once when the image is right again', async () => {
    const { cluster, kubectl } = stand();
    const before = await cluster.podUids();
    const { image } = (await cluster.get()).status ?? {};
    await using status = cluster.watch();
    await using pods = cluster.watchPods();
    await cluster.patch({ image: 'localhost/kvcluster:does-not-exist' });
    const { object: broken } = await pods.until(
      { what: 'a pod that cannot start', timeoutMs: 60_000 },
      ({ status: { containerStatuses } }) =>
        /ErrImage|ImagePull|ErrImageNeverPull/.test(JSON.stringify(containerStatuses ?? [])),
    );
    await status.until({ what: 'Degraded', timeoutMs: 20_000 }, (object) =>
      stands(object, 'Degraded', 'True'),
    );
    const now = await cluster.podUids();
    const replaced = cluster.podNames.filter((pod) => now[pod] !== before[pod]);
    expect(replaced, 'pods that were replaced').to.deep.equal([broken.metadata.name]);
    expect(conditionOf(await cluster.get(), 'Available')?.status).to.equal('True');

    const correctedMs = performance.now();
    await kubectl.run([
      'patch',
      'kvcluster',
      cluster.name,
      '--type=merge',
      `--patch=${JSON.stringify({ spec: { image } })}`,
    ]);
    await pods.until(
      { what: 'the broken pod to be replaced', timeoutMs: 30_000, sinceMs: correctedMs },
      (pod) => pod.metadata.uid === broken.metadata.uid && pod.metadata.deletionTimestamp !== undefined,
    );
    await cluster.ready(60_000);
    const after = await cluster.podUids();
    const untouched = cluster.podNames.filter((pod) => pod !== broken.metadata.name);
    for (const pod of untouched) expect(after[pod], pod).to.equal(before[pod]);
  });
});
