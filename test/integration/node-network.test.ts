import { expect } from 'chai';
import { KvClient, KvError } from '../../client/kv-client.ts';
import { measured } from '../support/measured.ts';
import { ProcessCluster } from '../support/process-cluster.ts';
import type { SupervisedNode } from '../support/supervised-node.ts';
import { waitFor } from '../support/wait.ts';

const SOON_MS = 30_000;
/** What the slow replica takes for everything. */
const SLOW_MS = 5000;

/** Runs an action with a client of these nodes alone. */
async function asking<T>(
  nodes: readonly SupervisedNode[],
  action: (client: KvClient) => Promise<T>,
): Promise<T> {
  const endpoints = nodes.map(({ clientAddress }) => clientAddress);
  await using client = await KvClient.connect({ endpoints, timeoutMs: 2500, routing: false });
  return await action(client);
}

/** What a node itself has. */
async function heldBy(node: SupervisedNode, key: string): Promise<string | undefined> {
  return asking([node], async (client) => (await client.get(key, { consistency: 'ONE' }))?.value.toString());
}

async function errorOf(promise: Promise<unknown>): Promise<KvError | undefined> {
  try {
    await promise;
    return undefined;
  } catch (error) {
    if (error instanceof KvError) return error;
    throw error;
  }
}

