import { expect } from 'chai';
import { KvClient } from '../../client/kv-client.ts';
import { Checker } from '../support/checker.ts';
import { LocalTestCluster } from '../support/local-cluster.ts';
import { digestOf } from '../support/record-digest.ts';
import { waitFor } from '../support/wait.ts';

describe('three local processes under a writer', function () {
  this.timeout(90_000);
  let cluster: LocalTestCluster;
  let checker: Checker;

  before(async () => {
    cluster = await LocalTestCluster.start();
    checker = await Checker.start({ endpoints: cluster.endpoints });
  });

  after(async () => {
    await (checker as Checker | undefined)?.stop();
    await (cluster as LocalTestCluster | undefined)?.dispose();
  });

  async function acknowledgedSince(start: number, more: number): Promise<void> {
    await waitFor({ what: `${more} more acknowledged writes`, timeoutMs: 20_000, intervalMs: 50 }, (see) => {
      see(JSON.stringify(checker.soFar));
      return checker.soFar.acknowledged - start >= more;
    });
  }

  it('let our client see no error while each is stopped in order and comes back', async () => {
    for (const nodeId of ['kv-0', 'kv-1', 'kv-2']) {
      await acknowledgedSince(checker.soFar.acknowledged, 200);
      const pid = cluster.runner.nodePids().get(nodeId)!;
      process.kill(pid, 'SIGTERM');
      await cluster.runner.untilPrinted(`${nodeId} exited with code 0`);
      await acknowledgedSince(checker.soFar.acknowledged, 200);
      await cluster.untilInSync();
    }
    expect(checker.soFar).to.include({ refused: 0, unknown: 0 });
  });

  it('end equal after one was killed and another one wiped, with every acknowledged write', async () => {
    // Clients stay with the node that answered last, and the rolling has brought them to kv-0: it coordinates the writes.
    await acknowledgedSince(checker.soFar.acknowledged, 500);
    cluster.killNode('kv-0');
    await acknowledgedSince(checker.soFar.acknowledged, 1000);
    await cluster.untilInSync();
    await cluster.wipeNode('kv-1');
    await acknowledgedSince(checker.soFar.acknowledged, 1000);
    await cluster.untilInSync();
    const counts = await checker.stop();
    console.log(`      measured: ${JSON.stringify(counts)}`);

    await cluster.untilInSync();
    const digests = await Promise.all(cluster.targets.map((target) => digestOf(cluster.admin, target)));
    expect(digests[0]?.records).to.be.at.least(500);
    expect(digests[1]).to.deep.equal(digests[0]);
    expect(digests[2]).to.deep.equal(digests[0]);
    expect(await checker.verify()).to.deep.equal([]);
  });

  it('are caught when one key is deleted behind the back of the checker', async () => {
    const key = checker.someLiveKey();
    await using client = await KvClient.connect({ endpoints: cluster.endpoints });
    await client.delete(key, { consistency: 'ALL' });
    const violations = await checker.verify();
    expect(violations).to.have.length(4);
    for (const violation of violations) expect(violation).to.contain(`${key} at`).and.contain('is absent');
  });
});
