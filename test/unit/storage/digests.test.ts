import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import type { Random } from '../../../common/random.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import { digestOfRecords } from '../../../node/storage/digest.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { liveRecord, tombstoneRecord } from '../../../node/storage/record.ts';
import type { Mutation } from '../../../node/storage/store.ts';
import type { CrashFates } from '../../support/memory-disk.ts';
import { expectTrueDigests, MemoryMachine, SMALL_LIMITS } from '../../support/memory-store.ts';
import { seededRandom } from '../../support/seeded-random.ts';

const below = (random: Random, bound: number): number => Math.floor(random.fraction() * bound);

/** A write of one of a few keys; the same random numbers make the same record. */
function someMutation(random: Random): Mutation {
  const key = Buffer.from(`key-${below(random, 60)}`);
  const version = { wallMs: 1 + below(random, 500), counter: 0, writer: 1 + below(random, 3) };
  const record =
    random.fraction() < 0.25
      ? tombstoneRecord(key, version)
      : liveRecord(key, Buffer.alloc(below(random, 90)), version);
  return { key, record, own: random.fraction() < 0.5 };
}

function damage(machine: MemoryMachine, key: Buffer): void {
  const name = key.toString('latin1');
  for (const keys of machine.stateVolume.content.partitions.values()) {
    const bytes = keys.get(name);
    if (bytes !== undefined) bytes[20] = bytes[20]! ^ 1;
  }
}

/** What `read` answers; undefined when that is damaged. */
function sound<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    expect(error).to.be.instanceOf(KvError).with.property('code', 'DATA_LOSS');
    return undefined;
  }
}

describe('the digests of a store', () => {
  let machine: MemoryMachine;
  let store: LogStore;

  beforeEach(async () => {
    machine = new MemoryMachine();
    store = await machine.open();
  });

  const synced = (...mutations: Mutation[]): Promise<void> =>
    machine.time.run(store.apply(mutations).durable);
  const digests = (of: LogStore): unknown[] =>
    Array.from({ length: of.partitions }, (_, partition) => of.digest(partition));

  it('are those of its synced records at any time, over closing, opening and kill -9', async () => {
    for (let seed = 1; seed <= 8; seed += 1) {
      const random = seededRandom(seed);
      const own = new MemoryMachine({ random });
      let opened = await own.open();
      for (let step = 0; step < 150; step += 1) {
        opened.apply(Array.from({ length: 1 + below(random, 4) }, () => someMutation(random)));
        if (random.fraction() < 0.4) await own.time.advance(below(random, 7));
        if (random.fraction() < 0.1) await expectTrueDigests(own.time, opened);
        const end = random.fraction();
        if (end < 0.03) await own.time.run(opened.close());
        if (end < 0.06) {
          own.kill();
          opened = await own.open();
        }
      }
      await expectTrueDigests(own.time, opened);
    }
  });

  it('say nothing of what is not synced yet', async () => {
    const before = digests(store);
    const { durable } = store.apply([someMutation(seededRandom(1))]);
    expect(digests(store)).to.deep.equal(before);
    await machine.time.run(durable);
    expect(digests(store)).not.to.deep.equal(before);
  });

  it('are equal where the records are, in whatever order they came', async () => {
    const random = seededRandom(3);
    const mutations = Array.from({ length: 200 }, () => someMutation(random));
    const other = new MemoryMachine();
    const otherStore = await other.open({ ...SMALL_LIMITS, checkpointRecords: 3, transactionRecords: 3 });
    for (const mutation of mutations) await synced(mutation);
    for (const mutation of mutations.reverse()) await other.time.run(otherStore.apply([mutation]).durable);
    expect(digests(store)).to.deep.equal(digests(otherStore));
    expect(new Set(digests(store).map((digest) => JSON.stringify(digest))).size).to.equal(store.partitions);
  });

  it('are counted anew, in the background, after a damaged record was replaced', async () => {
    const random = seededRandom(4);
    await synced(...Array.from({ length: 100 }, () => someMutation(random)));
    await machine.time.run(store.checkpoint());
    const key = Buffer.from('key-7');
    const damaged = store.get(key)!;
    const partition = partitionOf(key, store.partitions);
    damage(machine, key);
    // An older record than the damaged one: nobody can tell.
    const older = liveRecord(key, key, { ...damaged.version, wallMs: 0 });
    await synced({ key, record: older, own: false, heals: true });
    const rows = await machine.time.run(store.scan(partition, { limit: 1000 }));
    expect(store.digest(partition).root, 'not sure yet').not.to.equal(digestOfRecords(rows).root);
    await machine.time.run(store.checkpoint());
    await machine.time.advance(10);
    await expectTrueDigests(machine.time, store);
    machine.kill();
    store = await machine.open();
    await expectTrueDigests(machine.time, store);
  });

  it('are counted anew after a crash that came before it was done', async () => {
    const random = seededRandom(5);
    const key = Buffer.from('key-7');
    const version = { wallMs: 600, counter: 0, writer: 1 };
    const others = Array.from({ length: 100 }, () => someMutation(random));
    await synced(...others, { key, record: liveRecord(key, key, version), own: true });
    await machine.time.run(store.close());
    const kept: CrashFates = { write: () => 'kept', name: () => 'kept', sector: () => true };
    const harmed = machine.crashedAt(machine.now, kept);
    damage(harmed, key);
    const begun = harmed.now;
    const second = await harmed.open();
    const record = liveRecord(key, key, { ...version, wallMs: 1 });
    await harmed.time.run(second.apply([{ key, record, own: false, heals: true }]).durable);
    await harmed.time.advance(50);
    let replaced = 0;
    for (let at = begun; at <= harmed.now; at += 1) {
      const crashed = harmed.crashedAt(at, kept);
      const reopened = await crashed.open();
      await crashed.time.advance(50);
      if (sound(() => reopened.get(key)) === undefined) continue;
      replaced += 1;
      await expectTrueDigests(crashed.time, reopened);
    }
    expect(replaced).to.be.greaterThan(3);
  });

  it('keep counting what is written while a partition is counted anew', async () => {
    const random = seededRandom(6);
    await synced(...Array.from({ length: 100 }, () => someMutation(random)));
    await machine.time.run(store.checkpoint());
    for (const name of ['key-7', 'key-8', 'key-9']) {
      const key = Buffer.from(name);
      damage(machine, key);
      const record = liveRecord(key, key, { wallMs: 0, counter: 1, writer: 1 });
      await synced({ key, record, own: false, heals: true });
      for (let step = 0; step < 30; step += 1) {
        store.apply([someMutation(random)]);
        await machine.time.advance(below(random, 3));
      }
    }
    await machine.time.run(store.checkpoint());
    await machine.time.advance(10);
    await expectTrueDigests(machine.time, store);
  });
});