describe('three nodes and the network between them', () => {
  let cluster: ProcessCluster;
  let first: SupervisedNode;
  let second: SupervisedNode;
  let third: SupervisedNode;

  before(async () => {
    cluster = await ProcessCluster.start({});
    [first, second, third] = cluster.nodes as [SupervisedNode, SupervisedNode, SupervisedNode];
    await cluster.untilEqual();
  });

  afterEach(async () => {
    cluster.mesh.healAll();
    await cluster.untilEqual();
  });

  after(async () => {
    await (cluster as ProcessCluster | undefined)?.[Symbol.asyncDispose]();
  });

  const ways: readonly [string, (a: SupervisedNode, b: SupervisedNode) => void][] = [
    ['whose connections end', (a, b) => cluster.mesh.sever(a.nodeId, b.nodeId)],
    [
      'on which every packet is lost',
      (a, b) => {
        cluster.mesh.disturb(a.nodeId, b.nodeId, { mode: 'stall' });
        cluster.mesh.disturb(b.nodeId, a.nodeId, { mode: 'stall' });
      },
    ],
  ];
  for (const [how, part] of ways) {
    it(`answers QUORUM with the majority alone, ONE on both sides, and becomes equal, after a network ${how} (scenario 7)`, async () => {
      const [before, minority, majority] = [`before ${how}`, `minority ${how}`, `majority ${how}`];
      await asking([first], (client) => client.put(before, 'old', { consistency: 'ALL' }));
      part(first, second);
      part(first, third);
      await waitFor({ what: 'the majority to take writes', timeoutMs: SOON_MS }, async () => {
        await asking([second, third], (client) => client.put(majority, 'new'));
        return true;
      });
      // What was sent before the node noticed may be applied later; what it refused is not.
      let attempts = 0;
      await waitFor({ what: 'the minority to refuse', timeoutMs: SOON_MS }, async (see) => {
        attempts += 1;
        const error = await errorOf(asking([first], (client) => client.put(before, `attempt ${attempts}`)));
        see(String(error));
        return error?.code === 'UNAVAILABLE' && error.retryable;
      });
      expect(await errorOf(asking([first], (client) => client.get(before, { consistency: 'QUORUM' }))))
        .to.be.instanceOf(KvError)
        .with.property('code')
        .that.is.oneOf(['UNAVAILABLE', 'DEADLINE_EXCEEDED']);
      await asking([first], (client) => client.put(minority, 'one', { consistency: 'ONE' }));
      expect(await heldBy(first, minority)).to.equal('one');

      cluster.mesh.healAll();
      await cluster.untilEqual();
      for (const node of cluster.nodes) {
        expect(await heldBy(node, minority), node.nodeId).to.equal('one');
        expect(await heldBy(node, majority), node.nodeId).to.equal('new');
        expect(await heldBy(node, before), node.nodeId)
          .to.be.a('string')
          .and.not.equal(`attempt ${attempts}`);
      }
    });
  }

  it('reads at QUORUM a write whose coordinator was killed before the third replica had it, and brings it there without that one, or by its log when it is back (scenario 5)', async () => {
    cluster.mesh.sever(first.nodeId, third.nodeId);
    await asking([first], async (client) => {
      await client.put('killed/read', 'r');
      await client.put('killed/compared', 'c');
    });
    expect(await heldBy(third, 'killed/compared')).to.equal(undefined);
    await first.end('SIGKILL');
    const read = await asking([third], (client) => client.get('killed/read', { consistency: 'QUORUM' }));
    expect(read?.value.toString()).to.equal('r');
    await waitFor({ what: 'the third replica to have what nobody read', timeoutMs: SOON_MS }, async () => {
      return (await heldBy(third, 'killed/compared')) === 'c';
    });
    cluster.mesh.healAll();
    first.release();
    await first.ready();
    await cluster.untilEqual();

    cluster.mesh.sever(first.nodeId, third.nodeId);
    await asking([first], (client) => client.put('killed/resent', 's'));
    await first.end('SIGKILL');
    // From nobody but the coordinator.
    cluster.mesh.sever(second.nodeId, third.nodeId);
    cluster.mesh.heal(first.nodeId, third.nodeId);
    first.release();
    await first.ready();
    await waitFor({ what: 'the log to bring it', timeoutMs: SOON_MS }, async () => {
      return (await heldBy(third, 'killed/resent')) === 's';
    });
  });

  it('serves QUORUM as fast as without a replica that takes 5 s for everything, in bounded memory, and shows the lag (scenario 18)', async () => {
    const usual = await percentile99(first, 'usual');
    const memory = (await first.metric('process_resident_memory_bytes')) ?? 0;
    for (const other of [first, second]) {
      cluster.mesh.disturb(other.nodeId, third.nodeId, { delayMs: SLOW_MS });
      cluster.mesh.disturb(third.nodeId, other.nodeId, { delayMs: SLOW_MS });
    }
    const slow = await percentile99(first, 'slow');
    // Until the third replica's first answer has come through twice the delay.
    const behind = await waitFor({ what: 'the lag to show', timeoutMs: SLOW_MS }, async () => {
      const entries = await first.metric(`kv_peer_ahead_entries{peer="${third.nodeId}"}`);
      return entries !== undefined && entries > 0 ? entries : false;
    });
    const grown = ((await first.metric('process_resident_memory_bytes')) ?? 0) - memory;
    measured(
      `p99 of a QUORUM put ${usual} ms, with a slow replica ${slow} ms; it is ${behind} entries behind`,
    );
    expect(slow).to.be.lessThan(SLOW_MS / 2);
    expect(grown).to.be.lessThan(200 * 1024 * 1024);
    cluster.mesh.healAll();
    await waitFor({ what: 'the lag to be gone', timeoutMs: SOON_MS }, async (see) => {
      const left = await first.metric(`kv_peer_ahead_entries{peer="${third.nodeId}"}`);
      see(`${left} entries`);
      return left === 0;
    });
  });

  it('lets no message meant for another node in, and reaches every peer again at its new address, without a restart (scenario 19)', async () => {
    const pids = cluster.nodes.map(({ pid }) => pid);
    const refused = async (): Promise<number> => {
      const reasons = await Promise.all(cluster.nodes.map((node) => node.metrics('kv_refused_calls_total')));
      return reasons.flat().reduce((sum, { value }) => sum + value, 0);
    };
    const before = await refused();
    // Every name leads to the pod that has another one's address now.
    cluster.mesh.setTarget(first.nodeId, second.ports.peerPort);
    cluster.mesh.setTarget(second.nodeId, third.ports.peerPort);
    cluster.mesh.setTarget(third.nodeId, first.ports.peerPort);
    cluster.mesh.reconnect();
    await waitFor(
      { what: 'messages to be refused by who they are not meant for', timeoutMs: SOON_MS },
      async () => {
        return (await refused()) > before;
      },
    );
    await waitFor({ what: 'nobody to be connected', timeoutMs: SOON_MS }, async (see) => {
      const peers = (await Promise.all(cluster.nodes.map((node) => cluster.statusOf(node)))).flatMap(
        (status) => status?.peers ?? [],
      );
      see(JSON.stringify(peers));
      return peers.length === 6 && peers.every(({ connected }) => !connected);
    });
    for (const node of cluster.nodes) cluster.mesh.setTarget(node.nodeId, node.ports.peerPort);
    await cluster.untilEqual();
    await asking([first], (client) => client.put('after the move', 'x', { consistency: 'ALL' }));
    expect(cluster.nodes.map(({ pid }) => pid)).to.deep.equal(pids);
  });

  /** Of writes at QUORUM through one node, milliseconds. */
  async function percentile99(node: SupervisedNode, prefix: string): Promise<number> {
    return asking([node], async (client) => {
      const times: number[] = [];
      const write = async (writer: number): Promise<void> => {
        for (let index = 0; index < 50; index += 1) {
          const startedMs = performance.now();
          await client.put(`${prefix}/${writer}/${index}`, 'x'.repeat(1000));
          times.push(performance.now() - startedMs);
        }
      };
      await Promise.all(Array.from({ length: 8 }, (_, writer) => write(writer)));
      times.sort((a, b) => a - b);
      return Math.round(times[Math.floor(times.length * 0.99)] ?? 0);
    });
  }
});
