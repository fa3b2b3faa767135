import { expect } from 'chai';
import { KvError } from '../../../../common/errors.ts';
import { partitionOf } from '../../../../model/key-hash.ts';
import type { Version } from '../../../../model/version.ts';
import { LogContinuity } from '../../../../node/replication/watch/log-continuity.ts';
import { LogReads } from '../../../../node/replication/watch/log-reads.ts';
import { Mailbox } from '../../../../node/replication/watch/mailbox.ts';
import {
  type PartitionWatchOptions,
  PartitionWatch,
  type WatchPiece,
  type WatchStart,
} from '../../../../node/replication/watch/partition-watch.ts';
import { RisingMarks } from '../../../../node/replication/watch/rising-marks.ts';
import { ToldVersions } from '../../../../node/replication/watch/told-versions.ts';
import { Turns } from '../../../../node/replication/watch/turns.ts';
import type { LogStore } from '../../../../node/storage/log-store.ts';
import { liveRecord } from '../../../../node/storage/record.ts';
import { MemoryMachine, silentLogger, SMALL_LIMITS } from '../../../support/memory-store.ts';

const PARTITIONS = 8;
const version = (wallMs: number, counter = 0): Version => ({ wallMs, counter, writer: 1 });

async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  const error: unknown = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return error instanceof KvError ? error.code : undefined;
}

describe('the versions that a stream has told', () => {
  const record = (wallMs: number, checksum = 1) => ({ version: version(wallMs), checksum });
  const key = (name: string): Buffer => Buffer.from(name);

  it('never go down, and are not repeated', () => {
    const told = new ToldVersions(10);
    expect(told.admit(key('a'), record(5))).to.equal(true);
    expect(told.admit(key('a'), record(5))).to.equal(false);
    expect(told.admit(key('a'), record(4))).to.equal(false);
    expect(told.admit(key('b'), record(4))).to.equal(true);
    expect(told.admit(key('a'), record(6))).to.equal(true);
  });

  it('tell apart what must never be: one version with two checksums', () => {
    const told = new ToldVersions(10);
    told.admit(key('a'), record(5, 7));
    expect(told.admit(key('a'), record(5, 6))).to.equal(false);
    expect(told.admit(key('a'), record(5, 8))).to.equal(true);
  });

  it('are bounded, and say below which mark nobody can take over any more', () => {
    const told = new ToldVersions(2);
    for (const [index, name] of ['a', 'b', 'c'].entries()) told.admit(key(name), record(10 + index));
    expect(told.size).to.equal(2);
    expect(told.reachesDownTo(10)).to.equal(false);
    expect(told.reachesDownTo(11)).to.equal(true);
  });

  it('reach down to every mark while nothing was dropped for room', () => {
    const told = new ToldVersions(2);
    told.admit(key('a'), record(10));
    expect(told.reachesDownTo(0)).to.equal(true);
    told.forgetBelow(11);
    expect(told.size).to.equal(0);
    expect(told.reachesDownTo(0)).to.equal(true);
  });
});

describe('the marks of a log that is told', () => {
  it('rise when the log has been told through where it was when they were taken', () => {
    let lowWaterMs = 0;
    const marks = new RisingMarks(
      new Map([
        [3, 0],
        [4, 50],
      ]),
      () => lowWaterMs,
    );
    marks.sample(10);
    expect(marks.reached(10)).to.equal(undefined);
    lowWaterMs = 40;
    marks.sample(20);
    lowWaterMs = 45;
    marks.sample(21);
    expect(marks.reached(19)).to.equal(undefined);
    expect(marks.reached(20)).to.deep.equal(new Map([[3, 40]]));
    expect(marks.reached(20)).to.equal(undefined);
    lowWaterMs = 60;
    marks.sample(30);
    expect(marks.reached(99)).to.deep.equal(
      new Map([
        [3, 60],
        [4, 60],
      ]),
    );
  });
});

describe('a mailbox', () => {
  it('lets a sender go on when its item was taken, or when nothing is taken any more', async () => {
    const mailbox = new Mailbox<string>();
    const gone: string[] = [];
    for (const item of ['a', 'b', 'c']) void mailbox.put(item).then(() => gone.push(item));
    expect(mailbox.take((item) => item !== 'a')).to.equal('b');
    await Promise.resolve();
    expect(gone).to.deep.equal(['b']);
    mailbox.close();
    await mailbox.put('d');
    expect(gone).to.deep.equal(['b', 'a', 'c']);
    expect(mailbox.take(() => true)).to.equal(undefined);
  });
});

