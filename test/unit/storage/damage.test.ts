import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import { StoreCorrupt } from '../../../node/storage/store-errors.ts';
import type { Mutation } from '../../../node/storage/store.ts';
import { expectTrueDigests, MemoryMachine, SMALL_LIMITS } from '../../support/memory-store.ts';

const NAMES = Array.from({ length: 30 }, (_, index) => `k${String(index).padStart(2, '0')}`);
const DAMAGED = ['k03', 'k04', 'k11', 'k29'];
const VERSION_AT = 2;
const VALUE_AT = 18;

function put(key: string, wallMs: number): Mutation {
  const bytes = Buffer.from(key);
  return {
    key: bytes,
    record: liveRecord(bytes, Buffer.alloc(40), { wallMs, counter: 0, writer: 1 }),
    own: false,
  };
}

describe('damaged records', () => {
  let machine: MemoryMachine;
  let store: LogStore;

  const synced = (...mutations: Mutation[]): Promise<void> =>
    machine.time.run(store.apply(mutations).durable);
  const damage = (name: string, at = VALUE_AT): void => {
    const bytes = machine.stateVolume.content.partitions.get(0)!.get(name)!;
    bytes[at] = bytes[at]! ^ 2;
  };
  const codeOf = (read: () => unknown): string | undefined => {
    try {
      read();
      return undefined;
    } catch (error) {
      return error instanceof KvError ? error.code : String(error);
    }
  };

  beforeEach(async () => {
    machine = new MemoryMachine();
    store = await machine.open(SMALL_LIMITS, 1);
    await synced(...NAMES.map((name) => put(name, 5)));
    await machine.time.run(store.checkpoint());
    for (const name of DAMAGED) damage(name);
  });

  it('fail a scan, or are left out of it and named', async () => {
    for (const limit of [1, 2, 5, 100]) {
      const found: string[] = [];
      const damaged: string[] = [];
      const onDamaged = (key: Buffer): void => void damaged.push(key.toString());
      for (let after: Buffer | undefined; ;) {
        const page = await machine.time.run(store.scan(0, { after, limit, onDamaged }));
        found.push(...page.map(({ key }) => key.toString()));
        if (page.length < limit) break;
        after = page.at(-1)!.key;
      }
      expect(found).to.deep.equal(NAMES.filter((name) => !DAMAGED.includes(name)));
      expect([...new Set(damaged)]).to.deep.equal(DAMAGED);
    }
    const error = await store.scan(0, { limit: 100 }).catch((thrown: unknown) => thrown);
    expect(error).to.have.property('code', 'DATA_LOSS');
    expect((await machine.time.run(store.scan(0, { limit: 3 }))).length).to.equal(3);
  });

  it('are found by a scrub in steps, unless something newer is about to replace them', async () => {
    await synced(put('k04', 6));
    const damaged: string[] = [];
    let records = 0;
    let steps = 0;
    for (let after: Buffer | undefined; ;) {
      const result = await store.scrub(0, after, 7);
      records += result.records;
      steps += 1;
      damaged.push(...result.damaged.map((key) => key.toString()));
      if (result.last === undefined) break;
      after = result.last;
    }
    expect(damaged).to.deep.equal(['k03', 'k11', 'k29']);
    expect({ records, steps }).to.deep.equal({ records: 30, steps: 5 });
    expect(store.statistics().damagedRecords).to.equal(4);
  });

  it('are counted once each, by whatever way they were found', async () => {
    expect(store.statistics().damagedRecords).to.equal(0);
    const key = Buffer.from('k03');
    expect(codeOf(() => store.get(key))).to.equal('DATA_LOSS');
    expect(codeOf(() => store.latest(key))).to.equal('DATA_LOSS');
    expect(store.statistics().damagedRecords).to.equal(1);
    await machine.time.run(store.scan(0, { limit: 100, onDamaged: () => undefined }));
    expect(store.statistics().damagedRecords).to.equal(4);
  });

  it('make way for the same version and newer ones, and for an older one only when it is known to be the newest', async () => {
    const [same, newer, older] = ['k03', 'k04', 'k11'] as const;
    expect(store.apply([put(same, 5), put(newer, 6)]).outcomes.map(({ kind }) => kind)).to.deep.equal([
      'applied',
      'applied',
    ]);
    expect(store.apply([put(older, 4)]).outcomes[0]).to.deep.equal({
      kind: 'superseded',
      by: { wallMs: 5, counter: 0, writer: 1 },
    });
    expect(await machine.time.run(store.load([{ ...put(older, 4) }]))).to.equal(0);
    expect(codeOf(() => store.get(Buffer.from(older)))).to.equal('DATA_LOSS');
    await synced({ ...put(older, 4), heals: true });
    expect(store.get(Buffer.from(older))?.version.wallMs).to.equal(4);
    await synced({ ...put('k29', 5), heals: true });
    await machine.time.run(store.checkpoint());
    await machine.time.advance(20);
    await expectTrueDigests(machine.time, store);
  });

  it('make way for any record when their version cannot be what it seems', () => {
    damage('k03', VERSION_AT);
    expect(store.apply([put('k03', 1)]).outcomes[0]?.kind).to.equal('applied');
    damage('k04', 0);
    expect(store.apply([put('k04', 1)]).outcomes[0]?.kind).to.equal('applied');
  });

  it('beyond a number condemn the whole store', async () => {
    machine.kill();
    const condemned: string[] = [];
    store = await machine.open({ ...SMALL_LIMITS, damagedRecords: 3 }, 1, {
      condemn: (reason) => {
        condemned.push(reason);
        return Promise.resolve();
      },
    });
    await store.scrub(0, undefined, 20);
    expect(condemned).to.deep.equal([]);
    await store.scrub(0, Buffer.from('k19'), 20);
    expect(condemned).to.deep.equal(['more than 3 records fail their checksum']);
    const failure = await machine.time.run(store.failed.catch((error: unknown) => error));
    expect(failure).to.be.instanceOf(StoreCorrupt);
    expect(codeOf(() => store.get(Buffer.from('k00')))).to.equal('DATA_LOSS');
  });

  it('condemn the store also when that cannot be written down', async () => {
    machine.kill();
    const condemn = (): Promise<void> => Promise.reject(new Error('no room'));
    store = await machine.open({ ...SMALL_LIMITS, damagedRecords: 0 }, 1, { condemn });
    expect(codeOf(() => store.get(Buffer.from('k03')))).to.equal('DATA_LOSS');
    const failure = await machine.time.run(store.failed.catch((error: unknown) => error));
    expect(failure).to.be.instanceOf(StoreCorrupt);
  });
});

