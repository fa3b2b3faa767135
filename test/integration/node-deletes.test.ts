import { expect } from 'chai';
import { existsSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { KvClient } from '../../client/kv-client.ts';
import { ProcessCluster } from '../support/process-cluster.ts';
import type { SupervisedNode } from '../support/supervised-node.ts';
import { waitFor } from '../support/wait.ts';

const AGE_MS = 1000;
/** Tombstones of this age are collected unless something keeps them. */
const LONG_MS = 8 * AGE_MS;
const SOON_MS = 60_000;
const KEYS = Array.from({ length: 40 }, (_, index) => `deleted/${index}`);

describe('deleted keys, while a replica is away', () => {
  let cluster: ProcessCluster;
  let client: KvClient;
  let staying: readonly SupervisedNode[];
  let away: SupervisedNode;

  beforeEach(async () => {
    cluster = await ProcessCluster.start({ flags: { 'collection-age-ms': String(AGE_MS) } });
    staying = cluster.nodes.slice(0, 2);
    away = cluster.nodes[2]!;
    const endpoints = staying.map(({ clientAddress }) => clientAddress);
    client = await KvClient.connect({ endpoints, timeoutMs: 10_000 });
    // Collection is at work before anybody leaves.
    await client.delete('probe', { consistency: 'ALL' });
    await untilCollected(cluster.nodes);
    await Promise.all(KEYS.map((key) => client.put(key, 'old', { consistency: 'ALL' })));
    await away.end('SIGKILL');
    for (const key of KEYS) await client.delete(key);
  });

  afterEach(async () => {
    (client as KvClient | undefined)?.close();
    await (cluster as ProcessCluster | undefined)?.[Symbol.asyncDispose]();
  });

  /** Records that a node has, tombstones included. */
  async function recordsOf(node: SupervisedNode): Promise<number> {
    let count = 0;
    const stream = cluster.admin.streamRecords(node.adminTarget, {}, AbortSignal.timeout(10_000));
    for await (const { records } of stream) count += records.length;
    return count;
  }

  async function untilCollected(nodes: readonly SupervisedNode[]): Promise<void> {
    await waitFor({ what: 'the tombstones to be collected', timeoutMs: SOON_MS }, async (see) => {
      const counts = await Promise.all(nodes.map(recordsOf));
      const [status] = await Promise.all(nodes.map((node) => cluster.statusOf(node)));
      see(`${counts.join(', ')} records; ${status?.collectionFrozenReason ?? 'no answer'}`);
      return counts.every((count) => count === 0);
    });
  }

  async function expectAbsentEverywhere(): Promise<void> {
    for (const { nodeId, clientAddress } of cluster.nodes) {
      await using own = await KvClient.connect({
        endpoints: [clientAddress],
        timeoutMs: 5000,
        routing: false,
      });
      for (const key of KEYS) {
        expect(await own.get(key, { consistency: 'ONE' }), `${key} at ${nodeId}`).to.equal(undefined);
      }
    }
  }

  it('keep their tombstones until it is back, and stay deleted everywhere (scenario 1)', async () => {
    await delay(LONG_MS);
    for (const node of staying) {
      expect(await recordsOf(node), node.nodeId).to.equal(KEYS.length);
      expect((await cluster.statusOf(node))?.collectionFrozenReason).to.contain(away.nodeId);
    }
    away.release();
    await cluster.untilEqual();
    await expectAbsentEverywhere();
    await untilCollected(cluster.nodes);
    await expectAbsentEverywhere();
  });

  it('are collected when it is taken out of the map, and do not come back with its old volume (scenario 2)', async () => {
    await cluster.markDown(away);
    await cluster.resizeTo(staying);
    expect(cluster.map.retired.map(({ nodeId }) => nodeId)).to.deep.equal([away.nodeId]);
    await untilCollected(staying);

    away.release();
    await waitFor({ what: 'the old volume to be set aside', timeoutMs: SOON_MS }, () => {
      if (!existsSync(away.dataDir)) return false;
      return readdirSync(away.dataDir).some((name) => name.startsWith('quarantine-'));
    });
    await cluster.resizeTo(cluster.nodes);
    await cluster.untilEqual();
    await expectAbsentEverywhere();
    for (const node of cluster.nodes) expect(await recordsOf(node), node.nodeId).to.equal(0);
  });
});
