import { expect } from 'chai';
import type { Random } from '../../../common/random.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import { compareVersions, type Version } from '../../../model/version.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { liveRecord, tombstoneRecord } from '../../../node/storage/record.ts';
import type { KeyedRecord, Mutation } from '../../../node/storage/store.ts';
import { randomFates } from '../../support/memory-disk.ts';
import { expectTrueDigests, MemoryMachine, SMALL_LIMITS } from '../../support/memory-store.ts';
import { seededRandom } from '../../support/seeded-random.ts';

const KEY = Buffer.from('key');
/** Large enough that a scan does not wait for a checkpoint. */
const LIMITS = { ...SMALL_LIMITS, checkpointRecords: 30, transactionRecords: 30 };

function keyed(key: Buffer | string, wallMs: number, size = 10): KeyedRecord {
  const bytes = Buffer.from(key);
  return {
    key: bytes,
    record: liveRecord(bytes, Buffer.alloc(size, wallMs), { wallMs, counter: 0, writer: 1 }),
  };
}

const put = (key: Buffer | string, wallMs: number): Mutation => ({ ...keyed(key, wallMs), own: true });

/** Lets what is ready run, without time. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('records loaded without the log', () => {
  let machine: MemoryMachine;
  let store: LogStore;

  beforeEach(async () => {
    machine = new MemoryMachine();
    store = await machine.open();
  });

  const wallOf = (key: Buffer | string): number | undefined => store.get(Buffer.from(key))?.version.wallMs;
  const synced = (...mutations: Mutation[]): Promise<void> =>
    machine.time.run(store.apply(mutations).durable);

  it('are seen when the state has them, and survive a crash from then on', async () => {
    const records = Array.from({ length: 50 }, (_, index) => keyed(`k${index}`, 5));
    const head = store.head;
    const loading = store.load(records);
    await turn();
    expect(wallOf('k0')).to.equal(undefined);
    expect(store.latest(Buffer.from('k0'))?.version.wallMs).to.equal(5);
    expect(await machine.time.run(loading)).to.equal(50);
    expect(store.statistics()).to.deep.include({ records: 50, overlayBytes: 0 });
    expect(store.head).to.equal(head);
    machine.kill();
    store = await machine.open();
    for (const { key } of records) expect(wallOf(key)).to.equal(5);
    await expectTrueDigests(machine.time, store);
  });

  it('are decided about like any others', async () => {
    await synced(put('newer', 9), put('same', 5), put('older', 1));
    const deleted = Buffer.from('deleted');
    await synced({
      key: deleted,
      record: tombstoneRecord(deleted, { wallMs: 9, counter: 0, writer: 1 }),
      own: true,
    });
    const records = ['newer', 'same', 'older', 'deleted', 'unknown'].map((key) => keyed(key, 5));
    expect(await machine.time.run(store.load(records))).to.equal(2);
    expect(['newer', 'same', 'older', 'unknown'].map(wallOf)).to.deep.equal([9, 5, 5, 5]);
    expect(store.get(deleted)?.tombstone).to.equal(true);
    expect(
      await machine.time.run(store.load([keyed('unknown', 4), keyed('unknown', 6), keyed('unknown', 5)])),
    ).to.equal(1);
    expect(wallOf('unknown')).to.equal(6);
    const conflicts = store.statistics().versionConflicts;
    await machine.time.run(store.load([keyed('unknown', 6, 20)]));
    expect(store.statistics().versionConflicts).to.equal(conflicts + 1);
    await expectTrueDigests(machine.time, store);
  });

  it('go through the log where a record waits for its sync, and never come to lie above a newer one', async () => {
    for (const [pending, loaded] of [
      [7, 6],
      [6, 7],
    ] as const) {
      const key = `key-${pending}`;
      const { durable } = store.apply([put(key, pending)]);
      const loading = store.load([keyed(key, loaded)]);
      await machine.time.run(Promise.all([durable, loading]));
      await machine.time.run(store.checkpoint());
      expect(wallOf(key)).to.equal(7);
    }
    await expectTrueDigests(machine.time, store);
  });

  it('lie beneath what is written while they are on their way', async () => {
    machine.stateVolume.stalled = true;
    const loading = store.load([keyed(KEY, 5)]);
    await turn();
    const { outcomes, durable } = store.apply([put(KEY, 6)]);
    expect(outcomes[0]).to.deep.include({ kind: 'applied' });
    await machine.time.run(durable);
    expect(wallOf(KEY)).to.equal(6);
    machine.stateVolume.resume();
    await machine.time.run(loading);
    await machine.time.run(store.checkpoint());
    expect(wallOf(KEY)).to.equal(6);
    await expectTrueDigests(machine.time, store);
  });

  it('are no ground for an acknowledgement before the state has them', async () => {
    machine.stateVolume.stalled = true;
    const loading = store.load([keyed(KEY, 5)]);
    await turn();
    const results = [store.apply([put(KEY, 5)]), store.apply([put(KEY, 4)])];
    expect(results.map(({ outcomes }) => outcomes[0]?.kind)).to.deep.equal(['same', 'superseded']);
    let acknowledged = 0;
    for (const { durable } of results) void durable.then(() => (acknowledged += 1));
    await machine.time.advance(1000);
    expect(acknowledged).to.equal(0);
    machine.stateVolume.resume();
    await machine.time.run(Promise.all([loading, ...results.map(({ durable }) => durable)]));
    expect(acknowledged).to.equal(2);
  });

  it('wait for room and leave half of it to the log', async () => {
    machine.stateVolume.stalled = true;
    const loading = store.load(Array.from({ length: 100 }, (_, index) => keyed(`k${index}`, 5, 300)));
    await machine.time.advance(1000);
    expect(store.statistics().overlayBytes).to.be.lessThan(SMALL_LIMITS.overlayBytes! / 2 + 400);
    await synced(put('other', 1));
    machine.stateVolume.resume();
    expect(await machine.time.run(loading)).to.equal(100);
  });

  it('fail with the store, and are refused by a closed one', async () => {
    machine.stateVolume.failure = new Error('commit failed');
    const error = await machine.time.run(store.load([keyed(KEY, 5)]).catch((thrown: unknown) => thrown));
    expect(error).to.have.property('code', 'INTERNAL');
    await machine.time.run(store.close());
    const refused = await store.load([keyed(KEY, 5)]).catch((thrown: unknown) => thrown);
    expect(refused).to.have.property('code', 'INTERNAL');
  });
});

describe('records removed without the log', () => {
  let machine: MemoryMachine;
  let store: LogStore;

  beforeEach(async () => {
    machine = new MemoryMachine();
    store = await machine.open(LIMITS, 1);
  });

  const synced = (...mutations: Mutation[]): Promise<void> =>
    machine.time.run(store.apply(mutations).durable);
  const keysFound = async (limit: number): Promise<string[]> => {
    const keys: string[] = [];
    let after: Buffer | undefined;
    for (;;) {
      const page = await machine.time.run(store.scan(0, { after, limit }));
      keys.push(...page.map(({ key }) => key.toString()));
      if (page.length < limit) return keys;
      after = page.at(-1)!.key;
    }
  };
  const names = Array.from({ length: 40 }, (_, index) => `k${String(index).padStart(2, '0')}`);
  const isOdd = (key: Buffer): boolean => Number(key.toString().slice(1, 3)) % 2 === 1 && key.length === 3;

  it('are gone at once, in pages of any size, and for good when it resolves', async () => {
    for (const checkpointed of [true, false]) {
      await synced(...names.map((name) => put(name, checkpointed ? 5 : 6)));
      if (checkpointed) await machine.time.run(store.checkpoint());
      machine.stateVolume.stalled = true;
      const removing = store.removeWhere(0, isOdd);
      await turn();
      expect(store.get(Buffer.from('k01'))).to.equal(undefined);
      expect(store.latest(Buffer.from('k01'))).to.equal(undefined);
      await synced(put('k10a', 1), put('k31a', 1), put('k39a', 1));
      const left = [...names.filter((name) => !isOdd(Buffer.from(name))), 'k10a', 'k31a', 'k39a'].sort();
      for (const limit of [1, 2, 3, 7, 100]) expect(await keysFound(limit)).to.deep.equal(left);
      await expectTrueDigests(machine.time, store);
      machine.stateVolume.resume();
      expect(await machine.time.run(removing)).to.equal(20);
      machine.kill();
      store = await machine.open(LIMITS, 1);
      expect(await keysFound(100)).to.deep.equal(left);
      await expectTrueDigests(machine.time, store);
    }
  });

  it('come back when a crash comes before the state has lost them', async () => {
    await synced(...names.map((name) => put(name, 5)));
    await machine.time.run(store.checkpoint());
    machine.stateVolume.stalled = true;
    void store.removeWhere(0, isOdd).catch(() => undefined);
    await turn();
    machine.kill();
    machine.stateVolume.stalled = false;
    store = await machine.open(LIMITS, 1);
    expect(await keysFound(100)).to.deep.equal(names);
    await expectTrueDigests(machine.time, store);
  });

  it('are gone for good also for whoever finds them gone', async () => {
    await synced(put('k01', 5));
    await machine.time.run(store.checkpoint());
    machine.stateVolume.stalled = true;
    const first = store.removeWhere(0, isOdd);
    await turn();
    let told = false;
    const second = store.removeWhere(0, isOdd).then((removed) => {
      told = true;
      return removed;
    });
    await machine.time.advance(1000);
    expect(told).to.equal(false);
    machine.stateVolume.resume();
    expect(await machine.time.run(Promise.all([first, second]))).to.deep.equal([1, 0]);
  });

  it('are not those that wait for their sync or were just loaded', async () => {
    await synced(put('k01', 5), put('k03', 5), put('k05', 5));
    const pending = store.apply([put('k01', 6)]);
    machine.stateVolume.stalled = true;
    const loading = store.load([keyed('k03', 6)]);
    const removing = store.removeWhere(0, isOdd);
    await turn();
    machine.stateVolume.resume();
    await machine.time.run(Promise.all([pending.durable, loading]));
    expect(await machine.time.run(removing)).to.equal(1);
    expect(await keysFound(100)).to.deep.equal(['k01', 'k03']);
  });

  it('leave nothing that a new record would have to exceed', async () => {
    await synced(put('k01', 9));
    await machine.time.run(store.checkpoint());
    const removing = store.removeWhere(0, isOdd);
    await turn();
    const { outcomes, durable } = store.apply([put('k01', 2)]);
    expect(outcomes[0]).to.deep.include({ kind: 'applied', previous: undefined });
    await machine.time.run(Promise.all([durable, removing]));
    expect(store.get(Buffer.from('k01'))?.version.wallMs).to.equal(2);
    await expectTrueDigests(machine.time, store);
  });

  it('stay newer than what was written after them when a crash brings them back', async () => {
    await synced(put('k01', 9));
    await machine.time.run(store.checkpoint());
    machine.stateVolume.stalled = true;
    void store.removeWhere(0, isOdd).catch(() => undefined);
    await turn();
    await synced(put('k01', 2));
    expect(store.get(Buffer.from('k01'))?.version.wallMs).to.equal(2);
    machine.kill();
    machine.stateVolume.stalled = false;
    store = await machine.open(LIMITS, 1);
    expect(store.get(Buffer.from('k01'))?.version.wallMs).to.equal(9);
    await expectTrueDigests(machine.time, store);
  });

  it('are judged by what readers see, also the damaged ones', async () => {
    await synced(put('k01', 5), put('k02', 5), put('k03', 5));
    await machine.time.run(store.checkpoint());
    const bytes = machine.stateVolume.content.partitions.get(0)!.get('k02')!;
    bytes[20] = bytes[20]! ^ 1;
    await synced(put('k03', 7));
    const seen: string[] = [];
    await machine.time.run(
      store.removeWhere(0, (key, record) => {
        seen.push(`${key.toString()} ${record?.version.wallMs ?? 'damaged'}`);
        return record === undefined;
      }),
    );
    expect(seen).to.deep.equal(['k01 5', 'k02 damaged', 'k03 7']);
    expect(await keysFound(100)).to.deep.equal(['k01', 'k03']);
    await machine.time.advance(100);
    await expectTrueDigests(machine.time, store);
  });

  it('are looked for in small steps', async () => {
    store = await new MemoryMachine({ time: machine.time }).open({}, 1);
    await machine.time.run(store.load(Array.from({ length: 2200 }, (_, index) => keyed(`k${index}`, 5))));
    let looked = 0;
    const removing = store.removeWhere(0, () => {
      looked += 1;
      return false;
    });
    await turn();
    expect(looked).to.be.at.most(500);
    expect(await machine.time.run(removing)).to.equal(0);
    expect(looked).to.equal(2200);
  });
});

/** A write, load or removal of one key. Times are events of the disk. */
interface Call {
  readonly key: Buffer;
  /** Undefined: a removal. */
  readonly version: Version | undefined;
  readonly calledAt: number;
  doneAt: number;
}

