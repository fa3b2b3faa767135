import { expect } from 'chai';
import { compareVersions, formatVersion, type Version } from '../../../model/version.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { liveRecord, tombstoneRecord } from '../../../node/storage/record.ts';
import type { Mutation, StoredRecord } from '../../../node/storage/store.ts';
import { randomFates, type CrashFates } from '../../support/memory-disk.ts';
import { expectTrueDigests, MemoryMachine } from '../../support/memory-store.ts';
import { seededRandom } from '../../support/seeded-random.ts';

const KEYS = Array.from({ length: 40 }, (_, index) => Buffer.from(`key-${index}`));
const PEER = { origin: 'peer', incarnation: 77 };

/** Something that must hold from a point in time on. `at` counts events of the disk. */
interface Promised<T> {
  readonly at: number;
  readonly what: T;
}

/** What the store has said over all its lives, and what follows for every later one. */
class Promises {
  /** Acknowledged versions of keys. */
  readonly acked: Promised<{ key: Buffer; version: Version }>[] = [];
  /** Every record ever applied, by key and version: nothing else may be found. */
  readonly written = new Map<string, StoredRecord>();
  /** What the peer's log holds at each sequence. */
  readonly peerLog: { key: Buffer; version: Version }[] = [];
  readonly ackedCursors: Promised<number>[] = [];
  /** Own entries that others may have seen. */
  readonly seen: Promised<{ sequence: number; version: Version }>[] = [];
  readonly ceilings: Promised<number>[] = [];
  readonly metas: Promised<number>[] = [];
}

/** Drives one life of a store with seeded writes, and notes what it promised. */
class Driver {
  private readonly machine: MemoryMachine;
  private readonly store: LogStore;
  private readonly promises: Promises;
  private readonly fraction: () => number;

  constructor(machine: MemoryMachine, store: LogStore, promises: Promises, seed: number) {
    this.machine = machine;
    this.store = store;
    this.promises = promises;
    this.fraction = () => random.fraction();
    const random = seededRandom(seed);
  }

  async run(steps: number): Promise<void> {
    const waiting: Promise<unknown>[] = [];
    for (let step = 0; step < steps; step += 1) {
      waiting.push(...this.step());
      if (this.fraction() < 0.5) await this.machine.time.advance(Math.floor(this.fraction() * 4));
    }
    await this.machine.time.run(Promise.all(waiting));
  }

  /** Begins writes, and leaves them in whatever state they are. */
  async leave(steps: number): Promise<void> {
    for (let step = 0; step < steps; step += 1)
      for (const waiting of this.step()) waiting.catch(() => undefined);
    await this.machine.time.advance(this.below(3));
  }

  private below(bound: number): number {
    return Math.floor(this.fraction() * bound);
  }

  private step(): Promise<void>[] {
    const dice = this.fraction();
    if (dice < 0.55) return [this.writeOwn()];
    if (dice < 0.85) return [this.applyFromPeer()];
    if (dice < 0.9) return [this.raiseCeiling()];
    if (dice < 0.95) return [this.writeMeta()];
    if (dice < 0.97) return [this.store.checkpoint()];
    this.store.trimLog(this.below(this.store.head + 1));
    return [];
  }

  private writeOwn(): Promise<void> {
    const key = KEYS[this.below(KEYS.length)]!;
    const seen = this.store.latest(key)?.version;
    const version = { wallMs: (seen?.wallMs ?? 1000) + 1 + this.below(3), counter: this.below(9), writer: 5 };
    const done = this.apply([this.mutation(key, version, true)]);
    this.promises.seen.push(
      ...done.outcomes.flatMap((outcome) =>
        outcome.kind === 'applied' && outcome.sequence <= this.store.head
          ? [{ at: this.machine.now, what: { sequence: outcome.sequence, version } }]
          : [],
      ),
    );
    return done.durable;
  }

  private applyFromPeer(): Promise<void> {
    const { peerLog, ackedCursors } = this.promises;
    // A stream begins again behind the cursor that is durable here.
    const from = this.store.cursors().find(({ origin }) => origin === PEER.origin)?.sequence ?? 0;
    while (peerLog.length < from + 4) {
      const key = KEYS[this.below(KEYS.length)]!;
      peerLog.push({ key, version: { wallMs: 1000 + this.below(400), counter: 0, writer: 9 } });
    }
    const through = from + 1 + this.below(4);
    const mutations = peerLog
      .slice(from, through)
      .map(({ key, version }) => this.mutation(key, version, false));
    const done = this.apply(mutations, { ...PEER, sequence: through });
    return done.durable.then(() => void ackedCursors.push({ at: this.machine.now, what: through }));
  }

