import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import type { Version } from '../../../model/version.ts';
import type { ScanOperation, ScannedRecord } from '../../../node/replication/engine.ts';
import { Scans } from '../../../node/replication/scan.ts';
import { liveRecord, tombstoneRecord } from '../../../node/storage/record.ts';
import { PARTITIONS, ReplicaCluster } from '../../support/replica-cluster.ts';

const version = (wallMs: number): Version => ({ wallMs, counter: 0, writer: 7 });
const nameOf = (number: number): string => `key-${String(number).padStart(4, '0')}`;

const everything: ScanOperation = {
  prefix: Buffer.alloc(0),
  from: undefined,
  before: undefined,
  startAfter: undefined,
  limit: Infinity,
  consistency: 'QUORUM',
  deadlineMs: Infinity,
};

/** Takes pages from a scan one at a time. */
class Scan {
  readonly keys: string[] = [];
  readonly values = new Map<string, string>();
  largestPageBytes = 0;
  private readonly cluster: ReplicaCluster;
  private readonly pages: AsyncIterator<readonly ScannedRecord[]>;

  constructor(cluster: ReplicaCluster, index: number, operation: Partial<ScanOperation> = {}) {
    this.cluster = cluster;
    const pages = cluster.replica(index).engine.scan({ ...everything, ...operation });
    this.pages = pages[Symbol.asyncIterator]();
  }

  /** False at the end. */
  async next(): Promise<boolean> {
    const page: IteratorResult<readonly ScannedRecord[], unknown> = await this.cluster.time.run(
      this.pages.next(),
    );
    if (page.done === true) return false;
    for (const { key, value } of page.value) {
      this.keys.push(key.toString());
      this.values.set(key.toString(), value.toString());
    }
    this.largestPageBytes = Math.max(
      this.largestPageBytes,
      page.value.reduce((sum, { value }) => sum + value.length, 0),
    );
    return true;
  }

  async all(): Promise<readonly string[]> {
    while (await this.next());
    return this.keys;
  }

  /** The code it ends with. */
  async failure(): Promise<string | undefined> {
    const error: unknown = await this.all().catch((caught: unknown) => caught);
    return error instanceof KvError ? error.code : undefined;
  }
}

