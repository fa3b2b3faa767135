import { expect } from 'chai';
import { KvClient } from '../../client/kv-client.ts';
import { KvError } from '../../common/errors.ts';
import { type KvctlResult, LocalTestCluster } from '../support/local-cluster.ts';

const KEYS = Array.from({ length: 120 }, (_, index) => `key-${index}`);

describe('a local cluster whose size changes', function () {
  this.timeout(120_000);
  let cluster: LocalTestCluster;
  /** Acknowledged writes by key, the newest. */
  const acknowledged = new Map<string, string>();
  let writing: Promise<void>;
  const stopping = new AbortController();
  const failures: unknown[] = [];
  /** The node under the volume that is being replaced is stopped at once: what it was at may end without an answer. */
  let replacing = false;
  const unanswered: unknown[] = [];

  before(async () => {
    cluster = await LocalTestCluster.start();
    const client = await KvClient.connect({ endpoints: cluster.endpoints, timeoutMs: 10_000 });
    writing = (async () => {
      for (let round = 0; !stopping.signal.aborted; round += 1) {
        const key = KEYS[round % KEYS.length] ?? '';
        try {
          await client.put(key, `value-${round}`);
          acknowledged.set(key, `value-${round}`);
        } catch (error) {
          const isUnanswered = replacing && error instanceof KvError && error.code === 'DEADLINE_EXCEEDED';
          (isUnanswered ? unanswered : failures).push(error);
          acknowledged.delete(key);
        }
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await client[Symbol.asyncDispose]();
    })();
  });

  after(async () => {
    stopping.abort();
    await (writing as Promise<void> | undefined);
    await (cluster as LocalTestCluster | undefined)?.dispose();
  });

  function expectOk(result: KvctlResult): KvctlResult {
    expect(result).to.include({ code: 0, stderr: '' });
    return result;
  }

  async function nodes(): Promise<readonly { readonly node: string; readonly partitions: number }[]> {
    const { text } = expectOk(await cluster.kvctl(['status', '--output', 'json']));
    const { nodes: all } = JSON.parse(text) as {
      nodes: { nodeId: string; readablePartitions?: number }[];
    };
    return all.map(({ nodeId, readablePartitions }) => ({
      node: nodeId,
      partitions: readablePartitions ?? 0,
    }));
  }

  it('gives an added node its share', async () => {
    const { text } = expectOk(await cluster.kvctl(['cluster', 'add']));
    expect(text)
      .to.match(/^3 nodes become 4: /)
      .and.to.match(/\ndone\n$/);
    expect((await nodes()).map(({ partitions }) => partitions)).to.deep.equal([192, 192, 192, 192]);
  });

  it('empties a node that is removed and stops it', async () => {
    expectOk(await cluster.kvctl(['cluster', 'remove', 'kv-1']));
    expect(await nodes()).to.deep.equal(['kv-0', 'kv-2', 'kv-3'].map((node) => ({ node, partitions: 256 })));
  });

  it('says what replacing a volume costs, does nothing without --yes, and fills it again with it', async () => {
    const asked = await cluster.kvctl(['cluster', 'replace', 'kv-2']);
    expect(asked.code).to.equal(1);
    expect(asked.text).to.match(/Nothing that was acknowledged at QUORUM or ALL is lost by it/);
    expect(asked.stderr).to.match(/nothing was done: add --yes/);
    replacing = true;
    expectOk(await cluster.kvctl(['cluster', 'replace', 'kv-2', '--yes']));
    for (let tries = 0; ; tries += 1) {
      const answers = await nodes().catch(() => []);
      if (answers.length === 3 && answers.every(({ partitions }) => partitions === 256)) break;
      expect(tries, 'kv-2 fills').to.be.lessThan(100);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  });

  it('refuses what cannot be, saying what there is', async () => {
    const unknown = await cluster.kvctl(['cluster', 'remove', 'kv-9']);
    expect(unknown).to.include({ code: 2 });
    expect(unknown.stderr).to.match(/there is no node kv-9: kv-0, kv-2, kv-3/);
    expect((await cluster.kvctl(['cluster', 'add', 'many'])).stderr).to.match(
      /"many" is not a number of nodes/,
    );
    const elsewhere = await cluster.kvctl([
      'cluster',
      'add',
      '--members',
      'kv-0=127.0.0.1:1',
      '--secret-file',
      'x',
    ]);
    expect(elsewhere.stderr).to.match(/kubectl scale kvc/);
  });

  it('has lost nothing of what it acknowledged meanwhile, and refused nothing', async () => {
    stopping.abort();
    await writing;
    expect(failures).to.deep.equal([]);
    expect(unanswered.length).to.be.at.most(1);
    expect(acknowledged.size).to.be.at.least(KEYS.length - unanswered.length);
    for (const [key, value] of acknowledged) {
      expect(expectOk(await cluster.kvctl(['get', key])).text, key).to.equal(value);
      if (Number(key.slice(4)) > 20) break;
    }
    await using client = await KvClient.connect({ endpoints: cluster.endpoints, timeoutMs: 10_000 });
    for (const [key, value] of acknowledged) {
      expect((await client.get(key))?.value.toString(), key).to.equal(value);
    }
  });
});
