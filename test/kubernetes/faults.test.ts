import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { KvClient, KvError } from '../../client/kv-client.ts';
import type { Kubectl } from '../support/kubectl.ts';
import { killContainer, partition, podIp } from '../support/kubernetes-faults.ts';
import type { KubernetesObject, Pod } from '../support/kubernetes-objects.ts';
import { isReady } from '../support/kubernetes-objects.ts';
import { useStand } from '../support/kubernetes-stand.ts';
import { conditionOf, type KVClusterUnderTest, stands } from '../support/kvcluster.ts';
import { MembersObserver } from '../support/kvcluster-members.ts';
import { underWriter } from '../support/kvcluster-writer.ts';
import { measured, secondsBetween } from '../support/measured.ts';
import { waitFor } from '../support/wait.ts';

/** How soon status has to show a fault, and its end. */
const promptlyMs = 10_000;

/** Keys that are written once, acknowledged at QUORUM and never changed. */
const knownKeys = Array.from({ length: 200 }, (_, index) => `known/${index}`);
const knownValue = (key: string): string => `the value of ${key}`;

async function putKnownKeys(cluster: KVClusterUnderTest): Promise<void> {
  await using client = await cluster.connect();
  await Promise.all(knownKeys.map((key) => client.put(key, knownValue(key))));
}

/** Those of the known keys that a node does not give as they were put. */
async function lostOn(cluster: KVClusterUnderTest, pod: string): Promise<string[]> {
  await using client = await cluster.connectTo(pod);
  const answers = await Promise.all(knownKeys.map((key) => client.get(key, { consistency: 'ONE' })));
  return knownKeys.filter((key, index) => answers[index]?.value.toString() !== knownValue(key));
}

interface Poll extends AsyncDisposable {
  /** Ends it, and gives what was seen. Idempotent. */
  stop(): Promise<PollResult>;
}

/** Reads the known keys from one pod, whichever is called so at the time, as closely as can be. */
function pollPod(cluster: KVClusterUnderTest, pod: string): Poll {
  const result: PollResult = { answered: 0, errors: 0, wrong: [] };
  const stopping = new AbortController();
  const running = (async (): Promise<void> => {
    await using pods = cluster.watchPods();
    while (!stopping.signal.aborted) {
      const latest = pods.sightings.findLast(({ object }) => object.metadata.name === pod)?.object;
      const address = latest?.status.podIP;
      if (address !== undefined) await readFrom(address, result, stopping.signal).catch(() => undefined);
      await delay(20);
    }
  })();
  const stop = async (): Promise<PollResult> => {
    stopping.abort();
    await running;
    return result;
  };
  return {
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop();
    },
  };
}

/** Reads until there is an error. */
async function readFrom(address: string, result: PollResult, signal: AbortSignal): Promise<void> {
  await using client = await KvClient.connect({
    endpoints: `${address}:50051`,
    timeoutMs: 200,
    routing: false,
  });
  for (let index = 0; !signal.aborted; index += 1) {
    const key = knownKeys[index % knownKeys.length] ?? '';
    try {
      const answer = await client.get(key, { consistency: 'ONE', timeoutMs: 200 });
      result.answered += 1;
      if (answer?.value.toString() !== knownValue(key)) result.wrong.push(key);
    } catch (error) {
      result.errors += 1;
      throw error;
    }
    await delay(2);
  }
}

interface PollResult {
  answered: number;
  errors: number;
  /** Acknowledged keys that were not there, or had another value. */
  wrong: string[];
}

async function claimUid(kubectl: Kubectl, pod: string): Promise<string> {
  return (await kubectl.get<KubernetesObject>('persistentvolumeclaim', `data-${pod}`)).metadata.uid;
}