  private apply(
    mutations: Mutation[],
    cursor?: Parameters<LogStore['apply']>[1],
  ): ReturnType<LogStore['apply']> {
    const result = this.store.apply(mutations, cursor);
    const durable = result.durable.then(() => {
      for (const { key, record } of mutations) {
        this.promises.acked.push({ at: this.machine.now, what: { key, version: record.version } });
        // Whatever is acknowledged can be read.
        expect(compareVersions(this.store.get(key)!.version, record.version)).to.be.at.least(0);
      }
    });
    return { ...result, durable };
  }

  private mutation(key: Buffer, version: Version, own: boolean): Mutation {
    const name = `${key.toString()} ${formatVersion(version)}`;
    const record =
      this.promises.written.get(name) ??
      (this.fraction() < 0.2
        ? tombstoneRecord(key, version)
        : liveRecord(key, Buffer.alloc(this.below(200), name), version));
    this.promises.written.set(name, record);
    return { key, record, own };
  }

  private raiseCeiling(): Promise<void> {
    const wallMs = this.store.clockCeilingMs + this.below(100);
    return this.store
      .raiseClockCeiling(wallMs)
      .then(() => void this.promises.ceilings.push({ at: this.machine.now, what: wallMs }));
  }

  private writeMeta(): Promise<void> {
    const value = this.promises.metas.length + 1;
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    return this.store
      .writeMeta('n', bytes)
      .then(() => void this.promises.metas.push({ at: this.machine.now, what: value }));
  }
}

/** Checks a store that was opened after a crash at the event `at` of the life before. */
async function check(machine: MemoryMachine, store: LogStore, promises: Promises, at: number): Promise<void> {
  const kept = <T>(list: readonly Promised<T>[]): T[] =>
    list.filter((promised) => promised.at <= at).map(({ what }) => what);
  for (const { key, version } of kept(promises.acked)) {
    const found = store.get(key);
    expect(found, `acknowledged ${key.toString()}`).not.to.equal(undefined);
    expect(compareVersions(found!.version, version), `version of ${key.toString()}`).to.be.at.least(0);
  }
  for (const key of KEYS) {
    const found = store.get(key);
    if (found === undefined) continue;
    const written = promises.written.get(`${key.toString()} ${formatVersion(found.version)}`);
    expect(found.bytes.equals(written!.bytes), `content of ${key.toString()}`).to.equal(true);
  }
  const cursor = store.cursors().find(({ origin }) => origin === PEER.origin)?.sequence ?? 0;
  expect(cursor).to.be.at.least(Math.max(0, ...kept(promises.ackedCursors)));
  for (const { key, version } of promises.peerLog.slice(0, cursor)) {
    expect(compareVersions(store.get(key)!.version, version), 'records behind the cursor').to.be.at.least(0);
  }
  expect(store.clockCeilingMs).to.be.at.least(Math.max(0, ...kept(promises.ceilings)));
  expect(store.readMeta('n')?.readUInt32BE() ?? 0).to.be.at.least(Math.max(0, ...kept(promises.metas)));
  await checkSequences(machine, store, kept(promises.seen));
  const scanned = new Map<string, StoredRecord>();
  for (let partition = 0; partition < store.partitions; partition += 1) {
    for (const { key, record } of await machine.time.run(store.scan(partition, { limit: 1000 }))) {
      scanned.set(key.toString(), record);
    }
  }
  for (const key of KEYS) expect(scanned.get(key.toString())?.checksum).to.equal(store.get(key)?.checksum);
  await expectTrueDigests(machine.time, store);
}

async function checkSequences(
  machine: MemoryMachine,
  store: LogStore,
  seen: { sequence: number; version: Version }[],
): Promise<void> {
  const bySequence = new Map(seen.map(({ sequence, version }) => [sequence, formatVersion(version)]));
  let after = store.logStart;
  while (after < store.head) {
    const slice = await machine.time.run(store.readLog(after, 700));
    expect(slice.through, 'the log goes on').to.be.greaterThan(after);
    for (const entry of slice.entries) {
      const known = bySequence.get(entry.sequence);
      if (known !== undefined) expect(formatVersion(entry.record.version)).to.equal(known);
    }
    after = slice.through;
  }
  const key = Buffer.from('probe');
  const version = { wallMs: 2000 + store.sequenceCeiling, counter: 0, writer: 5 };
  const { outcomes, durable } = store.apply([{ key, record: liveRecord(key, key, version), own: true }]);
  await machine.time.run(durable);
  const next = outcomes[0]?.kind === 'applied' ? outcomes[0].sequence : 0;
  expect(next, 'a sequence is used once').to.be.greaterThan(Math.max(0, ...bySequence.keys()));
}

