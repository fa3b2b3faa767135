import { expect } from 'chai';
import { KvClient } from '../../client/kv-client.ts';
import { replicaSets } from '../../model/replica-sets.ts';
import { Checker } from '../support/checker.ts';
import { isRunning, LocalTestCluster } from '../support/local-cluster.ts';
import { answering, fetchFrom, type LocalPod, podsOf } from '../support/local-workers.ts';
import { waitFor } from '../support/wait.ts';

const MEMBERS = ['kv-0', 'kv-0-w1', 'kv-1', 'kv-1-w1', 'kv-2', 'kv-2-w1'];

function ended(pids: Iterable<number>): Promise<unknown> {
  const all = [...pids];
  const what = { what: 'the end of the workers', timeoutMs: 20_000, intervalMs: 50 };
  return waitFor(what, () => !all.some(isRunning));
}

describe('nodes of two workers each', function () {
  this.timeout(90_000);
  let cluster: LocalTestCluster;

  before(async () => {
    cluster = await LocalTestCluster.start(['--workers', '2']);
  });

  after(async () => {
    await (cluster as LocalTestCluster | undefined)?.dispose();
  });

  const podNamed = (name: string): LocalPod => podsOf(cluster).find((pod) => pod.name === name)!;

  it('are six members, of which none holds a key together with another one of its node', async () => {
    expect([...cluster.runner.nodePids().keys()].toSorted()).to.deep.equal(MEMBERS);
    expect([...cluster.runner.podPids().keys()].toSorted()).to.deep.equal(['kv-0', 'kv-1', 'kv-2']);
    await waitFor({ what: 'all members to be ready and in sync', timeoutMs: 30_000 }, async (see) => {
      const { text } = await cluster.kvctl(['status']);
      see(text);
      return MEMBERS.every((name) => new RegExp(`^${name} +readable +yes +yes `, 'm').test(text));
    });
    await using client = await KvClient.connect({ endpoints: cluster.endpoints });
    const map = await client.describeCluster();
    const podOf = new Map(map?.members.map(({ nodeId, pod }) => [nodeId, pod]));
    const pods = map?.assignment.map((_, partition) =>
      replicaSets(map, partition).read.map((id) => podOf.get(id)),
    );
    expect(pods?.length).to.equal(256);
    for (const set of pods ?? []) expect(new Set(set).size).to.equal(3);
  });

  it('take operations on the port of the node, whose connections are spread over its workers', async () => {
    const { client: address } = podNamed('kv-1');
    const names = await answering(address, 6);
    expect(names.toSorted()).to.deep.equal(['kv-1', 'kv-1', 'kv-1', 'kv-1-w1', 'kv-1-w1', 'kv-1-w1']);
    await using client = await KvClient.connect({ endpoints: address });
    await client.put('generic', 'port');
    expect((await client.get('generic'))?.value.toString()).to.equal('port');
  });

  it('answer probes for all of them, and show the metrics of each', async () => {
    const pod = podNamed('kv-0');
    expect(await fetchFrom(pod, '/readyz')).to.deep.equal({ status: 200, body: 'ok\n' });
    expect(await fetchFrom(pod, '/healthz')).to.deep.equal({ status: 200, body: 'ok\n' });
    const { body } = await fetchFrom(pod, '/metrics');
    for (const worker of [0, 1]) {
      expect(body).to.match(new RegExp(`^kv_ready\\{worker="${worker}"\\} 1$`, 'm'));
      expect(body).to.match(new RegExp(`^kv_worker_up\\{worker="${worker}"\\} 1$`, 'm'));
    }
    expect(body.match(/^# TYPE kv_ready gauge$/gm)).to.have.length(1);
  });

  it('lose nothing when one of them is killed, which is started again', async () => {
    const pod = podNamed('kv-0');
    const [parent, sibling] = [cluster.runner.podPids().get('kv-0'), cluster.runner.nodePids().get('kv-0')];
    const checker = await Checker.start({ endpoints: podsOf(cluster).map(({ client }) => client) });
    const acknowledged = async (more: number): Promise<void> => {
      const goal = checker.soFar.acknowledged + more;
      await waitFor(
        { what: `${more} more acknowledged writes`, timeoutMs: 20_000, intervalMs: 20 },
        (see) => {
          see(JSON.stringify(checker.soFar));
          return checker.soFar.acknowledged >= goal;
        },
      );
    };
    try {
      await acknowledged(300);
      const killed = cluster.runner.nodePids().get('kv-0-w1')!;
      process.kill(killed, 'SIGKILL');
      await waitFor({ what: 'the probe to name it', timeoutMs: 5000, intervalMs: 5 }, async (see) => {
        const { status, body } = await fetchFrom(pod, '/readyz');
        see(body);
        return status === 503 && body.includes('kv-0-w1: ');
      });
      // The others of the node serve on, and its own clients are handed to them.
      expect((await fetchFrom(pod, '/healthz')).status).to.equal(200);
      expect(new Set(await answering(pod.client, 2))).to.include('kv-0');
      await acknowledged(500);
      await cluster.untilInSync();
      await waitFor({ what: 'the node to be ready', timeoutMs: 10_000, intervalMs: 20 }, async () => {
        return (await fetchFrom(pod, '/readyz')).status === 200;
      });
      expect(cluster.runner.nodePids().get('kv-0-w1')).to.not.equal(killed);
    } finally {
      await checker.stop();
    }
    expect(await checker.verify(cluster.endpoints)).to.deep.equal([]);
    expect(cluster.runner.podPids().get('kv-0')).to.equal(parent);
    expect(cluster.runner.nodePids().get('kv-0')).to.equal(sibling);
    expect((await fetchFrom(pod, '/metrics')).body).to.match(/^kv_worker_restarts_total\{worker="1"\} 1$/m);
  });

  it('end with the process that looks after them, and come back with their data', async () => {
    await cluster.kvctl(['put', 'durable', 'yes']);
    const workers = ['kv-2', 'kv-2-w1'].map((name) => cluster.runner.nodePids().get(name)!);
    process.kill(cluster.runner.podPids().get('kv-2')!, 'SIGKILL');
    await ended(workers);
    await waitFor({ what: 'other workers', timeoutMs: 20_000, intervalMs: 50 }, () => {
      const now = cluster.runner.nodePids();
      return ['kv-2', 'kv-2-w1'].every((name) => now.has(name) && !workers.includes(now.get(name)!));
    });
    await cluster.untilInSync();
    for (const { client } of cluster.layout.nodes.filter(({ nodeId }) => nodeId.startsWith('kv-2'))) {
      const { text } = await cluster.kvctl(['get', 'durable', '--endpoints', client]);
      expect(text).to.equal('yes');
    }
  });

  it('all end on SIGTERM, in order', async () => {
    const { runner } = cluster;
    const pids = [...runner.podPids().values(), ...runner.nodePids().values()];
    expect(pids).to.have.length(9);
    runner.process.kill('SIGTERM');
    expect(await runner.ended()).to.equal(0);
    expect(pids.filter(isRunning)).to.deep.equal([]);
    expect(runner.output).to.not.contain('exited with code');
    await cluster.restart();
    expect((await cluster.kvctl(['get', 'durable'])).text).to.equal('yes');
  });
});

describe('a local cluster whose number of workers changes', function () {
  this.timeout(120_000);
  let cluster: LocalTestCluster;
  const keys = Array.from({ length: 200 }, (_, index) => `key-${index}`);

  before(async () => {
    cluster = await LocalTestCluster.start();
    await using client = await KvClient.connect({ endpoints: cluster.endpoints });
    for (const key of keys) await client.put(key, `value of ${key}`);
  });

  after(async () => {
    await (cluster as LocalTestCluster | undefined)?.dispose();
  });

  /** Starts it again with other workers, and waits until members hold their share; the first one's shares by name. */
  async function change(workers: number, members: readonly string[]): Promise<ReadonlyMap<string, number>> {
    cluster.runner.process.kill('SIGTERM');
    await cluster.runner.ended();
    await cluster.restart(['--workers', String(workers)]);
    await waitFor(
      { what: `${workers} workers to be all there is`, timeoutMs: 60_000, intervalMs: 200 },
      (see) => {
        see(cluster.runner.output);
        return cluster.runner.output.includes(`the cluster has ${members.length} members and is in order`);
      },
    );
    const { text } = await cluster.kvctl(['status', '--output', 'json']);
    const { nodes } = JSON.parse(text) as { nodes: { nodeId: string; readablePartitions: number }[] };
    return new Map(nodes.map(({ nodeId, readablePartitions }) => [nodeId, readablePartitions]));
  }

  async function expectAllKeys(): Promise<void> {
    await using client = await KvClient.connect({ endpoints: cluster.endpoints });
    const answers = await Promise.all(keys.map((key) => client.get(key)));
    expect(answers.map((answer) => answer?.value.toString())).to.deep.equal(
      keys.map((key) => `value of ${key}`),
    );
  }

  it('gives added workers their share of what their node holds', async () => {
    expect([...(await change(2, MEMBERS))]).to.deep.equal(MEMBERS.map((name) => [name, 128]));
    await expectAllKeys();
  });

  it('empties the workers that are not wanted any more', async () => {
    const names = ['kv-0', 'kv-1', 'kv-2'];
    expect([...(await change(1, names))]).to.deep.equal(names.map((name) => [name, 256]));
    await expectAllKeys();
    await waitFor({ what: 'the layout of three', timeoutMs: 5000 }, () => cluster.layout.nodes.length === 3);
    cluster.runner.process.kill('SIGTERM');
    await cluster.runner.ended();
    await cluster.restart();
    expect([...cluster.runner.nodePids().keys()]).to.have.members(names);
    await expectAllKeys();
  });
});
