import { expect } from 'chai';
import fc from 'fast-check';
import { KvError } from '../../../../common/errors.ts';
import { compareVersions, NO_VERSION, type Version } from '../../../../model/version.ts';
import { Horizons } from '../../../../node/replication/horizon/horizons.ts';
import { SAFETY_RULES } from '../../../../node/replication/safety-rules.ts';
import { liveRecord, tombstoneRecord } from '../../../../node/storage/record.ts';
import type { StoredRecord } from '../../../../node/storage/store.ts';

const KEY = Buffer.from('k');
const at = (wallMs: number): Version => ({ wallMs, counter: 0, writer: 7 });

/** Metadata whose writes end when they are told to. */
class MetaStore {
  readonly partitions: number;
  readonly values = new Map<string, Buffer>();
  readonly records = new Map<string, StoredRecord | KvError>();
  readonly writes: (() => void)[] = [];
  writeCount = 0;

  constructor(partitions = 4) {
    this.partitions = partitions;
  }

  readMeta(name: string): Buffer | undefined {
    return this.values.get(name);
  }

  writeMeta(name: string, value: Buffer): Promise<void> {
    this.writeCount += 1;
    return new Promise((resolve) => {
      this.writes.push(() => {
        this.values.set(name, value);
        resolve();
      });
    });
  }

  latest(key: Buffer): StoredRecord | undefined {
    const found = this.records.get(key.toString());
    if (found instanceof KvError) throw found;
    return found;
  }

  async sync(): Promise<void> {
    for (const write of this.writes.splice(0)) write();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('the horizons of a node', () => {
  let store: MetaStore;
  let readable: boolean;
  let horizons: Horizons;
  const open = (rules = SAFETY_RULES): Horizons => new Horizons({ store, isReadable: () => readable, rules });
  const raised = async (partition: number, horizonMs: number): Promise<void> => {
    const done = horizons.raise([[partition, horizonMs]]);
    await new Promise((resolve) => setImmediate(resolve));
    await store.sync();
    await done;
  };

  beforeEach(() => {
    store = new MetaStore();
    readable = true;
    horizons = open();
  });

  it('count when they are durable, and survive a restart', async () => {
    const done = horizons.raise([
      [1, 5000],
      [2, 7000],
    ]);
    await new Promise((resolve) => setImmediate(resolve));
    expect(horizons.effectiveMs(1)).to.equal(0);
    await store.sync();
    await done;
    expect([0, 1, 2].map((partition) => horizons.effectiveMs(partition))).to.deep.equal([0, 5000, 7000]);
    horizons = open();
    expect([0, 1, 2].map((partition) => horizons.effectiveMs(partition))).to.deep.equal([0, 5000, 7000]);
  });

  it('never go down', async () => {
    await raised(1, 5000);
    await horizons.raise([[1, 4000]]);
    expect(horizons.effectiveMs(1)).to.equal(5000);
    expect(store.writeCount).to.equal(1);
  });

  it('are written together when more comes during a write', async () => {
    const all = [1000, 2000, 3000].map((horizonMs) => horizons.raise([[0, horizonMs]]));
    await new Promise((resolve) => setImmediate(resolve));
    all.push(horizons.raise([[1, 9000]]), horizons.raise([[0, 4000]]));
    await store.sync();
    expect(horizons.effectiveMs(0)).to.equal(3000);
    await store.sync();
    await Promise.all(all);
    expect([horizons.effectiveMs(0), horizons.effectiveMs(1)]).to.deep.equal([4000, 9000]);
    expect(store.writeCount).to.equal(2);
  });

  it('count for nothing while the partition is not readable here', async () => {
    await raised(1, 5000);
    readable = false;
    expect(horizons.effectiveMs(1)).to.equal(0);
    expect(horizons.storedMs(1)).to.equal(5000);
    expect(horizons.admit(KEY, 1, liveRecord(KEY, KEY, at(10)), 0)).to.equal('apply');
    expect(horizons.supersederOf(KEY, 1, liveRecord(KEY, KEY, at(10)))).to.equal(undefined);
    expect(horizons.mintFloor(1)).to.equal(NO_VERSION);
  });

  it('refuse ghosts, unless that rule is switched off', async () => {
    await raised(1, 5000);
    const ghost = liveRecord(KEY, KEY, at(4000));
    expect(horizons.admit(KEY, 1, ghost, 4999)).to.equal('ghost');
    expect(horizons.admit(KEY, 1, ghost, 5000)).to.equal('apply');
    expect(horizons.admit(KEY, 0, ghost, 0), 'another partition').to.equal('apply');
    expect(open({ ...SAFETY_RULES, judgeByHorizon: false }).admit(KEY, 1, ghost, 0)).to.equal('apply');
    store.records.set('k', tombstoneRecord(KEY, at(3000)));
    expect(horizons.admit(KEY, 1, ghost, 0), 'known').to.equal('apply');
  });

  it('take what may mend a damaged record', async () => {
    await raised(1, 5000);
    store.records.set('k', new KvError('DATA_LOSS', 'damaged'));
    expect(horizons.admit(KEY, 1, liveRecord(KEY, KEY, at(4000)), 0)).to.equal('apply');
    expect(horizons.supersederOf(KEY, 1, liveRecord(KEY, KEY, at(4000)))).to.equal(undefined);
  });

  it('answer an unknown covered entry of the live log with a version to be minted above', async () => {
    await raised(1, 5000);
    const by = horizons.supersederOf(KEY, 1, liveRecord(KEY, KEY, at(4999)));
    expect(by).to.deep.equal(horizons.mintFloor(1));
    expect(compareVersions(by ?? NO_VERSION, at(4999))).to.be.greaterThan(0);
    expect(compareVersions(at(5000), by ?? NO_VERSION)).to.be.greaterThan(0);
    expect(horizons.supersederOf(KEY, 1, liveRecord(KEY, KEY, at(5000)))).to.equal(undefined);
  });

  it('refuse what a newer version of the software wrote', () => {
    store.values.set('horizons', Buffer.from([2, 0]));
    expect(() => open()).to.throw(KvError, /format 2/);
  });

  it('are read as they were written, in little space when they are alike', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.constant(1_800_000_000_000), fc.nat(2 ** 31)), { minLength: 1, maxLength: 300 }),
        async (values) => {
          store = new MetaStore(values.length);
          horizons = open();
          const done = horizons.raise(values.entries());
          await new Promise((resolve) => setImmediate(resolve));
          await store.sync();
          await done;
          const again = open();
          expect(values.map((_value, partition) => again.storedMs(partition))).to.deep.equal(values);
        },
      ),
      { numRuns: 30 },
    );
    store = new MetaStore(4096);
    horizons = open();
    const done = horizons.raise(
      Array.from({ length: 4096 }, (_, partition) => [partition, 1_800_000_000_000]),
    );
    await new Promise((resolve) => setImmediate(resolve));
    await store.sync();
    await done;
    expect(store.values.get('horizons')?.length).to.equal(9);
  });
});
