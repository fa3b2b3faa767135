import { expect } from 'chai';
import fc from 'fast-check';
import { KvError } from '../../../common/errors.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { liveRecord, tombstoneRecord } from '../../../node/storage/record.ts';
import { StoreUnsupported } from '../../../node/storage/store-errors.ts';
import type {
  ApplyOutcome,
  Mutation,
  OwnEntry,
  RecordEntry,
  StoredRecord,
} from '../../../node/storage/store.ts';
import { MemoryMachine, SMALL_LIMITS } from '../../support/memory-store.ts';

const KEY = Buffer.from('key');

function put(
  key: Buffer | string,
  wallMs: number,
  value: string | Buffer = `v${wallMs}`,
  own = true,
): Mutation {
  const keyBytes = Buffer.from(key);
  return {
    key: keyBytes,
    record: liveRecord(keyBytes, Buffer.from(value), { wallMs, counter: 0, writer: 1 }),
    own,
  };
}

const valueOf = (record: StoredRecord | undefined): string | undefined => record?.value.toString();
const sequenceOf = (outcome: ApplyOutcome | undefined): number =>
  outcome?.kind === 'applied' ? outcome.sequence : -1;

async function refusal(promise: Promise<unknown>): Promise<KvError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof KvError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

describe('a log store', () => {
  let machine: MemoryMachine;
  let store: LogStore;

  beforeEach(async () => {
    machine = new MemoryMachine();
    store = await machine.open();
  });

  const synced = (...mutations: Mutation[]): Promise<void> =>
    machine.time.run(store.apply(mutations).durable);

  it('shows a record to readers when it is synced, and to the next version at once', async () => {
    const { outcomes, durable } = store.apply([put(KEY, 1)]);
    expect(outcomes).to.deep.equal([{ kind: 'applied', sequence: 1, previous: undefined }]);
    expect(store.get(KEY)).to.equal(undefined);
    expect(valueOf(store.latest(KEY))).to.equal('v1');
    await machine.time.run(durable);
    expect(valueOf(store.get(KEY))).to.equal('v1');
  });

  it('writes what is made for what the key holds, synced or not, or nothing', async () => {
    const at = (wallMs: number, held: StoredRecord | undefined): StoredRecord =>
      liveRecord(KEY, Buffer.from(`${valueOf(held) ?? 'none'}+`), { wallMs, counter: 0, writer: 1 });
    const first = store.write(KEY, (held) => at(1, held));
    const second = store.write(KEY, (held) => at(2, held));
    expect(store.write(KEY, () => undefined)).to.equal(undefined);
    expect([first?.sequence, second?.sequence, store.head, store.syncedHead]).to.deep.equal([1, 2, 2, 0]);
    expect([valueOf(first?.previous), valueOf(second?.previous)]).to.deep.equal([undefined, 'none+']);
    await machine.time.run(second!.durable);
    expect(store.syncedHead).to.equal(2);
    expect(valueOf(store.get(KEY))).to.equal('none++');
    expect(store.write(KEY, (held) => at(3, held))?.previous).to.equal(store.get(KEY));
    expect(() => store.write(KEY, (held) => at(3, held))).to.throw(KvError, 'is not above it');
    expect(() => store.write(Buffer.alloc(0), (held) => at(9, held))).to.throw(KvError);
    expect(store.head).to.equal(3);
  });

  it('takes newer versions only, on every path, and says what is newer', async () => {
    await synced(put(KEY, 5));
    for (const own of [true, false]) {
      const outcomes = store.apply([put(KEY, 4, 'old', own), put(KEY, 5, 'v5', own)]).outcomes;
      expect(outcomes).to.deep.equal([
        { kind: 'superseded', by: { wallMs: 5, counter: 0, writer: 1 } },
        { kind: 'same' },
      ]);
    }
    const [outcome] = store.apply([put(KEY, 6)]).outcomes;
    expect(outcome?.kind === 'applied' && valueOf(outcome.previous)).to.equal('v5');
    await synced({ key: KEY, record: tombstoneRecord(KEY, { wallMs: 7, counter: 0, writer: 1 }), own: true });
    expect(store.get(KEY)?.tombstone).to.equal(true);
  });

  it('acknowledges a no-op only when the record that made it one is synced', async () => {
    const first = store.apply([put(KEY, 5)]);
    const second = store.apply([put(KEY, 4)]);
    expect(second.durable).to.equal(first.durable);
    await machine.time.run(second.durable);
    expect(store.apply([put(KEY, 4)]).durable).not.to.equal(first.durable);
  });

  it('acknowledges a cursor only when that cursor or a later one is synced', async () => {
    const cursor = (sequence: number): { origin: string; incarnation: number; sequence: number } => ({
      origin: 'peer',
      incarnation: 3,
      sequence,
    });
    const first = store.apply([put('a', 1, 'x', false)], cursor(7));
    expect(store.apply([], cursor(6)).durable).to.equal(first.durable);
    expect(store.cursors()).to.deep.equal([]);
    await machine.time.run(first.durable);
    expect(store.cursors()).to.deep.equal([cursor(7)]);
    await machine.time.run(store.apply([], cursor(5)).durable);
    expect(store.cursors()).to.deep.equal([cursor(7)]);
    await machine.time.run(store.apply([], { ...cursor(2), incarnation: 4 }).durable);
    expect(store.cursors()).to.deep.include.members([cursor(7), { ...cursor(2), incarnation: 4 }]);
  });

  it('lets the larger checksum win when a version comes with two contents, and counts it', async () => {
    const [smaller, larger] = [put(KEY, 1, 'one'), put(KEY, 1, 'two')].sort(
      (a, b) => a.record.checksum - b.record.checksum,
    );
    await synced(smaller!);
    expect(store.apply([larger!]).outcomes[0]?.kind).to.equal('applied');
    expect(store.apply([smaller!]).outcomes[0]?.kind).to.equal('same');
    expect(store.statistics().versionConflicts).to.equal(2);
  });

  it('syncs what waits as one group, and what comes meanwhile as the next', async () => {
    await machine.time.run(store.checkpoint());
    const syncs = (): number => machine.disk.events.filter(({ kind }) => kind === 'sync').length;
    const before = syncs();
    const first = store.apply([put('a', 1), put('b', 2)]);
    expect(store.apply([put('c', 3)]).durable).to.equal(first.durable);
    await machine.time.run(first.durable);
    expect(syncs() - before).to.equal(1);
  });

  it('applies nothing of a call with a bad key', () => {
    for (const bad of [Buffer.alloc(0), Buffer.alloc(1025)]) {
      expect(() => store.apply([put(KEY, 1), put(bad, 2)]))
        .to.throw(KvError)
        .with.property('code', 'INVALID_ARGUMENT');
    }
    expect(store.latest(KEY)).to.equal(undefined);
  });

  it('refuses writes, applying nothing, while too much waits for the disk', async () => {
    store = await new MemoryMachine().open({ ...SMALL_LIMITS, pendingBytes: 2000 });
    for (let index = 0; store.statistics().overlayBytes <= 2000; index += 1)
      store.apply([put(`k${index}`, 1, Buffer.alloc(300))]);
    expect(() => store.apply([put('more', 1)]))
      .to.throw(KvError, /retry later/)
      .with.property('code', 'RESOURCE_EXHAUSTED');
    expect(store.latest(Buffer.from('more'))).to.equal(undefined);
  });

  it('keeps deciding and stops syncing while the state is behind, and goes on when it has caught up', async () => {
    machine.stateVolume.stalled = true;
    const keys = Array.from({ length: 40 }, (_, index) => `k${index}`);
    const durable = keys.map((key) => store.apply([put(key, 1, Buffer.alloc(300))]).durable);
    await machine.time.advance(1000);
    expect(store.get(Buffer.from('k39'))).to.equal(undefined);
    expect(store.latest(Buffer.from('k39'))).not.to.equal(undefined);
    machine.stateVolume.resume();
    await machine.time.run(Promise.all(durable));
    expect(store.get(Buffer.from('k39'))).not.to.equal(undefined);
  });

  it('scans what is synced, whether the state has it or not', async () => {
    const keys = fc.constantFrom(...Array.from({ length: 15 }, (_, index) => `key-${index}`));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ key: keys, pause: fc.nat(8) }), { minLength: 1, maxLength: 60, size: 'max' }),
        fc.nat(1),
        fc.option(keys, { nil: undefined }),
        fc.integer({ min: 1, max: 8 }),
        async (writes, partition, after, limit) => {
          const own = new MemoryMachine();
          const opened = await own.open(SMALL_LIMITS, 2);
          const model = new Map<string, string>();
          for (const [index, { key, pause }] of writes.entries()) {
            await own.time.run(opened.apply([put(key, index + 1)]).durable);
            model.set(key, `v${index + 1}`);
            await own.time.advance(pause);
          }
          const range = { limit, ...(after === undefined ? {} : { after: Buffer.from(after) }) };
          const found = await own.time.run(opened.scan(partition, range));
          const expected = [...model]
            .filter(([key]) => partitionOf(Buffer.from(key), opened.partitions) === partition)
            .filter(([key]) => after === undefined || key > after)
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .slice(0, limit);
          expect(found.map(({ key, record }) => [key.toString(), valueOf(record)])).to.deep.equal(expected);
        },
      ),
      { numRuns: 25 },
    );
  });

  it('moves records into the state in time, and at once when asked', async () => {
    await synced(put(KEY, 1));
    expect(store.statistics().records).to.equal(0);
    await machine.time.advance(SMALL_LIMITS.checkpointMs! + 1);
    expect(store.statistics()).to.deep.include({ records: 1, overlayBytes: 0 });
    await synced(put('other', 1));
    await machine.time.run(store.checkpoint());
    expect(store.statistics()).to.deep.include({ records: 2, overlayBytes: 0 });
    expect(valueOf(store.get(KEY))).to.equal('v1');
  });

  it('keeps what is synced while a checkpoint is under way for the next one', async () => {
    machine.stateVolume.stalled = true;
    await synced(put('a', 1));
    await machine.time.advance(SMALL_LIMITS.checkpointMs! + 1);
    await synced(put('b', 1));
    machine.stateVolume.resume();
    await machine.time.run(store.checkpoint());
    expect(store.statistics()).to.deep.include({ records: 2, overlayBytes: 0 });
    expect(valueOf(store.get(Buffer.from('b')))).to.equal('v1');
  });

  it('gives back the named values that were written, when they are synced', async () => {
    const value = Buffer.from('one');
    const written = store.writeMeta('map', value);
    value.fill('x');
    expect(store.readMeta('map')).to.equal(undefined);
    await machine.time.run(written);
    expect(store.readMeta('map')?.toString()).to.equal('one');
    await machine.time.run(store.close());
    store = await machine.open();
    expect(store.readMeta('map')?.toString()).to.equal('one');
  });

  it('reserves the clock before it is used, and ahead of use while it is used', async () => {
    expect(store.clockCeilingMs).to.equal(0);
    const raised = store.raiseClockCeiling(1000);
    expect(store.clockCeilingMs).to.equal(0);
    await machine.time.run(raised);
    expect(store.clockCeilingMs).to.equal(1000);
    await synced(put(KEY, 990));
    expect(store.clockCeilingMs).to.equal(990 + SMALL_LIMITS.clockStepMs!);
    // A version from a far clock and one above the ceiling do not move it.
    await synced(put('a', 5000), put('b', 9000, 'x', false));
    expect(store.clockCeilingMs).to.equal(990 + SMALL_LIMITS.clockStepMs!);
    machine.kill();
    store = await machine.open();
    expect(store.clockCeilingMs).to.equal(990 + SMALL_LIMITS.clockStepMs!);
  });

  it('keeps own entries from others until the sequence they have is reserved', async () => {
    const step = SMALL_LIMITS.sequenceStep!;
    let calls = 0;
    store.onAppend(() => (calls += 1));
    const { durable } = store.apply(Array.from({ length: step + 5 }, (_, index) => put(`k${index}`, 1)));
    expect(store.head).to.equal(step);
    expect((await store.readLog(0, 1e6)).through).to.equal(step);
    expect(calls).to.equal(1);
    await machine.time.run(durable);
    expect(store.head).to.equal(step + 5);
    expect((await machine.time.run(store.readLog(0, 1))).entries[0]?.sequence).to.equal(1);
    expect(calls).to.be.greaterThan(1);
    expect(store.sequenceCeiling).to.be.at.least(step + 5);
  });

  it('is opened only with the number of partitions it was made with', async () => {
    await machine.time.run(store.close());
    let error: unknown;
    await machine.open(SMALL_LIMITS, 16).catch((thrown: unknown) => (error = thrown));
    expect(error)
      .to.be.instanceOf(StoreUnsupported)
      .with.property('message')
      .that.matches(/created with 8 partitions/);
  });

  it('answers UNAVAILABLE after it was closed', async () => {
    await machine.time.run(store.close());
    await store.close();
    for (const call of [
      () => store.get(KEY),
      () => store.latest(KEY),
      () => store.apply([put(KEY, 1)]),
      () => store.readMeta('m'),
      () => store.digest(0),
    ]) {
      expect(call).to.throw(KvError).with.property('code', 'UNAVAILABLE');
    }
    for (const call of [
      () => store.scan(0, { limit: 1 }),
      () => store.readLog(0, 1),
      () => store.readEntries(0, 1),
      () => store.load([]),
      () => store.removeWhere(0, () => true),
      () => store.writeMeta('m', KEY),
      () => store.raiseClockCeiling(9e12),
      () => store.checkpoint(),
    ]) {
      expect((await refusal(call())).code).to.equal('UNAVAILABLE');
    }
  });

  it('finishes what was applied before it closes', async () => {
    const { durable } = store.apply([put(KEY, 1)]);
    await machine.time.run(Promise.all([store.close(), durable]));
    store = await machine.open();
    expect(valueOf(store.get(KEY))).to.equal('v1');
  });

  describe('its log', () => {
    async function readAll(after: number, maxBytes: number): Promise<OwnEntry[]> {
      const entries: OwnEntry[] = [];
      let place = after;
      while (place < store.head) {
        const slice = await machine.time.run(store.readLog(place, maxBytes));
        expect(slice.after).to.equal(place);
        expect(slice.through).to.be.greaterThan(place).and.to.be.at.most(store.head);
        entries.push(...slice.entries);
        place = slice.through;
      }
      return entries;
    }

    /** Own records, with those of others in between. */
    async function fill(count: number): Promise<Map<number, string>> {
      const own = new Map<number, string>();
      for (let index = 0; index < count; index += 1) {
        const wallMs = store.head + index + 1;
        const mine = put(`own-${index % 50}`, 10_000 + wallMs, Buffer.alloc(100, `m${index}`));
        const { outcomes, durable } = store.apply([
          mine,
          put(`foreign-${index}`, wallMs, Buffer.alloc(80), false),
        ]);
        own.set(sequenceOf(outcomes[0]), mine.record.bytes.toString('hex'));
        await machine.time.run(durable);
      }
      return own;
    }

    it('gives own entries back, from memory and from its files, whatever the size of a slice', async () => {
      const own = await fill(90);
      for (const maxBytes of [1, 900, 1e6]) {
        const entries = await readAll(0, maxBytes);
        expect(entries.map(({ sequence }) => sequence)).to.deep.equal([...own.keys()]);
        for (const { sequence, record } of entries)
          expect(record.bytes.toString('hex')).to.equal(own.get(sequence));
      }
      await machine.time.run(store.close());
      store = await machine.open();
      expect((await readAll(0, 900)).length).to.equal(own.size);
      expect(await readAll(store.head, 900)).to.deep.equal([]);
    });

    it('gives all synced entries back, those of peers too, whatever the size of a slice', async () => {
      await fill(60);
      const requestId = { clientId: Buffer.from('client'), number: 7, clientStartMs: 8, attempt: 1 };
      await synced({ ...put(KEY, 1), requestId });
      await machine.time.run(store.writeMeta('m', KEY));
      for (const maxBytes of [1, 900, 1e6]) {
        const entries: RecordEntry[] = [];
        for (let after = 0; after < store.syncedThrough;) {
          const slice = await machine.time.run(store.readEntries(after, maxBytes));
          expect(slice.after).to.equal(after);
          expect(slice.through).to.be.greaterThan(after).and.to.be.at.most(store.syncedThrough);
          entries.push(...slice.entries);
          after = slice.through;
        }
        expect(entries.map(({ sequence }) => sequence)).to.deep.equal(
          Array.from({ length: 121 }, (_, index) => index + 1),
        );
        expect(entries.map(({ own }) => own)).to.deep.equal(
          Array.from({ length: 121 }, (_, index) => index % 2 === 0),
        );
        expect(entries[1]?.key.toString()).to.equal('foreign-0');
        expect(entries.at(-1)?.requestId).to.deep.equal(requestId);
      }
    });

    it('gives no entry back that is not synced, and calls when one is', async () => {
      await synced(put(KEY, 1));
      let calls = 0;
      const unsubscribe = store.onSync(() => (calls += 1));
      const { durable } = store.apply([put(KEY, 2)]);
      const before = await machine.time.run(store.readEntries(0, 1e6));
      expect(before.entries.length).to.equal(1);
      expect(before.through).to.equal(1);
      expect(calls).to.equal(0);
      await machine.time.run(durable);
      expect(calls).to.equal(1);
      expect((await machine.time.run(store.readEntries(before.through, 1e6))).entries.length).to.equal(1);
      await machine.time.run(store.raiseClockCeiling(5));
      expect(calls, 'nothing to read').to.equal(1);
      unsubscribe();
      await synced(put(KEY, 3));
      expect(calls).to.equal(1);
    });

    it('knows from where on to read what was written since a time', async () => {
      const written: { sequence: number; atMs: number }[] = [];
      const clock = machine.time.clock();
      for (let index = 0; index < 80; index += 1) {
        const { outcomes, durable } = store.apply([put(`k${index}`, 1, Buffer.alloc(200))]);
        written.push({ sequence: sequenceOf(outcomes[0]), atMs: clock.wallMs() });
        await machine.time.run(durable);
        await machine.time.advance(1000);
      }
      expect(store.logStart).to.equal(0);
      for (const { atMs } of written) {
        const since = store.sequenceSince(atMs);
        for (const { sequence } of written.filter((other) => other.atMs >= atMs))
          expect(sequence).to.be.greaterThan(since);
      }
      // Not from the very beginning, but from the segment.
      expect(store.sequenceSince(clock.wallMs())).to.be.greaterThan(50);
      expect(store.sequenceSince(0)).to.equal(store.logStart);
    });

    it('keeps the request id of an entry', async () => {
      const requestId = { clientId: Buffer.from('client'), number: 7, clientStartMs: 8, attempt: 1 };
      await synced({ ...put(KEY, 1), requestId });
      expect((await store.readLog(0, 100)).entries[0]?.requestId).to.deep.equal(requestId);
    });

    it('reads entries that are larger than what is read at once', async () => {
      store = await new MemoryMachine({ time: machine.time }).open({ segmentBytes: 8e6, tailBytes: 1 });
      const own = [
        put('a', 1, Buffer.alloc(700_000, 1)),
        put('b', 2, Buffer.alloc(10, 2)),
        put('c', 3, Buffer.alloc(300_000, 3)),
      ];
      for (const mutation of own) await synced(mutation);
      await synced(put('d', 4));
      const entries = await readAll(0, 100);
      expect(entries.map(({ key }) => key.toString())).to.deep.equal(['a', 'b', 'c', 'd']);
      expect(entries[0]?.record.value.length).to.equal(700_000);
    });

    it('drops what every peer has acknowledged and the state holds, and tells a reader that is too late', async () => {
      await fill(60);
      await machine.time.run(store.checkpoint());
      expect(store.logStart).to.equal(0);
      const acknowledged = Math.floor(store.head / 2);
      store.trimLog(acknowledged);
      await machine.time.advance(100);
      expect(store.logStart).to.be.greaterThan(0).and.to.be.at.most(acknowledged);
      expect((await refusal(store.readLog(0, 100))).code).to.equal('OUT_OF_RANGE');
      expect((await refusal(store.readEntries(0, 100))).code).to.equal('OUT_OF_RANGE');
      expect((await readAll(store.logStart, 900)).at(-1)?.sequence).to.equal(store.head);
      const start = store.logStart;
      await machine.time.run(store.close());
      store = await machine.open();
      expect(store.logStart).to.equal(start);
    });

    it('stays below its caps in bytes and in age, acknowledged or not', async () => {
      await fill(250);
      await machine.time.run(store.checkpoint());
      await machine.time.advance(100);
      expect(store.logStart).to.be.greaterThan(0);
      expect(store.statistics().logBytes).to.be.at.most(SMALL_LIMITS.logBytes! + SMALL_LIMITS.segmentBytes!);
      const { head } = store;
      await machine.time.advance(25 * 3_600_000);
      await fill(80);
      await machine.time.advance(100);
      await fill(1);
      await machine.time.advance(100);
      expect(store.logStart).to.be.greaterThan(head - 10);
    });

    it('survives being trimmed under a reader', async () => {
      await fill(60);
      await machine.time.run(store.checkpoint());
      const reading = refusal(store.readLog(0, 1e6)).catch(() => undefined);
      store.trimLog(store.head);
      const error = await machine.time.run(reading);
      if (error !== undefined) expect(error.code).to.equal('OUT_OF_RANGE');
    });
  });
});
