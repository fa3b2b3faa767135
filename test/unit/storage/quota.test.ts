import { expect } from 'chai';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { DEFAULT_LIMITS } from '../../../node/storage/limits.ts';
import { liveRecord, tombstoneRecord } from '../../../node/storage/record.ts';
import type { Mutation } from '../../../node/storage/store.ts';
import { fitted, headroomBytes, reserveBytes } from '../../../node/storage/volume.ts';
import { diskError } from '../../support/memory-disk.ts';
import { MemoryMachine, SMALL_LIMITS } from '../../support/memory-store.ts';

const MIB = 1024 * 1024;

function put(key: string, size: number, wallMs = 1): Mutation {
  const bytes = Buffer.from(key);
  return {
    key: bytes,
    record: liveRecord(bytes, Buffer.alloc(size), { wallMs, counter: 0, writer: 1 }),
    own: true,
  };
}

function deletion(key: string): Mutation {
  const bytes = Buffer.from(key);
  return { key: bytes, record: tombstoneRecord(bytes, { wallMs: 9, counter: 0, writer: 1 }), own: true };
}

describe('what a store takes of its volume', () => {
  const of = (totalBytes: number): { freeBytes: number; totalBytes: number } => ({
    freeBytes: totalBytes,
    totalBytes,
  });

  it('is a log of at most a quarter, in segments of which some can always go', () => {
    expect(fitted(DEFAULT_LIMITS, of(100 * 1024 * MIB))).to.deep.equal(DEFAULT_LIMITS);
    expect(fitted(DEFAULT_LIMITS, of(256 * MIB))).to.deep.include({
      logBytes: 64 * MIB,
      segmentBytes: 16 * MIB,
    });
    expect(fitted(DEFAULT_LIMITS, of(64 * MIB))).to.deep.include({
      logBytes: 16 * MIB,
      segmentBytes: 4 * MIB,
    });
  });

  it('leaves a headroom by its size', () => {
    for (const [totalMib, headroomMib] of [
      [64, 8],
      [256, 24],
      [1000, 50],
      [10_000, 500],
      [1_000_000, 1024],
    ] as const) {
      expect(headroomBytes(of(totalMib * MIB))).to.equal(headroomMib * MIB);
    }
  });

  it('is a reserve of at most a twentieth', () => {
    expect(reserveBytes({ reserveBytes: 16 * MIB }, of(10_000 * MIB))).to.equal(16 * MIB);
    expect(reserveBytes({ reserveBytes: 16 * MIB }, of(100 * MIB))).to.equal(5 * MIB);
  });
});

describe('the quota of a store', () => {
  let machine: MemoryMachine;
  let store: LogStore;

  const synced = (...mutations: Mutation[]): Promise<void> =>
    machine.time.run(store.apply(mutations).durable);
  /** Writes and lets the store look at its volume. */
  const settled = async (...mutations: Mutation[]): Promise<void> => {
    await synced(...mutations);
    await machine.time.run(store.checkpoint());
    await machine.time.advance(1500);
  };

  it('is what it was told; beyond it only what makes room goes on, and it is kept to until there clearly is', async () => {
    machine = new MemoryMachine();
    store = await machine.open({ ...SMALL_LIMITS, logBytes: 8000, quotaBytes: 40_000 });
    expect(store.quotaExceeded).to.equal(false);
    const keys = Array.from({ length: 60 }, (_, index) => `k${index}`);
    let written = 0;
    while (!store.quotaExceeded && written < 60) {
      await settled(put(keys[written]!, 1000));
      written += 1;
    }
    expect(written).to.be.within(25, 45);
    const { quotaBytes, usedBytes } = store.statistics();
    expect(quotaBytes).to.equal(40_000);
    // What waits for a checkpoint counts twice: it is in the log, and needs room in the state.
    expect(usedBytes).to.be.greaterThan(38_000).and.lessThan(43_000);
    // Barely below it changes nothing: the log's size alone goes up and down by more.
    let deleted = 0;
    while (store.statistics().usedBytes > 39_500) {
      await settled(deletion(keys[deleted]!));
      deleted += 1;
    }
    expect(store.quotaExceeded).to.equal(true);
    while (store.quotaExceeded && deleted < written) {
      await settled(deletion(keys[deleted]!));
      deleted += 1;
    }
    expect(store.quotaExceeded).to.equal(false);
    expect(store.statistics().usedBytes).to.be.lessThan(38_500);
  });

  it('leaves room on the volume for the log at its cap and for a headroom, whoever fills it', async () => {
    machine = new MemoryMachine();
    machine.disk.capacityBytes = 400_000;
    store = await machine.open({ ...SMALL_LIMITS, logBytes: 1e9, quotaBytes: 1e9 });
    await settled(put('a', 10));
    expect(store.quotaExceeded).to.equal(false);
    expect(store.statistics().quotaBytes).to.be.within(200_000, 260_000);
    // The log has 100,000 to go, and 50,000 must be left.
    machine.disk.newInode('of somebody else', Buffer.alloc(240_000));
    await settled(put('b', 10));
    expect(store.quotaExceeded).to.equal(false);
    machine.disk.newInode('another', Buffer.alloc(20_000));
    await settled(put('c', 10));
    expect(store.quotaExceeded).to.equal(true);
    await settled(deletion('a'));
    // Nothing is written any more, and it is looked all the same.
    machine.disk.files.delete('of somebody else');
    await machine.time.advance(1500);
    expect(store.quotaExceeded).to.equal(false);
  });

  it('keeps the log below a quarter of the volume', async () => {
    machine = new MemoryMachine();
    machine.disk.capacityBytes = 100_000;
    store = await machine.open({ ...SMALL_LIMITS, logBytes: 1e9, segmentBytes: 1e9 });
    for (let index = 0; index < 300; index += 1) await synced(put(`k${index % 7}`, 300, index + 1));
    await machine.time.run(store.checkpoint());
    await machine.time.advance(100);
    expect(store.statistics().logBytes).to.be.within(15_000, 32_000);
  });

  it('fails the store when the volume cannot be looked at', async () => {
    machine = new MemoryMachine();
    store = await machine.open();
    machine.disk.interfere = (operation, name) =>
      operation === 'read' && name === '' ? diskError('EIO', name) : undefined;
    const failure = store.failed.catch((error: unknown) => error);
    await synced(put('a', 1));
    expect(await machine.time.run(failure)).to.have.property('code', 'INTERNAL');
  });
});