describe('a KVCluster under faults', () => {
  const stand = useStand({ prepare: ({ cluster }) => putKnownKeys(cluster) });

  it('loses no acknowledged write when a pod is deleted, stays Available, and says what is missing and when it is back', async () => {
    const { cluster, kubectl } = stand();
    const pod = cluster.podNames[1] ?? '';
    await using status = cluster.watch();
    await using members = await MembersObserver.start(cluster);
    const before = (await members.allInSync(0)).byPod.get(pod)?.volume?.incarnation;
    const claim = await claimUid(kubectl, pod);
    const older = await cluster.podUids();

    await underWriter(cluster, async () => {
      const faultMs = performance.now();
      await kubectl.run(['delete', 'pod', pod, '--wait=false']);
      const told = { timeoutMs: promptlyMs, sinceMs: faultMs };
      await Promise.all([
        status.until({ what: 'Ready=False', ...told }, (object) => stands(object, 'Ready', 'False')),
        status.until({ what: 'Degraded for MemberDown', ...told }, (object) =>
          stands(object, 'Degraded', 'True', 'MemberDown'),
        ),
      ]);
      await cluster.podsReady({ [pod]: older[pod] ?? '' }, [pod]);
      const readyPodMs = performance.now();
      const synced = await members.allInSync(readyPodMs);
      const back = await status.until(
        { what: 'Ready=True', timeoutMs: promptlyMs, sinceMs: readyPodMs },
        (object) => stands(object, 'Ready', 'True'),
      );
      expect(back.atMs - synced.atMs, 'from being in sync to Ready').to.be.below(promptlyMs);
      expect(synced.byPod.get(pod)?.volume?.incarnation, 'the incarnation').to.equal(before);
      measured(
        `deleted pod under a writer: Ready after ${secondsBetween(faultMs, readyPodMs)} s, ` +
          `in sync after ${secondsBetween(faultMs, synced.atMs)} s, cluster Ready after ${secondsBetween(faultMs, back.atMs)} s`,
      );
    });

    expect(await claimUid(kubectl, pod)).to.equal(claim);
    const availability = status.sightings.map(({ object }) => conditionOf(object, 'Available'));
    expect(availability.filter((condition) => condition?.status !== 'True')).to.deep.equal([]);
  });

  it('loses no acknowledged write when a node is killed, and the kubelet starts it again', async () => {
    const { cluster, kubectl } = stand();
    const pod = cluster.podNames[2] ?? '';
    const restarts = (of: Pod): number => of.status.containerStatuses?.[0]?.restartCount ?? 0;
    const before = await kubectl.get<Pod>('pod', pod);
    await using members = await MembersObserver.start(cluster);

    await underWriter(cluster, async () => {
      const faultMs = performance.now();
      await killContainer(kubectl, pod);
      const back = await waitFor(
        { what: `${pod} to be Ready again`, timeoutMs: 60_000, intervalMs: 500 },
        async (see) => {
          const now = await kubectl.get<Pod>('pod', pod);
          see(JSON.stringify(now.status.containerStatuses));
          return isReady(now) && restarts(now) > restarts(before) && now;
        },
      );
      expect(restarts(back)).to.equal(restarts(before) + 1);
      expect(back.metadata.uid, 'the same pod').to.equal(before.metadata.uid);
      const { atMs } = await members.allInSync(performance.now());
      measured(`killed node under a writer: all in sync after ${secondsBetween(faultMs, atMs)} s`);
    });
  });

  it('rebuilds a node whose volume is lost, which meanwhile calls no acknowledged key missing', async () => {
    const { cluster, kubectl } = stand();
    const pod = cluster.podNames[0] ?? '';
    const claim = await claimUid(kubectl, pod);
    const older = await cluster.podUids();
    await using members = await MembersObserver.start(cluster);
    const before = (await members.allInSync(0)).byPod.get(pod)?.volume?.incarnation;

    await underWriter(cluster, async () => {
      await using poll = pollPod(cluster, pod);
      await kubectl.run(['delete', `pod/${pod}`, `persistentvolumeclaim/data-${pod}`, '--wait=false']);
      await cluster.podsReady({ [pod]: older[pod] ?? '' }, [pod]);
      const synced = await members.allInSync(performance.now());
      const { answered, errors, wrong } = await poll.stop();
      expect(wrong, 'acknowledged keys that were answered wrongly').to.deep.equal([]);
      expect(answered, 'answers').to.be.above(100);
      expect(errors, 'refusals, and calls while the pod was away').to.be.above(0);
      expect(synced.byPod.get(pod)?.volume?.incarnation, 'the incarnation').not.to.equal(before);
    });

    expect(await claimUid(kubectl, pod)).not.to.equal(claim);
    expect(await lostOn(cluster, pod)).to.deep.equal([]);
  });

  describe('without an operator', () => {
    before(async () => {
      await stand().operator.scale(0);
    });

    after(async () => {
      await stand().operator.scale(1);
    });

    it('takes a deleted pod back, which serves', async () => {
      const { cluster, kubectl } = stand();
      const pod = cluster.podNames[0] ?? '';
      const older = await cluster.podUids();
      await kubectl.run(['delete', 'pod', pod, '--wait=false']);
      await cluster.podsReady({ [pod]: older[pod] ?? '' }, [pod]);
      expect(await lostOn(cluster, pod)).to.deep.equal([]);
      await using client = await cluster.connectTo(pod);
      await client.put('without-operator', 'one pod later');
      expect((await client.get('without-operator'))?.value.toString()).to.equal('one pod later');
    });

    it('becomes Ready after all its pods were deleted at once, with all its data', async () => {
      const { cluster, kubectl } = stand();
      const older = await cluster.podUids();
      await kubectl.run(['delete', 'pods', cluster.selector, '--wait=false']);
      await cluster.podsReady(older);
      for (const pod of cluster.podNames) expect(await lostOn(cluster, pod), pod).to.deep.equal([]);
      await using client = await cluster.connect();
      await client.put('without-operator', 'all pods later');
      expect((await client.get('without-operator'))?.value.toString()).to.equal('all pods later');
    });

    it('rebuilds a node whose volume is lost', async () => {
      const { cluster, kubectl } = stand();
      const pod = cluster.podNames[2] ?? '';
      const older = await cluster.podUids();
      await kubectl.run(['delete', `pod/${pod}`, `persistentvolumeclaim/data-${pod}`, '--wait=false']);
      await cluster.podsReady({ [pod]: older[pod] ?? '' }, [pod]);
      expect(await lostOn(cluster, pod)).to.deep.equal([]);
    });
  });

  it('is not Available while three Ready pods cannot reach each other, and is again when they can', async () => {
    const { cluster, kubectl } = stand();
    const [a = '', b = '', c = ''] = await Promise.all(cluster.podNames.map((pod) => podIp(kubectl, pod)));
    await using status = cluster.watch();
    await using pods = cluster.watchPods();
    await using client = await cluster.connect();

    const cutMs = performance.now();
    const cuts = [await partition(a, b), await partition(b, c), await partition(a, c)];
    await status.until({ what: 'Available=False', timeoutMs: 30_000, sinceMs: cutMs }, (object) =>
      stands(object, 'Available', 'False'),
    );
    const refusal: unknown = await client
      .put('cut', 'off', { timeoutMs: 3000 })
      .catch((error: unknown) => error);
    expect(refusal).to.be.instanceOf(KvError);

    const healedMs = performance.now();
    for (const cut of cuts) await cut.heal();
    await status.until({ what: 'Available=True', timeoutMs: 30_000, sinceMs: healedMs }, (object) =>
      stands(object, 'Available', 'True'),
    );
    await status.until({ what: 'Ready=True', timeoutMs: 30_000, sinceMs: healedMs }, (object) =>
      stands(object, 'Ready', 'True'),
    );
    expect(pods.since(cutMs).filter(({ object }) => !isReady(object))).to.deep.equal([]);
    await client.put('cut', 'joined');
    expect((await client.get('cut'))?.value.toString()).to.equal('joined');
  });
});