/** One life of a store that is written with and without its log. */
class Life {
  private readonly calls: Call[] = [];
  private readonly machine: MemoryMachine;
  private readonly store: LogStore;
  private readonly random: Random;
  private readonly keys = Array.from({ length: 24 }, (_, index) => Buffer.from(`key-${index}`));

  constructor(machine: MemoryMachine, store: LogStore, random: Random) {
    this.machine = machine;
    this.store = store;
    this.random = random;
  }

  async run(steps: number): Promise<void> {
    const waiting: Promise<void>[] = [];
    for (let step = 0; step < steps; step += 1) {
      const dice = this.random.fraction();
      if (dice < 0.55) waiting.push(this.write());
      else if (dice < 0.85) waiting.push(this.load());
      else waiting.push(this.remove());
      if (this.random.fraction() < 0.5) await this.machine.time.advance(this.below(4));
    }
    await this.machine.time.run(Promise.all(waiting));
  }

  /** Checks a store after a crash at an event: what was done is there, unless something contrary may have come after it. */
  check(store: LogStore, at: number): number {
    let checked = 0;
    const called = this.calls.filter(({ calledAt }) => calledAt <= at);
    for (const { key, version, calledAt } of called.filter(({ doneAt }) => doneAt <= at)) {
      const isContrary = (other: Call): boolean =>
        other.key === key &&
        (other.version === undefined) !== (version === undefined) &&
        other.doneAt >= calledAt;
      if (called.some(isContrary)) continue;
      checked += 1;
      const found = store.get(key);
      if (version === undefined) expect(found, `removed ${key.toString()}`).to.equal(undefined);
      else expect(compareVersions(found!.version, version), key.toString()).to.be.at.least(0);
    }
    return checked;
  }