describe('the log of a node, for watches', () => {
  let machine: MemoryMachine;
  let store: LogStore;
  let serving: boolean;
  let complete: boolean;

  const open = async (): Promise<void> => {
    store = await machine.open({ ...SMALL_LIMITS, logKeepMs: 0 }, PARTITIONS);
  };
  const write = (name: string, wallMs: number, value = 'v', own = true): Promise<void> => {
    const key = Buffer.from(name);
    const record = liveRecord(key, Buffer.from(value), version(wallMs));
    return machine.time.run(store.apply([{ key, record, own }]).durable);
  };
  const continuityOf = (): LogContinuity => {
    const continuity = new LogContinuity({
      store,
      isComplete: () => complete,
      serves: () => complete && serving,
      logger: silentLogger,
    });
    continuity.update();
    return continuity;
  };

  beforeEach(async () => {
    machine = new MemoryMachine();
    await open();
    serving = true;
    complete = true;
  });

  describe('is complete', () => {
    it('since a partition became readable, also after a restart and while the node is on probation', async () => {
      await write('a', 1);
      const since = continuityOf().since(3);
      expect(since).to.equal(store.syncedThrough);
      await write('b', 2);
      await machine.time.run(store.close());
      await open();
      serving = false;
      const later = continuityOf();
      expect(later.since(3)).to.equal(undefined);
      serving = true;
      later.update();
      expect(later.since(3)).to.equal(since);
    });

    it('only anew after the partition was not readable for a while', async () => {
      const continuity = continuityOf();
      const { generation } = continuity;
      const before = continuity.since(3) ?? 0;
      complete = false;
      continuity.update();
      expect(continuity.since(3)).to.equal(undefined);
      await write('a', 1);
      complete = true;
      continuity.update();
      expect(continuity.since(3)).to.be.greaterThan(before);
      expect(continuity.generation).to.not.equal(generation);
    });

    it('only anew when the process was killed between a loss and a gain', async () => {
      const continuity = continuityOf();
      const before = continuity.since(3) ?? 0;
      await write('a', 1);
      complete = false;
      continuity.update();
      // What is written after a loss, such as that the partition is readable again, is behind it in the log.
      await write('b', 2);
      machine.kill();
      await open();
      complete = true;
      expect(continuityOf().since(3)).to.be.greaterThan(before);
    });
  });

  it('is read once for all that stand at one place', async () => {
    let read = 0;
    const counted = {
      readEntries: (after: number, maxBytes: number) => {
        read += 1;
        return store.readEntries(after, maxBytes);
      },
    };
    const reads = new LogReads({
      store: counted,
      partitionOf: (key) => partitionOf(key, PARTITIONS),
      sliceBytes: 1e6,
    });
    const begin = store.syncedThrough;
    for (let at = 1; at <= 5; at += 1) await write(`key-${at}`, at, 'v', at % 2 === 0);
    const [one, two] = await machine.time.run(Promise.all([reads.read(begin), reads.read(begin)]));
    expect(one.entries.map(({ key }) => key.toString())).to.deep.equal(
      [1, 2, 3, 4, 5].map((at) => `key-${at}`),
    );
    expect(two).to.equal(one);
    expect(read).to.equal(1);
    for (let at = 0; at < 20; at += 1) await machine.time.run(reads.read(begin + 1 + (at % 4)));
    expect(read).to.equal(5);
  });

  it('asks again where a look had not reached the place yet', async () => {
    let looks = 0;
    const reads = new LogReads({
      store: {
        readEntries: (after) => {
          looks += 1;
          // The log had to be read from far before.
          return Promise.resolve({ after, through: looks === 1 ? after : after + 5, entries: [] });
        },
      },
      partitionOf: () => 0,
      sliceBytes: 1000,
    });
    expect((await reads.read(10)).through).to.equal(10);
    expect((await reads.read(10)).through).to.equal(15);
    expect((await reads.read(10)).through).to.equal(15);
    expect(looks).to.equal(2);
  });

  it('that has been trimmed is OUT_OF_RANGE, and is asked for again', async () => {
    const reads = new LogReads({ store, partitionOf: () => 0, sliceBytes: 1000 });
    for (let at = 1; at < 200; at += 1) await write(`key-${at % 5}`, at, 'x'.repeat(100));
    store.trimLog(store.head);
    await machine.time.advance(1000);
    expect(store.logStart).to.be.greaterThan(0);
    expect(await codeOf(machine.time.run(reads.read(0)))).to.equal('OUT_OF_RANGE');
    expect(await codeOf(machine.time.run(reads.read(0)))).to.equal('OUT_OF_RANGE');
  });

  describe('is told', () => {
    const lowWater = new Map<number, number>();
    const horizons = new Map<number, number>();
    let incarnation: number;
    let continuity: LogContinuity;
    let controller: AbortController;

    beforeEach(() => {
      incarnation = 7;
      lowWater.clear();
      horizons.clear();
      continuity = continuityOf();
      controller = new AbortController();
    });

    const told = (
      start: WatchStart,
      options: { prefix?: string; marks?: ReadonlyMap<number, number> } & Partial<PartitionWatchOptions> = {},
    ): AsyncGenerator<WatchPiece, never, undefined> => {
      const { prefix = '', marks, ...more } = options;
      const scheduler = machine.time.scheduler();
      const all = new Map(Array.from({ length: PARTITIONS }, (_, partition) => [partition, 0]));
      return new PartitionWatch(
        {
          nodeId: 'kv-0',
          store,
          reads: new LogReads({ store, partitionOf: (key) => partitionOf(key, PARTITIONS), sliceBytes: 500 }),
          continuity,
          incarnation: () => incarnation,
          lowWaterMs: (partition) => lowWater.get(partition) ?? 0,
          horizonMs: (partition) => horizons.get(partition) ?? 0,
          turns: new Turns(scheduler),
          clock: machine.time.clock(),
          scheduler,
          beatMs: 1000,
          pieceBytes: 500,
          ...more,
        },
        { prefix: Buffer.from(prefix), start, marks: marks ?? all },
        controller.signal,
      ).pieces();
    };
    const next = async (pieces: AsyncGenerator<WatchPiece, never, undefined>): Promise<WatchPiece> =>
      (await machine.time.run(pieces.next())).value;
    const namesOf = ({ records }: WatchPiece): string[] => records.map(({ key }) => key.toString());

    it('from now on, and says where it is at least at every beat', async () => {
      await write('before', 1);
      const pieces = told({ kind: 'now' });
      const begun = await next(pieces);
      expect(begun).to.deep.include({ incarnation: 7, sequence: store.syncedThrough, records: [] });
      const beat = await next(pieces);
      expect(machine.time.monotonicMs).to.be.within(1000, 1100);
      expect(beat.records).to.deep.equal([]);
      await write('after', 2);
      const piece = await next(pieces);
      expect(namesOf(piece)).to.deep.equal(['after']);
      expect(piece.sequence).to.equal(store.syncedThrough);
    });

    it('only of the partitions and the prefix asked for', async () => {
      const name = (at: number): string => `p-${at}`;
      const names = Array.from({ length: 40 }, (_, at) => name(at));
      const inside = (one: string): boolean => partitionOf(Buffer.from(one), PARTITIONS) === 2;
      const pieces = told({ kind: 'now' }, { prefix: 'p-', marks: new Map([[2, 0]]) });
      await next(pieces);
      for (const [at, one] of names.entries()) {
        await write(one, at + 1);
        await write(`q-${at}`, at + 1);
      }
      const expected = names.filter(inside);
      const found: string[] = [];
      while (found.length < expected.length) found.push(...namesOf(await next(pieces)));
      expect(found).to.deep.equal(expected);
    });

    it('from a place on, unless it is of another incarnation, beyond the end, or before it was complete', async () => {
      await write('a', 1);
      const sequence = store.syncedThrough;
      await write('b', 2);
      const pieces = told({ kind: 'log', incarnation: 7, sequence });
      expect((await next(pieces)).sequence).to.equal(sequence);
      expect(namesOf(await next(pieces))).to.deep.equal(['b']);
      const refused: readonly WatchStart[] = [
        { kind: 'log', incarnation: 8, sequence },
        { kind: 'log', incarnation: 7, sequence: store.syncedThrough + 1 },
        { kind: 'log', incarnation: 7, sequence: (continuity.since(0) ?? 0) - 1 },
      ];
      for (const start of refused) expect(await codeOf(next(told(start)))).to.equal('OUT_OF_RANGE');
    });

    it('from what is stored at or above the marks, in small pieces, and then from the log', async () => {
      for (let at = 0; at < 60; at += 1) await write(`key-${at}`, at + 1, 'x'.repeat(50));
      const marks = new Map(Array.from({ length: PARTITIONS }, (_, partition) => [partition, 41]));
      const pieces = told({ kind: 'state' }, { marks });
      const found: string[] = [];
      for (;;) {
        const piece = await next(pieces);
        found.push(...namesOf(piece));
        expect(piece.records.length).to.be.lessThan(8);
        if (piece.sequence !== undefined) break;
      }
      expect(found.sort()).to.deep.equal(Array.from({ length: 20 }, (_, at) => `key-${at + 40}`).sort());
      await write('key-1', 100);
      expect(namesOf(await next(pieces))).to.deep.equal(['key-1']);
    });

    it('without a gap between what is stored and the log', async () => {
      for (let at = 0; at < 10; at += 1) await write(`key-${at}`, at + 1, 'x'.repeat(300));
      const pieces = told({ kind: 'state' });
      await next(pieces);
      const written: string[] = [];
      for (let at = 0; at < 10; at += 1) {
        written.push(`new-${at}`);
        await write(`new-${at}`, at + 50);
      }
      const found = new Set<string>();
      for (let piece = await next(pieces); ; piece = await next(pieces)) {
        for (const name of namesOf(piece)) found.add(name);
        if (piece.sequence === store.syncedThrough) break;
      }
      expect([...found]).to.include.members(written);
    });

    it('not from what is stored when collection has passed a mark, before or meanwhile', async () => {
      for (let at = 0; at < 30; at += 1) await write(`key-${at}`, at + 1, 'x'.repeat(100));
      const marks = new Map(Array.from({ length: PARTITIONS }, (_, partition) => [partition, 10]));
      horizons.set(5, 11);
      expect(await codeOf(next(told({ kind: 'state' }, { marks })))).to.equal('OUT_OF_RANGE');
      horizons.set(5, 10);
      const pieces = told({ kind: 'state' }, { marks });
      await next(pieces);
      horizons.set(7, 11);
      const rest = async (): Promise<void> => {
        while ((await next(pieces)).sequence === undefined);
      };
      expect(await codeOf(rest())).to.equal('OUT_OF_RANGE');
    });

    it('with marks that count when it is told through the newest own entry, which others may hold before it is synced', async () => {
      let synced = 5;
      const entry = {
        key: Buffer.from('own'),
        record: liveRecord(Buffer.from('own'), Buffer.from('v'), version(30)),
      };
      const slow = {
        scan: () => Promise.resolve([]),
        onSync: () => () => undefined,
        head: 6,
        get syncedThrough() {
          return synced;
        },
      };
      const reads = { read: () => Promise.resolve({ through: 6, entries: [{ ...entry, partition: 2 }] }) };
      lowWater.set(2, 31);
      const pieces = told(
        { kind: 'log', incarnation: 7, sequence: 5 },
        { store: slow, reads, marks: new Map([[2, 0]]) },
      );
      expect(await next(pieces)).to.deep.include({ sequence: 5, marks: new Map() });
      synced = 6;
      const piece = await next(pieces);
      expect(namesOf(piece)).to.deep.equal(['own']);
      expect(piece).to.deep.include({ sequence: 6, marks: new Map([[2, 31]]) });
    });

    it('no further when the node loses a partition, or its incarnation', async () => {
      const pieces = told({ kind: 'now' });
      await next(pieces);
      complete = false;
      continuity.update();
      await write('a', 1);
      complete = true;
      continuity.update();
      await write('b', 2);
      expect(await codeOf(next(pieces))).to.equal('UNAVAILABLE');
      const others = told({ kind: 'now' });
      await next(others);
      incarnation = 9;
      expect(await codeOf(next(others))).to.equal('UNAVAILABLE');
      serving = false;
      continuity.update();
      expect(await codeOf(next(told({ kind: 'now' })))).to.equal('UNAVAILABLE');
    });

    it('no further when nobody listens', async () => {
      const pieces = told({ kind: 'now' });
      await next(pieces);
      const waiting = next(pieces);
      controller.abort(new KvError('ABORTED', 'gone'));
      expect(await codeOf(waiting)).to.equal('ABORTED');
    });
  });
});
