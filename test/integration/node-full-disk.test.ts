import { expect } from 'chai';
import { KvClient, KvError } from '../../client/kv-client.ts';
import { noVolumesReason } from '../support/loop-volume.ts';
import { ProcessCluster } from '../support/process-cluster.ts';
import type { SupervisedNode } from '../support/supervised-node.ts';
import { waitFor } from '../support/wait.ts';

const MIB = 1024 * 1024;
const VOLUME_BYTES = 128 * MIB;
const SOON_MS = 60_000;
const WRITERS = 8;
const BIG = 'b'.repeat(512 * 1024);

describe('a node on a volume that runs full', () => {
  let cluster: ProcessCluster;
  let node: SupervisedNode;
  let client: KvClient;

  beforeEach(async function () {
    const reason = noVolumesReason();
    if (reason !== undefined) {
      console.log(`    skipped: ${reason}`);
      this.skip();
    }
    cluster = await ProcessCluster.start({ nodes: 1, volumeBytes: VOLUME_BYTES });
    node = cluster.nodes[0]!;
    client = await KvClient.connect({ endpoints: [node.clientAddress], timeoutMs: 2000 });
  });

  afterEach(async () => {
    (client as KvClient | undefined)?.close();
    await (cluster as ProcessCluster | undefined)?.[Symbol.asyncDispose]();
  });

  it('acknowledges nothing that the disk did not take, ends, and has everything acknowledged when there is room again (scenario 15)', async () => {
    const acknowledged = new Map<string, string>();
    const codes = new Set<string>();
    let stop = false;
    const write = async (writer: number): Promise<void> => {
      for (let index = 0; !stop; index += 1) {
        const [key, value] = [`${writer}/${index % 50}`, `${index}/${'x'.repeat(2000)}`];
        try {
          await client.put(key, value);
          acknowledged.set(key, value);
        } catch (error) {
          if (!(error instanceof KvError)) throw error;
          codes.add(error.code);
          // It may have been applied or not: what the key has is not known any more.
          acknowledged.delete(key);
        }
      }
    };
    const writers = Array.from({ length: WRITERS }, (_, writer) => write(writer));
    await waitFor({ what: '200 keys', timeoutMs: SOON_MS, intervalMs: 20 }, () => acknowledged.size >= 200);
    cluster.volume?.fill();
    await waitFor({ what: 'the node to end', timeoutMs: SOON_MS }, () => node.unaskedEnds.length > 0);
    stop = true;
    await Promise.all(writers);
    // The log or the checkpoint met it first; before a failed checkpoint LMDB says something of its own.
    expect(node.unaskedEnds[0]).to.match(
      /ended with code 1: (.*\n)*kvcluster node: the store has failed.*(ENOSPC|No space left on device)/,
    );
    expect([...codes]).to.not.deep.equal([]);
    cluster.volume?.free();
    await node.ready();
    for (const [key, value] of acknowledged) {
      expect((await client.get(key))?.value.toString(), key).to.equal(value);
    }
    await client.put('after', 'room');
  });

  it('refuses puts when its room is used up, not gets and deletes, and takes them again when deletes have made room (scenario 14)', async () => {
    const keys: string[] = [];
    const refused = await waitFor({ what: 'the quota', timeoutMs: SOON_MS, intervalMs: 1 }, async () => {
      const key = `big/${keys.length}`;
      try {
        await client.put(key, BIG);
        keys.push(key);
        return undefined;
      } catch (error) {
        return error instanceof KvError ? error : undefined;
      }
    });
    expect(refused).to.include({ code: 'RESOURCE_EXHAUSTED' });
    expect(keys.length * BIG.length).to.be.greaterThan(VOLUME_BYTES / 8);
    expect((await client.get(keys[0] ?? ''))?.value.length).to.equal(BIG.length);
    for (const key of keys) await client.delete(key);
    expect(await client.get(keys[0] ?? '')).to.equal(undefined);
    await waitFor({ what: 'puts to be taken again', timeoutMs: SOON_MS }, async () => {
      await client.put('again', 'small');
      return true;
    });
    expect(node.unaskedEnds).to.deep.equal([]);
  });
});