  private write(): Promise<void> {
    const { key, record } = this.some();
    const finish = this.call([key], record.version);
    return this.store.apply([{ key, record, own: this.random.fraction() < 0.5 }]).durable.then(finish);
  }

  private load(): Promise<void> {
    const several = Array.from({ length: 1 + this.below(12) }, () => this.some());
    const finish = several.map(({ key, record }) => this.call([key], record.version));
    return this.store.load(several).then(() => finish.forEach((done) => done()));
  }

  private remove(): Promise<void> {
    const partition = this.below(this.store.partitions);
    const remainder = this.below(3);
    const chosen = this.keys.filter(
      (key, index) => index % 3 === remainder && partitionOf(key, this.store.partitions) === partition,
    );
    const finish = this.call(chosen, undefined);
    return this.store.removeWhere(partition, (key) => chosen.some((other) => other.equals(key))).then(finish);
  }

  private call(keys: readonly Buffer[], version: Version | undefined): () => void {
    const calls = keys.map((key) => ({ key, version, calledAt: this.machine.now, doneAt: Infinity }));
    this.calls.push(...calls);
    return () => {
      for (const call of calls) call.doneAt = this.machine.now;
    };
  }

  private some(): KeyedRecord {
    const key = this.keys[this.below(this.keys.length)]!;
    const version = { wallMs: 1 + this.below(300), counter: 0, writer: 7 };
    return { key, record: liveRecord(key, Buffer.alloc(this.below(150), version.wallMs), version) };
  }

  private below(bound: number): number {
    return Math.floor(this.random.fraction() * bound);
  }
}

describe('a store that is written with and without its log', () => {
  for (let seed = 1; seed <= 6; seed += 1) {
    it(`has what it promised, and true digests, after a crash at any point (seed ${seed})`, async () => {
      const random = seededRandom(seed);
      const machine = new MemoryMachine({ random });
      const created = machine.now;
      const store = await machine.open(SMALL_LIMITS, 3);
      const life = new Life(machine, store, random);
      await life.run(60);
      await expectTrueDigests(machine.time, store);
      let checked = 0;
      for (let at = created; at <= machine.now; at += 3) {
        const crashed = machine.crashedAt(at, randomFates(seededRandom(seed * 1000 + at)));
        const reopened = await crashed.open(SMALL_LIMITS, 3);
        checked += life.check(reopened, at);
        await expectTrueDigests(crashed.time, reopened);
        crashed.kill();
      }
      expect(checked).to.be.greaterThan(500);
    });
  }
});
