import { expect } from 'chai';
import fc from 'fast-check';
import { KvError } from '../../../common/errors.ts';
import { tombstoneRecord, liveRecord } from '../../../node/storage/record.ts';
import type { Version } from '../../../model/version.ts';
import { ReplicaCluster } from '../../support/replica-cluster.ts';

const version = (wallMs: number): Version => ({ wallMs, counter: 0, writer: 7 });

describe('reads of three replicas', () => {
  let cluster: ReplicaCluster;
  /** Puts a record into one store only, as a write that reached nobody else. */
  const plant = async (
    index: number,
    key: string,
    value: string | undefined,
    wallMs: number,
    expiresAtMs?: number,
  ) => {
    const bytes = Buffer.from(key);
    const record =
      value === undefined
        ? tombstoneRecord(bytes, version(wallMs))
        : liveRecord(bytes, Buffer.from(value), version(wallMs), expiresAtMs);
    await cluster.time.run(cluster.store(index).apply([{ key: bytes, record, own: false }]).durable);
  };
  const codeOf = async (promise: Promise<unknown>): Promise<string | undefined> => {
    const error: unknown = await promise.catch((caught: unknown) => caught);
    return error instanceof KvError ? error.code : undefined;
  };

  beforeEach(async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
  });

  afterEach(() => cluster.end());

  it('answer the newest of a quorum, and write it back before they answer', async () => {
    await plant(0, 'a', 'old', 10);
    await plant(1, 'a', 'new', 20);
    await plant(2, 'a', 'new', 20);
    expect(await cluster.get(0, 'a', 'ONE')).to.equal('old');
    expect(await cluster.get(0, 'a')).to.equal('new');
    expect(await cluster.get(0, 'a', 'ONE')).to.equal('new');
  });

  it('never go back: what one read showed, every later one shows', async () => {
    await plant(2, 'a', 'partly written', 20);
    expect(await cluster.get(2, 'a')).to.equal('partly written');
    cluster.kill(2);
    await cluster.time.advance(3000);
    for (const index of [0, 1]) expect(await cluster.get(index, 'a')).to.equal('partly written');
  });

  it('do not bring back what was deleted', async () => {
    await plant(0, 'a', 'alive', 10);
    await plant(1, 'a', undefined, 20);
    await plant(2, 'a', undefined, 20);
    expect(await cluster.get(0, 'a')).to.equal(undefined);
    expect(await cluster.get(0, 'a', 'ONE')).to.equal(undefined);
  });

  it('at ONE ask a quorum when the local copy is below the version that the client has seen', async () => {
    const { version: seen } = await cluster.put(0, 'a', '1');
    await cluster.time.advance(50);
    await plant(1, 'b', 'x', 5);
    await plant(2, 'b', 'x', 5);
    const found = await cluster.live(0, 'b', { consistency: 'ONE', minVersion: version(5) });
    expect(found?.value.toString()).to.equal('x');
    const ahead = { ...seen, wallMs: seen.wallMs + 1000 };
    expect(await codeOf(cluster.live(0, 'a', { consistency: 'ONE', minVersion: ahead }))).to.equal(
      'UNAVAILABLE',
    );
  });

  it('are UNAVAILABLE with too few replicas, and ONE goes on', async () => {
    await cluster.put(0, 'a', '1', { consistency: 'ALL' });
    cluster.kill(2);
    expect(await cluster.get(0, 'a')).to.equal('1');
    expect(await codeOf(cluster.get(0, 'a', 'ALL'))).to.equal('UNAVAILABLE');
    cluster.kill(1);
    await cluster.time.advance(10);
    expect(await codeOf(cluster.get(0, 'a'))).to.equal('UNAVAILABLE');
    expect(await cluster.get(0, 'a', 'ONE')).to.equal('1');
  });

  it('do not wait for a slow replica when another one answers', async () => {
    await cluster.put(0, 'a', '1', { consistency: 'ALL' });
    cluster.network.filter = (frame, from) =>
      from === 'kv-1' && frame.body?.$case === 'readReply' ? 'hold' : 'deliver';
    const begunMs = cluster.time.monotonicMs;
    expect(await cluster.get(0, 'a')).to.equal('1');
    expect(cluster.time.monotonicMs - begunMs).to.be.below(200);
  });

  it('take a damaged record from the others and mend it', async () => {
    await cluster.put(0, 'a', '1', { consistency: 'ALL' });
    await cluster.time.run(cluster.store(0).checkpoint());
    for (const keys of cluster.node(0).volumes.state.content.partitions.values()) {
      const bytes = keys.get('a');
      if (bytes !== undefined) bytes[bytes.length - 1]! ^= 1;
    }
    expect(await cluster.get(0, 'a', 'ONE')).to.equal('1');
    expect(await cluster.get(0, 'a')).to.equal('1');
    await cluster.time.advance(20);
    expect(cluster.store(0).get(Buffer.from('a'))?.value.toString()).to.equal('1');
  });

  it('see a value until its time to live ends, on every replica', async () => {
    await cluster.put(0, 'a', '1', { ttlMs: 1000, consistency: 'ALL' });
    expect((await cluster.live(1, 'a'))?.remainingTtlMs).to.be.within(900, 1000);
    await cluster.time.advance(1100);
    for (const index of [0, 1, 2]) expect(await cluster.get(index, 'a', 'ONE')).to.equal(undefined);
    expect(await cluster.get(0, 'a')).to.equal(undefined);
    expect((await cluster.put(0, 'a', '2')).old).to.equal(undefined);
  });

  it('see nothing of a newer expired value although an older one lives elsewhere', async () => {
    const nowMs = cluster.replica(0).status().wallMs;
    await plant(0, 'a', 'old', 10);
    await plant(1, 'a', 'expired', 20, nowMs - 1);
    await plant(2, 'a', 'expired', 20, nowMs - 1);
    expect(await cluster.get(0, 'a')).to.equal(undefined);
    expect(await cluster.get(0, 'a', 'ONE')).to.equal(undefined);
  });

  describe('of pages of keys', () => {
    const page = (
      index: number,
      options: { after?: string; limit?: number; prefix?: string; consistency?: 'ONE' | 'QUORUM' | 'ALL' },
    ) =>
      cluster.time.run(
        cluster.replica(index).engine.listKeys({
          prefix: Buffer.from(options.prefix ?? ''),
          startAfter: options.after === undefined ? undefined : Buffer.from(options.after),
          limit: options.limit ?? 100,
          maxBytes: 100_000,
          consistency: options.consistency ?? 'QUORUM',
          deadlineMs: cluster.time.monotonicMs + 5000,
        }),
      );
    const all = async (limit: number, between: () => Promise<void> = () => Promise.resolve()) => {
      const found: string[] = [];
      for (let after: string | undefined; ;) {
        const { keys, more } = await page(0, { limit, ...(after === undefined ? {} : { after }) });
        found.push(...keys.map(String));
        if (!more) return found;
        after = found.at(-1);
        await between();
      }
    };

    it('show keys that a quorum holds and this replica does not, and hide those it deleted', async () => {
      await plant(0, 'here-deleted-there', 'x', 10);
      for (const index of [1, 2]) {
        await plant(index, 'here-deleted-there', undefined, 20);
        await plant(index, 'only-there', 'x', 10);
      }
      expect((await page(0, {})).keys.map(String)).to.deep.equal(['only-there']);
      expect((await page(0, { consistency: 'ONE' })).keys.map(String)).to.deep.equal(['here-deleted-there']);
    });

    it('are the same for every page size as one page, whatever the replicas lack', async () => {
      const property = fc.asyncProperty(
        fc.array(
          fc.record({
            key: fc.integer({ min: 0, max: 40 }),
            on: fc.integer({ min: 1, max: 7 }),
            deleted: fc.boolean(),
          }),
          { maxLength: 60 },
        ),
        fc.integer({ min: 1, max: 7 }),
        async (records, limit) => {
          cluster.end();
          cluster = new ReplicaCluster(3);
          await cluster.begin();
          let wallMs = 1;
          for (const { key, on, deleted } of records) {
            wallMs += 1;
            const name = `key-${String(key).padStart(3, '0')}`;
            for (const index of [0, 1, 2])
              if ((on >> index) & 1) await plant(index, name, deleted ? undefined : 'x', wallMs);
          }
          const whole = (await page(0, { limit: 1000 })).keys.map(String);
          expect(await all(limit)).to.deep.equal(whole);
          expect(whole).to.deep.equal([...new Set(whole)].sort());
        },
      );
      await fc.assert(property, { numRuns: 15 });
    });

    it('show a key that is there throughout exactly once while others come and go', async () => {
      const lasting = Array.from({ length: 60 }, (_, number) => `k${String(number * 3).padStart(4, '0')}`);
      for (const [number, key] of lasting.entries()) await cluster.put(number % 3, key, 'x');
      let number = 0;
      const found = await all(7, async () => {
        number += 1;
        await cluster.put(number % 3, `k${String(number * 9 + 1).padStart(4, '0')}`, 'new');
        await cluster.put((number + 1) % 3, lasting[(number * 5) % 60] ?? '', 'overwritten');
        await cluster.delete((number + 2) % 3, `k${String((number - 2) * 9 + 1).padStart(4, '0')}`);
      });
      for (const key of lasting)
        expect(
          found.filter((other) => other === key),
          key,
        ).to.have.length(1);
    });

    it('are UNAVAILABLE rather than incomplete with too few replicas', async () => {
      cluster.kill(1);
      cluster.kill(2);
      await cluster.time.advance(10);
      expect(await codeOf(page(0, {}))).to.equal('UNAVAILABLE');
    });

    it('keep to a prefix', async () => {
      for (const key of ['a', 'b/1', 'b/2', 'c']) await cluster.put(0, key, 'x');
      expect((await page(1, { prefix: 'b/' })).keys.map(String)).to.deep.equal(['b/1', 'b/2']);
    });
  });
});
