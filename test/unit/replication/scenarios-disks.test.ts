import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import { FatalError } from '../../../node/cluster/fatal-error.ts';
import type { Consistency } from '../../../node/replication/engine.ts';
import { StoreCorrupt } from '../../../node/storage/store-errors.ts';
import { PeerFrame, type RecordsChunk, Refusal_Reason } from '../../../proto/gen/peer.ts';
import { diskError, randomFates } from '../../support/memory-disk.ts';
import { ReplicaCluster } from '../../support/replica-cluster.ts';
import { codeOf, sameEverywhere, SOON_COLLECTED } from '../../support/scenario-checks.ts';
import { seededRandom } from '../../support/seeded-random.ts';

describe('failure scenarios of volumes, disks and processes', () => {
  let cluster: ReplicaCluster;

  const begin = async (options: ConstructorParameters<typeof ReplicaCluster>[1] = {}) => {
    cluster = new ReplicaCluster(3, options);
    await cluster.begin();
  };
  const stored = (index: number, key: string) => cluster.store(index).get(Buffer.from(key));
  const keysOf = (count: number): readonly string[] =>
    Array.from({ length: count }, (_, number) => `key-${String(number).padStart(3, '0')}`);
  const putAll = async (keys: readonly string[], value: string, consistency: Consistency = 'QUORUM') => {
    for (const [number, key] of keys.entries()) await cluster.put(number % 3, key, value, { consistency });
  };
  /** A write that goes on while the test does something else. */
  const beginPut = (index: number, key: string, value: string) =>
    cluster.replica(index).engine.put({
      key: Buffer.from(key),
      value: Buffer.from(value),
      ttlMs: undefined,
      requestId: undefined,
      consistency: 'QUORUM',
      deadlineMs: cluster.time.monotonicMs + 5000,
    });

  afterEach(() => cluster.end());

  it('11: a node whose volume is lost counts as a disk, serves nothing before it is filled, and calls nothing missing', async () => {
    await begin();
    const keys = keysOf(30);
    await putAll(keys, 'x');
    cluster.kill(2);
    cluster.wipe(2);
    cluster.network.cut('kv-2', 'kv-1');
    await cluster.start(2);
    await cluster.time.advance(5000);
    expect(cluster.replica(2).notReadyReason).to.match(/waits for kv-1/);
    await cluster.put(0, 'during', 'x', { consistency: 'ALL' });
    expect(stored(2, 'during')?.value.toString()).to.equal('x');
    for (const key of keys) {
      expect(await cluster.get(2, key, 'ONE'), 'by a node that has it').to.equal('x');
      // With two of three it may be that neither is asked that has it.
      const read: unknown = await cluster.get(2, key, 'ALL').catch((error: unknown) => error);
      expect(read).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
    }
    cluster.network.heal();
    await cluster.inSync();
    for (const key of [...keys, 'during']) expect(await cluster.get(2, key, 'ONE')).to.equal('x');
    expect(await sameEverywhere(cluster)).to.have.length(keys.length + 1);
  });

  it('12: a second process on a copied volume is fenced, and the first goes on', async () => {
    await begin();
    await cluster.put(0, 'a', '1');
    const second = await cluster.launch(cluster.node(0), 'kv-0', cluster.copyOfVolumes(0));
    const stopped: unknown[] = [];
    second.replica.fatal.catch((error: unknown) => stopped.push(error));
    await cluster.time.until('the copy is fenced', () => stopped.length > 0);
    expect(stopped[0]).to.be.instanceOf(FatalError).with.property('kind', 'copied-volume');
    second.scheduler.stop();
    await cluster.time.advance(5000);
    expect(cluster.node(0).fatal).to.equal(undefined);
    await cluster.put(0, 'a', '2', { consistency: 'ALL' });
    await sameEverywhere(cluster);
  });

  for (const how of ['kill -9', 'power loss everywhere'] as const) {
    it(`13: a batch that is interrupted by ${how} at any step leaves each key old or new, and what was acknowledged`, async () => {
      await begin({ diskMs: 1 });
      const random = seededRandom(13);
      const keys = keysOf(6);
      await putAll(keys, 'batch--1', 'ALL');
      let old = keys.map(() => 'batch--1');
      const outcomes = new Set<string>();
      for (let step = 0; step < 12; step += 1) {
        const value = `batch-${step}`.repeat(200);
        const acknowledged = new Set<string>();
        for (const key of keys) {
          beginPut(0, key, value).then(
            () => acknowledged.add(key),
            () => undefined,
          );
        }
        await cluster.time.advance(step);
        const victims = how === 'kill -9' ? [0] : [0, 1, 2];
        for (const index of victims) {
          cluster.kill(index, how === 'kill -9' ? undefined : randomFates(random));
        }
        for (const index of victims) await cluster.start(index);
        await cluster.inSync();
        await sameEverywhere(cluster);
        const now: string[] = [];
        for (const [number, key] of keys.entries()) {
          const found = (await cluster.get(step % 3, key)) ?? 'nothing';
          now.push(found);
          const allowed = acknowledged.has(key) ? [value] : [value, old[number]];
          expect(allowed, `${key} after step ${step}`).to.include(found);
          outcomes.add(acknowledged.has(key) ? 'acknowledged' : found === value ? 'new' : 'old');
        }
        old = now;
      }
      expect([...outcomes].sort()).to.deep.equal(['acknowledged', 'new', 'old']);
    });
  }

  it('14: at its quota a node refuses puts, goes on with reads, deletes and collection, and recovers by itself', async () => {
    await begin({
      settings: { collection: SOON_COLLECTED },
      limits: { quotaBytes: 200_000, segmentBytes: 8192, logBytes: 32_768, logKeepMs: 0, checkpointMs: 20 },
    });
    const value = 'x'.repeat(4000);
    const written: string[] = [];
    let refused: string | undefined;
    for (const key of keysOf(100)) {
      refused = await codeOf(cluster.put(0, key, value, { consistency: 'ALL' }));
      if (refused !== undefined) break;
      written.push(key);
    }
    expect(refused).to.equal('RESOURCE_EXHAUSTED');
    expect(cluster.replica(0).status().writeRefusal).to.not.equal('');
    expect(written.length).to.be.greaterThan(20);
    expect(await cluster.get(0, written[0] ?? '')).to.equal(value);
    const deleted = written.slice(0, written.length / 2);
    for (const key of deleted) await cluster.delete(0, key);
    await cluster.time.until('puts are taken again', () => cluster.replica(0).status().writeRefusal === '');
    await cluster.time.until('the tombstones are collected', () =>
      deleted.every((key) => [0, 1, 2].every((index) => stored(index, key) === undefined)),
    );
    await cluster.put(0, 'new', value, { consistency: 'ALL' });
    expect(await sameEverywhere(cluster)).to.have.length(written.length - deleted.length + 1);
  });

  for (const { fault, operation, code } of [
    { fault: 'a full disk', operation: 'append', code: 'ENOSPC' },
    { fault: 'a write that fails', operation: 'append', code: 'EIO' },
    { fault: 'a flush that fails', operation: 'sync', code: 'EIO' },
  ] as const) {
    it(`15: ${fault} ends the node without a false OK, and after a restart nothing acknowledged is missing`, async () => {
      await begin();
      const keys = keysOf(10);
      await putAll(keys, 'before', 'ALL');
      const { log } = cluster.node(0).volumes;
      log.interfere = (tried, name) => (tried === operation ? diskError(code, name) : undefined);
      const answers = await Promise.all(
        (['ONE', 'ALL'] as const).map((consistency) =>
          codeOf(cluster.put(0, `lost-${consistency}`, 'x', { consistency })),
        ),
      );
      expect(answers).to.not.include(undefined);
      await cluster.time.until('the node ends', () => cluster.node(0).fatal !== undefined);
      expect(cluster.node(0).fatal).to.be.instanceOf(FatalError).with.property('kind', 'store-failed');
      expect(await codeOf(cluster.get(0, 'key-000', 'ONE'))).to.equal('UNAVAILABLE');
      cluster.kill(0);
      await cluster.time.advance(3000);
      await cluster.put(1, 'meanwhile', 'x');
      log.interfere = undefined;
      await cluster.start(0);
      await cluster.inSync();
      for (const key of keys) expect(await cluster.get(0, key, 'ONE')).to.equal('before');
      expect(await cluster.get(0, 'meanwhile', 'ONE')).to.equal('x');
      await sameEverywhere(cluster);
    });
  }

  it('16: a damaged record is never served, and mended from the others', async () => {
    await begin();
    const keys = keysOf(20);
    await putAll(keys, 'sound', 'ALL');
    await cluster.time.run(cluster.store(0).checkpoint());
    for (const partition of cluster.node(0).volumes.state.content.partitions.values()) {
      // The last byte of the value: the checksum has four behind it.
      for (const bytes of partition.values()) bytes[bytes.length - 5]! ^= 1;
    }
    for (const key of keys) {
      const read: unknown = await cluster.get(0, key, 'ONE').catch((error: unknown) => error);
      if (read !== 'sound') expect(read).to.be.instanceOf(KvError).with.property('code', 'DATA_LOSS');
      expect(await cluster.get(0, key)).to.equal('sound');
    }
    await sameEverywhere(cluster);
  });

  it('16: a corrupt store does not open, and is rebuilt from the others in its place', async () => {
    // Nothing is in the state yet: all of the log is needed.
    await begin({ limits: { checkpointMs: 3_600_000 } });
    const keys = keysOf(50);
    await putAll(keys, 'sound'.repeat(100), 'ALL');
    cluster.kill(2);
    for (const { content } of cluster.node(2).volumes.log.files.values()) {
      content[Math.floor(content.length / 2)]! ^= 1;
    }
    const error: unknown = await cluster.start(2).catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(StoreCorrupt);
    cluster.wipe(2);
    await cluster.start(2);
    expect(cluster.replica(2).notReadyReason).to.not.equal(undefined);
    await cluster.inSync();
    for (const key of keys) expect(await cluster.get(2, key, 'ONE')).to.equal('sound'.repeat(100));
    await sameEverywhere(cluster);
  });

  it('17: readers that stall keep nothing back, and go on where they were', async () => {
    const logBytes = 64 * 1024;
    await begin({
      settings: { chunkBytes: 16_384 },
      limits: { segmentBytes: 8192, logBytes, logKeepMs: 0, checkpointMs: 20 },
    });
    const keys = keysOf(50);
    await putAll(keys, 'x'.repeat(2000));
    const backup = cluster
      .replica(0)
      .streamRecords({ header: undefined, after: undefined, partitions: [] }, new AbortController().signal);
    const chunks = backup[Symbol.asyncIterator]();
    const first: IteratorResult<RecordsChunk, unknown> = await cluster.time.run(chunks.next());
    expect(first.done).to.equal(false);
    const seen: string[] = [];
    const page = async (startAfter: string | undefined): Promise<void> => {
      const { keys: found } = await cluster.time.run(
        cluster.replica(0).engine.listKeys({
          prefix: Buffer.alloc(0),
          startAfter: startAfter === undefined ? undefined : Buffer.from(startAfter),
          limit: 20,
          maxBytes: 100_000,
          consistency: 'QUORUM',
          deadlineMs: cluster.time.monotonicMs + 5000,
        }),
      );
      seen.push(...found.map(String));
    };
    await page(undefined);
    await cluster.time.run(cluster.store(0).checkpoint());
    const { stateBytes } = cluster.store(0).statistics();
    for (let round = 0; round < 3; round += 1) await putAll(keys, String(round).repeat(2000));
    await cluster.time.advance(30_000);
    await cluster.time.run(cluster.store(0).checkpoint());
    expect(cluster.store(0).statistics().stateBytes).to.be.within(stateBytes * 0.9, stateBytes * 1.1);
    expect(cluster.store(0).statistics().logBytes).to.be.at.most(logBytes);
    while (seen.length < keys.length) await page(seen.at(-1));
    expect(seen).to.deep.equal(keys);
    let copied = first.done === true ? 0 : first.value.records.length;
    for (;;) {
      const next: IteratorResult<RecordsChunk, unknown> = await cluster.time.run(chunks.next());
      if (next.done === true) break;
      copied += next.value.records.length;
    }
    expect(copied).to.equal(keys.length);
  });

  it('18: a replica that takes 5 s for each write slows nobody down, keeps memory bounded, and catches up', async () => {
    const maxUnackedBytes = 64 * 1024;
    await begin({ settings: { maxUnackedBytes, entriesFrameBytes: 8192 } });
    // Each write to the log is an append and a sync.
    cluster.node(2).diskMs = 2500;
    let sentBytes = 0;
    cluster.network.filter = (frame, _from, to) => {
      if (to === 'kv-2' && frame.body?.$case === 'entries')
        sentBytes += PeerFrame.encode(frame).finish().length;
      return 'deliver';
    };
    const latencies: number[] = [];
    const timed = async (operation: () => Promise<unknown>): Promise<void> => {
      const begun = cluster.time.monotonicMs;
      await operation();
      latencies.push(cluster.time.monotonicMs - begun);
    };
    const keys = keysOf(100);
    for (const key of keys) {
      await timed(() => cluster.put(0, key, 'x'.repeat(2000)));
      await timed(() => cluster.get(0, key));
    }
    expect(Math.max(...latencies)).to.be.below(100);
    const lag = () =>
      cluster
        .replica(0)
        .status()
        .peers.find(({ nodeId }) => nodeId === 'kv-2');
    expect(lag()).to.deep.include({ connected: true }).and.property('ahead').greaterThan(50);
    // One further frame may be on its way.
    expect(sentBytes).to.be.within(1, maxUnackedBytes + 2 * 8192);
    cluster.node(2).diskMs = 0;
    await cluster.time.until('the lag is gone', () => lag()?.ahead === 0, 30_000);
    expect(await sameEverywhere(cluster)).to.have.length(keys.length);
  });

  it('19: members that all got addresses of others find each other without a restart, and take nothing by mistake', async () => {
    await begin();
    await cluster.put(0, 'a', '1', { consistency: 'ALL' });
    const before = cluster.runningReplicas();
    const refusals = new Set<Refusal_Reason>();
    cluster.network.filter = ({ body }) => {
      if (body?.$case === 'refusal') refusals.add(body.value.reason);
      return 'deliver';
    };
    cluster.move(['kv-1', 'kv-2', 'kv-0']);
    // The directory is stale: everybody finds somebody else, or itself, where a peer was.
    await cluster.time.advance(10_000);
    for (const index of [0, 1, 2]) {
      const { peers } = cluster.replica(index).status();
      expect(peers.some(({ connected }) => connected)).to.equal(false);
      expect(await codeOf(cluster.put(index, 'a', 'by mistake'))).to.equal('UNAVAILABLE');
    }
    expect([...refusals]).to.include(Refusal_Reason.WRONG_RECIPIENT);
    for (const [name, host] of [
      ['kv-0', 'kv-1'],
      ['kv-1', 'kv-2'],
      ['kv-2', 'kv-0'],
    ] as const) {
      cluster.directory.set(name, host);
    }
    await cluster.time.advance(5000);
    for (const index of [0, 1, 2]) {
      expect(
        cluster
          .replica(index)
          .status()
          .peers.every(({ connected }) => connected),
      ).to.equal(true);
    }
    expect(cluster.runningReplicas()).to.deep.equal(before);
    await cluster.put(0, 'a', '2', { consistency: 'ALL' });
    expect(await sameEverywhere(cluster)).to.have.length(1);
  });

  it('20: a node that drains under load finishes what is under way, refuses the rest as retryable, and ends cleanly', async () => {
    await begin();
    const keys = keysOf(40);
    const underWay = keys.map((key) => beginPut(0, key, 'x'));
    cluster.replica(0).drain();
    expect(cluster.replica(0).notReadyReason).to.equal('draining');
    const refused: unknown = await cluster.put(0, 'late', 'x').catch((error: unknown) => error);
    expect(refused).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
    expect(refused).to.have.property('retryable', true);
    expect(await codeOf(cluster.get(0, 'key-000', 'ONE'))).to.equal('UNAVAILABLE');
    await cluster.time.run(Promise.all(underWay));
    await cluster.time.run(cluster.replica(0).idle());
    await cluster.stop(0);
    for (const key of keys) expect(await cluster.get(1, key)).to.equal('x');
    await cluster.put(1, 'late', 'x');
    await cluster.start(0);
    expect(cluster.store(0).cleanStart).to.equal(true);
    await cluster.inSync();
    expect(await sameEverywhere(cluster)).to.have.length(keys.length + 1);
  });
});
