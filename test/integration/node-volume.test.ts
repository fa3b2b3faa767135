import { expect } from 'chai';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KvClient, KvError } from '../../client/kv-client.ts';
import { EXIT_FENCED } from '../../node/exit-codes.ts';
import { NodeProcess } from '../support/node-process.ts';
import { PARTITIONS, ProcessCluster } from '../support/process-cluster.ts';
import type { SupervisedNode } from '../support/supervised-node.ts';
import { waitFor } from '../support/wait.ts';

const SOON_MS = 30_000;
const KEYS = 200;
const keyAt = (index: number): string => `volume/${index}`;
const valueAt = (index: number): string => `${index}:${'v'.repeat(100 + (index % 300))}:${index}`;

describe('three nodes, of which one has a volume that is not what it was', () => {
  let cluster: ProcessCluster;
  let first: SupervisedNode;
  let second: SupervisedNode;
  let third: SupervisedNode;
  let client: KvClient;

  before(async () => {
    cluster = await ProcessCluster.start({});
    [first, second, third] = cluster.nodes as [SupervisedNode, SupervisedNode, SupervisedNode];
    client = await KvClient.connect({ endpoints: [...cluster.addresses.values()], timeoutMs: 10_000 });
    const indexes = Array.from({ length: KEYS }, (_, index) => index);
    await Promise.all(indexes.map((index) => client.put(keyAt(index), valueAt(index))));
    await cluster.untilEqual();
  });

  after(async () => {
    (client as KvClient | undefined)?.close();
    await (cluster as ProcessCluster | undefined)?.[Symbol.asyncDispose]();
  });

  /** What a node answers at ONE: its error's code when it is one. */
  async function asked(node: SupervisedNode, key: string): Promise<string | undefined> {
    await using own = await KvClient.connect({
      endpoints: [node.clientAddress],
      timeoutMs: 1500,
      routing: false,
    });
    try {
      return (await own.get(key, { consistency: 'ONE' }))?.value.toString();
    } catch (error) {
      if (error instanceof KvError) return error.code;
      throw error;
    }
  }

  /** Whether the node serves all that was written; throws when it serves anything else. */
  async function servesEverything(node: SupervisedNode): Promise<boolean> {
    for (let index = 0; index < KEYS; index += 1) {
      const answer = await asked(node, keyAt(index));
      if (answer === 'UNAVAILABLE' || answer === 'DEADLINE_EXCEEDED' || answer === 'DATA_LOSS') return false;
      expect(answer, keyAt(index)).to.equal(valueAt(index));
    }
    return true;
  }

  it('take its acknowledgements when it is blank, and no answer from it until it has what it lost (scenario 11)', async () => {
    await first.end('SIGKILL');
    first.wipe();
    // One other alone is not enough to learn from what was lost.
    cluster.mesh.sever(first.nodeId, third.nodeId);
    first.release();
    await waitFor({ what: 'it to be connected', timeoutMs: SOON_MS }, async () => {
      const peers = (await cluster.statusOf(first))?.peers ?? [];
      return peers.some(({ nodeId, connected }) => nodeId === second.nodeId && connected);
    });
    await waitFor({ what: 'a write at ALL', timeoutMs: SOON_MS }, async () => {
      await using own = await KvClient.connect({
        endpoints: [second.clientAddress],
        timeoutMs: 2500,
        routing: false,
      });
      await own.put('blank/acknowledges', 'yes', { consistency: 'ALL' });
      return true;
    });
    const status = await cluster.statusOf(first);
    expect(status?.ready).to.equal(false);
    expect(status?.readablePartitions).to.equal(0);
    for (let index = 0; index < 20; index += 1) {
      // Sent on to who has it, or refused; never absent.
      expect(await asked(first, keyAt(index))).to.be.oneOf([
        valueAt(index),
        'UNAVAILABLE',
        'DEADLINE_EXCEEDED',
      ]);
    }
    cluster.mesh.healAll();
    await cluster.untilEqual();
    expect(await servesEverything(first)).to.equal(true);
    expect(await asked(first, 'blank/acknowledges')).to.equal('yes');
  });

  it('set aside a store whose structure is damaged, and fill a blank one from the others (scenario 16)', async () => {
    await first.end('SIGTERM');
    const file = join(first.dataDir, 'state/data.mdb');
    const bytes = readFileSync(file);
    // A page with records, in its offsets.
    const at = Math.floor(bytes.indexOf(valueAt(7)) / 4096) * 4096 + 24;
    bytes.writeUInt16LE(bytes.readUInt16LE(at) ^ 0x4001, at);
    writeFileSync(file, bytes);
    first.release();
    await waitFor({ what: 'it to serve again', timeoutMs: SOON_MS }, () => servesEverything(first));
    expect(readdirSync(first.dataDir).filter((name) => name.startsWith('quarantine-'))).to.have.length(1);
    expect(first.unaskedEnds).to.deep.equal([]);
    await cluster.untilEqual();
  });

  it('give back a record that fails its checksum, which is never served (scenario 16)', async () => {
    await first.end('SIGTERM');
    const file = join(first.dataDir, 'state/data.mdb');
    const bytes = readFileSync(file);
    let damaged = 0;
    // In every copy that the file still has of it.
    for (let at = bytes.indexOf(valueAt(11)); at >= 0; at = bytes.indexOf(valueAt(11), at + 1)) {
      bytes[at + 20] = 'w'.charCodeAt(0);
      damaged += 1;
    }
    expect(damaged).to.be.greaterThan(0);
    writeFileSync(file, bytes);
    first.release();
    await waitFor({ what: 'it to have its record again', timeoutMs: SOON_MS }, () => servesEverything(first));
    await cluster.untilEqual();
  });

  it('fence a second process with a copy of the volume, which ends and says why (scenario 12)', async () => {
    await first.end('SIGTERM');
    const copy = mkdtempSync(join(tmpdir(), 'kvcluster-copied-'));
    try {
      cpSync(first.dataDir, copy, { recursive: true });
      first.release();
      await first.ready();
      await cluster.untilEqual();
      await using second = NodeProcess.spawn({
        home: cluster.home,
        nodeId: first.nodeId,
        flags: {
          'data-dir': copy,
          peers: cluster.mesh.peersFlag(first.nodeId),
          partitions: String(PARTITIONS),
        },
      });
      const { code, signal } = await second.exited;
      expect({ code, signal }).to.deep.equal({ code: EXIT_FENCED, signal: null });
      expect(second.stderr).to.match(/^kvcluster node: .*\n$/);
      expect(first.unaskedEnds).to.deep.equal([]);
      expect(await servesEverything(first)).to.equal(true);
    } finally {
      rmSync(copy, { recursive: true });
    }
  });
});