describe('a scan', () => {
  let cluster: ReplicaCluster;

  const begin = async (size: number, replicationFactor = 3): Promise<void> => {
    cluster = new ReplicaCluster(size, { replicationFactor });
    await cluster.begin();
  };
  const plant = async (index: number, key: string, value: string | undefined, wallMs: number) => {
    const bytes = Buffer.from(key);
    const record =
      value === undefined
        ? tombstoneRecord(bytes, version(wallMs))
        : liveRecord(bytes, Buffer.from(value), version(wallMs));
    await cluster.time.run(cluster.store(index).apply([{ key: bytes, record, own: false }]).durable);
  };
  /** Readable or not, a key must not be hidden behind another one of its partition. */
  const fill = async (count: number, value = 'x'): Promise<readonly string[]> => {
    const names = Array.from({ length: count }, (_, number) => nameOf(number));
    for (const name of names) await cluster.put(0, name, value);
    return names;
  };

  afterEach(() => cluster.end());

  it('gives every live record in key order, at members that hold only some of the partitions', async () => {
    await begin(5);
    const names = await fill(300);
    await cluster.delete(1, nameOf(7));
    await cluster.put(2, nameOf(8), 'short', { ttlMs: 10 });
    await cluster.time.advance(20);
    const live = names.filter((name) => name !== nameOf(7) && name !== nameOf(8));
    for (const index of cluster.nodes.keys()) {
      expect(await new Scan(cluster, index).all()).to.deep.equal(live);
      expect(await new Scan(cluster, index, { consistency: 'ONE' }).all()).to.deep.equal(live);
    }
  });

  const bounds: readonly [string, Partial<ScanOperation>, (name: string) => boolean][] = [
    ['a prefix', { prefix: Buffer.from('key-001') }, (name) => name.startsWith('key-001')],
    ['a first key', { from: Buffer.from('key-0050') }, (name) => name >= 'key-0050'],
    ['an end', { before: Buffer.from('key-0050') }, (name) => name < 'key-0050'],
    ['the last key received', { startAfter: Buffer.from('key-0050') }, (name) => name > 'key-0050'],
    [
      'a range within a prefix',
      { prefix: Buffer.from('key-00'), from: Buffer.from('key-0010'), before: Buffer.from('key-0090') },
      (name) => name >= 'key-0010' && name < 'key-0090',
    ],
    [
      'a prefix within a range',
      { prefix: Buffer.from('key-001'), from: Buffer.from('key-0'), before: Buffer.from('z') },
      (name) => name.startsWith('key-001'),
    ],
    ['a range that holds nothing', { from: Buffer.from('b'), before: Buffer.from('a') }, () => false],
  ];

  it('keeps to its bounds, wherever the partitions are', async () => {
    await begin(4);
    const names = await fill(120);
    for (const [what, operation, within] of bounds) {
      expect(await new Scan(cluster, 0, operation).all(), what).to.deep.equal(names.filter(within));
    }
    expect(await new Scan(cluster, 0, { limit: 10 }).all()).to.deep.equal(names.slice(0, 10));
    expect(await new Scan(cluster, 0, { limit: 1000 }).all()).to.deep.equal(names);
  });

  it('shows the newest version of a quorum, and no key that was deleted', async () => {
    await begin(3);
    await plant(0, 'a', 'old', 10);
    await plant(1, 'a', 'new', 20);
    await plant(2, 'a', 'new', 20);
    await plant(0, 'b', 'deleted since', 10);
    await plant(1, 'b', undefined, 20);
    await plant(2, 'b', undefined, 20);
    const scan = new Scan(cluster, 0);
    await scan.all();
    expect(scan.values).to.deep.equal(new Map([['a', 'new']]));
  });

  it('gives a key that is there throughout exactly once, whatever is written meanwhile', async () => {
    await begin(4);
    const names = await fill(400);
    const scan = new Scan(cluster, 1);
    for (let round = 0; await scan.next(); round += 1) {
      for (let number = 0; number < 400; number += 7) {
        await cluster.put(number % 4, nameOf(number), `round ${round}`);
        await cluster.put(number % 4, `${nameOf(number)}-new`, 'x');
      }
      await cluster.delete(2, `${nameOf((round * 7) % 400)}-new`);
    }
    const throughout = scan.keys.filter((key) => !key.endsWith('-new'));
    expect(throughout).to.deep.equal(names);
    expect(scan.keys).to.deep.equal([...new Set(scan.keys)].sort());
  });

  it('goes on at another node after the last key that was received', async () => {
    await begin(4);
    const names = await fill(200);
    const first = new Scan(cluster, 3);
    await first.next();
    cluster.kill(3);
    const last = first.keys.at(-1) ?? '';
    expect(first.keys.length).to.be.lessThan(200);
    await cluster.time.advance(3000);
    const rest = await new Scan(cluster, 0, { startAfter: Buffer.from(last) }).all();
    expect([...first.keys, ...rest]).to.deep.equal(names);
  });

  it('ends as UNAVAILABLE where a partition lacks replicas: it has no gaps', async () => {
    await begin(4);
    const names = await fill(100);
    const scan = new Scan(cluster, 0);
    await scan.next();
    cluster.kill(2);
    cluster.kill(3);
    await cluster.time.advance(3000);
    expect(await scan.failure()).to.equal('UNAVAILABLE');
    expect(scan.keys).to.deep.equal(names.slice(0, scan.keys.length));
  });

  it('ends with its deadline', async () => {
    await begin(3);
    await fill(200);
    const scan = new Scan(cluster, 0, { deadlineMs: cluster.time.monotonicMs + 100 });
    await scan.next();
    await cluster.time.advance(200);
    expect(await scan.failure()).to.equal('DEADLINE_EXCEEDED');
  });

  it('ends when the node drains, so that it goes on elsewhere', async () => {
    await begin(3);
    await fill(200);
    const scan = new Scan(cluster, 0);
    await scan.next();
    cluster.replica(0).drain();
    expect(await scan.failure()).to.equal('UNAVAILABLE');
  });

  it('keeps its pages small, however large the values are', async () => {
    await begin(3);
    const value = 'v'.repeat(300_000);
    const names = await fill(12, value);
    const scan = new Scan(cluster, 0);
    expect(await scan.all()).to.deep.equal(names);
    expect(scan.largestPageBytes).to.be.lessThan(700_000);
  });

  it('reads around a record that is damaged here', async () => {
    await begin(3);
    const names = await fill(20);
    await cluster.time.run(cluster.store(0).checkpoint());
    const partition = partitionOf(Buffer.from(nameOf(5)), PARTITIONS);
    const stored = cluster.node(0).volumes.state.content.partitions.get(partition)?.get(nameOf(5));
    if (stored === undefined) throw new Error('the record is not in the state');
    stored[stored.length - 1] = (stored.at(-1) ?? 0) ^ 1;
    for (const index of [0, 1]) {
      expect(await new Scan(cluster, index, { consistency: 'ONE' }).all()).to.deep.equal(names);
      expect(await new Scan(cluster, index).all()).to.deep.equal(names);
    }
    expect(
      cluster
        .replica(1)
        .status()
        .peers.every(({ connected }) => connected),
    ).to.equal(true);
  });
});

describe('scans of one node', () => {
  const endless = {
    page: () => {
      asked += 1;
      const record = liveRecord(Buffer.from('a'), Buffer.alloc(10), version(1));
      const keys = [{ key: Buffer.from('a'), ...record, record }];
      return Promise.resolve({ keys, through: Buffer.from('a') });
    },
  };
  let asked = 0;
  const clock = { wallMs: () => 0, monotonicMs: () => 0 };
  const scans = (): Scans => new Scans({ pages: endless, clock, admit: (_bytes, read) => read() });

  it('read a page only when it is asked for', async () => {
    asked = 0;
    const scan = scans().scan(everything);
    await scan.next();
    expect(asked).to.equal(1);
    await scan.next();
    expect(asked).to.equal(2);
  });

  it('are bounded in number', async () => {
    const all = scans();
    const running = Array.from({ length: 100 }, () => all.scan(everything));
    for (const scan of running) await scan.next();
    const error: unknown = await all
      .scan(everything)
      .next()
      .catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(KvError).with.property('code', 'RESOURCE_EXHAUSTED');
    await running[0]?.return();
    expect((await all.scan(everything).next()).done).to.equal(false);
  });
});