/** All versions of what happened before the crash: unsynced changes all lost, all kept, or any mixture. */
function fatesOf(seed: number): CrashFates {
  if (seed % 5 === 0) return { write: () => 'lost', name: () => 'lost', sector: () => false };
  if (seed % 5 === 1) return { write: () => 'kept', name: () => 'kept', sector: () => true };
  return randomFates(seededRandom(seed));
}

describe('a store after a crash', () => {
  for (let seed = 1; seed <= 4; seed += 1) {
    it(`has everything that was acknowledged, at any point of its life (seed ${seed})`, async () => {
      const machine = new MemoryMachine({ random: seededRandom(seed) });
      const promises = new Promises();
      const created = machine.now;
      await new Driver(machine, await machine.open(), promises, seed).run(120);
      for (let at = created; at <= machine.now; at += 2 + (seed % 3)) {
        const crashed = machine.crashedAt(at, fatesOf(seed * 1000 + at));
        const store = await crashed.open();
        await check(crashed, store, promises, at);
        crashed.kill();
      }
    });
  }

  it('keeps its promises over several crashes in a row', async () => {
    for (let seed = 1; seed <= 12; seed += 1) {
      const random = seededRandom(seed);
      let machine = new MemoryMachine({ random });
      const promises = new Promises();
      for (let life = 0; life < 4; life += 1) {
        const born = machine.now;
        const store = await machine.open();
        if (random.fraction() < 0.3) {
          await new Driver(machine, store, promises, seed * 10 + life).run(10);
          await machine.time.run(store.close());
          await machine.open();
        } else {
          await new Driver(machine, store, promises, seed * 10 + life).run(30);
        }
        const at = born + Math.floor(random.fraction() * (machine.now - born + 1));
        const crashed = machine.crashedAt(at, fatesOf(seed * 100 + life));
        forget(promises, at, crashed.now);
        machine = crashed;
        await check(machine, await machine.open(), promises, machine.now);
        machine.kill();
      }
    }
  });

  it('keeps its promises when power is lost after its process was killed, with writes that only memory had', async () => {
    for (let seed = 1; seed <= 8; seed += 1) {
      const machine = new MemoryMachine({ random: seededRandom(seed) });
      const promises = new Promises();
      for (let life = 0; life < 3; life += 1) {
        const driver = new Driver(machine, await machine.open(), promises, seed * 10 + life);
        await driver.run(15);
        await driver.leave(5);
        machine.kill();
      }
      await machine.open();
      for (let at = machine.now; at > 0; at -= 9) {
        const crashed = machine.crashedAt(at, fatesOf(seed * 1000 + at));
        await check(crashed, await crashed.open(), promises, at);
        crashed.kill();
      }
    }
  });

  it('goes on behind the last sequence after a clean end, and behind the ceiling after any other', async () => {
    const machine = new MemoryMachine();
    const key = Buffer.from('k');
    const write = async (store: LogStore, wallMs: number): Promise<number> => {
      const record = liveRecord(key, key, { wallMs, counter: 0, writer: 1 });
      const { outcomes, durable } = store.apply([{ key, record, own: true }]);
      await machine.time.run(durable);
      return outcomes[0]?.kind === 'applied' ? outcomes[0].sequence : -1;
    };
    const first = await machine.open();
    expect(await write(first, 1)).to.equal(1);
    await machine.time.run(first.close());
    const second = await machine.open();
    expect(await write(second, 2)).to.equal(2);
    const ceiling = second.sequenceCeiling;
    machine.kill();
    const third = await machine.open();
    expect(await write(third, 3)).to.equal(ceiling + 1);
    machine.kill();
    // Without the rule a sequence that others may have seen would be used again.
    const careless = await machine.open(undefined, undefined, { rules: { sequencesBehindCeiling: false } });
    expect(await write(careless, 4)).to.equal(ceiling + 2);
    expect([first, second, third].map(({ cleanStart }) => cleanStart)).to.deep.equal([true, true, false]);
  });
});

/** What was promised after the crash never happened; what was promised before counts from now on. */
function forget(promises: Promises, at: number, now: number): void {
  for (const list of [
    promises.acked,
    promises.ackedCursors,
    promises.seen,
    promises.ceilings,
    promises.metas,
  ] as Promised<unknown>[][]) {
    const kept = list
      .filter((promised) => promised.at <= at)
      .map(({ what }) => ({ at: Math.min(now, 0), what }));
    list.splice(0, list.length, ...kept);
  }
}