describe('the reserve of a store', () => {
  const LIMITS = { ...SMALL_LIMITS, reserveBytes: 10_000 };
  const CAPACITY = 400_000;
  let machine: MemoryMachine;

  beforeEach(() => {
    machine = new MemoryMachine();
    machine.disk.capacityBytes = CAPACITY;
  });

  const reserve = (of = machine): number | undefined => of.disk.files.get('reserve')?.content.length;
  const fill = (leave: number): void => {
    machine.disk.newInode(
      'filler',
      Buffer.alloc(machine.disk.capacityBytes - machine.disk.usedBytes - leave),
    );
  };

  it('is made a while after the start, and once', async () => {
    await machine.open(LIMITS);
    expect(reserve()).to.equal(undefined);
    await machine.time.advance(6000);
    expect(reserve()).to.equal(10_000);
    const made = machine.disk.events.filter(({ kind }) => kind === 'create').length;
    machine.kill();
    const store = await machine.open(LIMITS);
    await machine.time.advance(6000);
    await machine.time.run(store.apply([put('a', 1)]).durable);
    await machine.time.advance(6000);
    // The new segment of the start.
    expect(machine.disk.events.filter(({ kind }) => kind === 'create').length).to.equal(made + 1);
    expect(reserve()).to.equal(10_000);
  });

  it('is not made where room is short', async () => {
    fill(90_000);
    await machine.open(LIMITS);
    await machine.time.advance(6000);
    expect(reserve()).to.equal(undefined);
  });

  it('is completed when a crash left less of it', async () => {
    machine.disk.newInode('reserve', Buffer.alloc(5000));
    await machine.open(LIMITS);
    await machine.time.advance(6000);
    expect(reserve()).to.equal(10_000);
  });

  it('does no harm when there is less room than it seemed', async () => {
    const store = await machine.open(LIMITS);
    machine.disk.interfere = (operation, name) =>
      operation === 'append' && name === 'reserve' ? diskError('ENOSPC', name) : undefined;
    await machine.time.advance(6000);
    expect(reserve()).to.equal(undefined);
    await machine.time.run(store.apply([put('a', 1)]).durable);
  });

  it('lets a store on a full volume start, trim and go on; and is made again when there is room', async () => {
    const first = await machine.open(LIMITS);
    await machine.time.advance(6000);
    for (let index = 0; index < 20; index += 1) {
      await machine.time.run(first.apply([put(`k${index}`, 500)]).durable);
    }
    fill(0);
    const failure = await machine.time.run(
      first.apply([put('one', 1)]).durable.catch((error: unknown) => error),
    );
    expect(failure).to.have.property('code', 'INTERNAL');
    await machine.time.run(first.close());
    expect(reserve()).to.equal(10_000);
    const second = await machine.open(LIMITS);
    expect(reserve()).to.equal(undefined);
    await machine.time.run(second.apply([deletion('k1')]).durable);
    await machine.time.run(second.checkpoint());
    second.trimLog(second.head);
    await machine.time.advance(6000);
    expect(second.statistics().logBytes).to.be.lessThan(5000);
    expect(second.quotaExceeded).to.equal(true);
    machine.disk.files.delete('filler');
    await machine.time.advance(2000);
    expect(second.quotaExceeded).to.equal(false);
    expect(reserve()).to.equal(10_000);
  });

  it('is what a start on a full volume fails without', async () => {
    const first = await machine.open({ ...LIMITS, reserveBytes: 0 });
    await machine.time.run(first.close());
    fill(0);
    const error = await machine.open(LIMITS).catch((thrown: unknown) => thrown);
    expect(error).to.have.property('code', 'ENOSPC');
  });
});