describe('bounds of reads', () => {
  it('refuse keys that no record can have, and leave the store alone', async () => {
    const machine = new MemoryMachine();
    const store = await machine.open();
    const long = Buffer.alloc(6000);
    for (const read of [() => store.get(long), () => store.latest(long), () => store.get(Buffer.alloc(0))]) {
      expect(read).to.throw(KvError).with.property('code', 'INVALID_ARGUMENT');
    }
    for (const read of [
      store.scan(0, { after: long, limit: 1 }),
      store.scan(0, { from: long, limit: 1 }),
      store.scan(0, { before: long, limit: 1 }),
      store.scrub(0, long, 1),
    ]) {
      const error = await read.catch((thrown: unknown) => thrown);
      expect(error).to.have.property('code', 'INVALID_ARGUMENT');
    }
    await machine.time.run(store.apply([put('a', 1)]).durable);
  });

  it('end a page by bytes, with what is not in the state yet as well', async () => {
    const machine = new MemoryMachine();
    const store = await machine.open(
      { ...SMALL_LIMITS, checkpointRecords: 30, transactionRecords: 30, overlayBytes: 1e6 },
      1,
    );
    await machine.time.run(store.apply(NAMES.map((name) => put(name, 5))).durable);
    await machine.time.run(store.checkpoint());
    await machine.time.run(store.apply(['k03a', 'k03b', 'k07', 'k28a'].map((name) => put(name, 6))).durable);
    machine.stateVolume.stalled = true;
    const gone = ['k00', 'k01', 'k02', 'k08', 'k09', 'k27', 'k28'];
    void store.removeWhere(0, (key) => gone.includes(key.toString())).catch(() => undefined);
    const size = 3 + put('k00', 1).record.bytes.length;
    for (const maxBytes of [1, size, size + 1, 5 * size, 1e6]) {
      const found: string[] = [];
      for (let after: Buffer | undefined; ;) {
        const page = await machine.time.run(store.scan(0, { after, limit: 10, maxBytes }));
        found.push(...page.map(({ key }) => key.toString()));
        const bytes = page.reduce((sum, { key, record }) => sum + key.length + record.bytes.length, 0);
        expect(bytes).to.be.lessThan(maxBytes + size + 2);
        if (page.length < 10 && bytes < maxBytes) break;
        after = page.at(-1)!.key;
      }
      const left = NAMES.filter((name) => !gone.includes(name));
      expect(found).to.deep.equal([...left, 'k03a', 'k03b', 'k28a'].sort());
    }
  });
});
