import {
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import type { AdminClient } from '../../../client/admin-client.ts';
import { listBackups } from '../../../client/backup/backup-catalog.ts';
import { clusterDirectory, isBackupId, newBackupId } from '../../../client/backup/backup-path.ts';
import { BackupWriter } from '../../../client/backup/backup-writer.ts';
import { uncoveredPartitions } from '../../../client/backup/coverage.ts';
import { type PlacedRecord, comparePlaces, mergeReplicas } from '../../../client/backup/merge.ts';
import { readRecordHead } from '../../../client/backup/record-head.ts';
import { RecordSource } from '../../../client/backup/record-source.ts';
import { verifyBackup } from '../../../client/backup/verify-backup.ts';
import { KvError } from '../../../common/errors.ts';
import { systemRandom } from '../../../common/random.ts';
import { sealMap } from '../../../model/cluster-map.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import { compareVersions } from '../../../model/version.ts';
import { liveRecord, tombstoneRecord } from '../../../node/storage/record.ts';
import type { RecordPosition, RecordsChunk } from '../../../proto/gen/peer.ts';

const PARTITIONS = 16;
const CLUSTER = { namespace: 'default', name: 'kv', clusterId: 'c'.repeat(32) };
const version = (wallMs: number, counter = 0, writer = 1) => ({ wallMs, counter, writer });

function placed(key: string, record: { readonly bytes: Buffer }): PlacedRecord {
  const bytes = Buffer.from(key);
  return { partition: partitionOf(bytes, PARTITIONS), key: bytes, record: record.bytes };
}

async function* streamOf(records: readonly PlacedRecord[]): AsyncGenerator<PlacedRecord, void, undefined> {
  for (const record of [...records].sort(comparePlaces)) {
    await Promise.resolve();
    yield record;
  }
}

async function collect<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of iterable) items.push(item);
  return items;
}

describe('the merge of replicas for a backup', () => {
  it('reads version and checksum as the store writes them', () => {
    const key = Buffer.from('key');
    for (const record of [
      liveRecord(key, Buffer.from('value'), version(1_700_000_000_000, 3, 9)),
      liveRecord(key, Buffer.alloc(0), version(5), 99),
      tombstoneRecord(key, version(1, 65_535, 2 ** 48 - 1)),
    ]) {
      const { checksum, version: read } = readRecordHead(key, record.bytes);
      expect(read).to.deep.equal(record.version);
      expect(checksum).to.equal(record.checksum);
      expect(() => readRecordHead(Buffer.from('other'), record.bytes)).to.throw(KvError, 'checksum');
    }
  });

  it('keeps each key once, with the newest record that any replica has, in order', async () => {
    const write = fc.record({
      key: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'),
      wallMs: fc.integer({ min: 1, max: 4 }),
      value: fc.option(fc.constantFrom('x', 'y')),
      replicas: fc.uniqueArray(fc.integer({ min: 0, max: 2 }), { minLength: 1 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(write, { maxLength: 30 }), async (writes) => {
        const replicas = [0, 1, 2].map(() => new Map<string, PlacedRecord>());
        const newest = new Map<string, PlacedRecord>();
        for (const { key, wallMs, value, replicas: holders } of writes) {
          const bytes = Buffer.from(key);
          const record =
            value === null
              ? tombstoneRecord(bytes, version(wallMs))
              : liveRecord(bytes, Buffer.from(value), version(wallMs));
          const candidate = placed(key, record);
          for (const holder of holders) keepNewer(replicas[holder]!, key, candidate);
          keepNewer(newest, key, candidate);
        }
        const merged = await collect(
          mergeReplicas(replicas.map((replica) => streamOf([...replica.values()]))),
        );
        expect(merged).to.deep.equal([...newest.values()].sort(comparePlaces));
      }),
    );
  });

  function keepNewer(records: Map<string, PlacedRecord>, key: string, candidate: PlacedRecord): void {
    const held = records.get(key);
    if (held === undefined) {
      records.set(key, candidate);
      return;
    }
    const [a, b] = [readRecordHead(held.key, held.record), readRecordHead(candidate.key, candidate.record)];
    if ((compareVersions(b.version, a.version) || b.checksum - a.checksum) > 0) records.set(key, candidate);
  }

  it('fails when a replica fails, and closes the others', async () => {
    let closed = false;
    async function* endless(): AsyncGenerator<PlacedRecord, void, undefined> {
      try {
        for (;;) yield* streamOf([placed('a', tombstoneRecord(Buffer.from('a'), version(1)))]);
      } finally {
        closed = true;
      }
    }
    async function* failing(): AsyncGenerator<PlacedRecord, void, undefined> {
      yield await Promise.resolve(placed('a', tombstoneRecord(Buffer.from('a'), version(1))));
      throw new Error('cut');
    }
    const failure = await collect(mergeReplicas([endless(), failing()])).catch((error: unknown) => error);
    expect(failure).to.be.an('error').with.property('message', 'cut');
    expect(closed).to.equal(true);
  });
});

describe('which replicas a backup needs', () => {
  const members = ['kv-0', 'kv-1', 'kv-2', 'kv-3', 'kv-4'].map((nodeId) => ({
    nodeId,
    host: nodeId,
    clientPort: 1,
    peerPort: 2,
    httpPort: 3,
    zone: '',
    state: 'active' as const,
    pod: nodeId,
  }));
  const withReplicas = (count: number) =>
    sealMap({
      ...CLUSTER,
      epoch: 1,
      partitions: 1,
      replicationFactor: count,
      initialised: true,
      members,
      retired: [],
      assignment: [Array.from({ length: count }, (_, index) => index)],
    });
  for (const [replicas, needed] of [
    [1, 1],
    [2, 1],
    [3, 2],
    [4, 2],
    [5, 3],
  ] as const) {
    it(`reads ${needed} of ${replicas}`, () => {
      const names = members.slice(0, replicas).map(({ nodeId }) => nodeId);
      const map = withReplicas(replicas);
      expect(uncoveredPartitions(map, new Set(names.slice(0, needed)))).to.deep.equal([]);
      const [missing] = uncoveredPartitions(map, new Set(names.slice(0, needed - 1)));
      expect(missing).to.deep.include({ needed, readable: needed - 1, missing: names.slice(needed - 1) });
    });
  }
});

describe('a replica that is read for a backup', () => {
  const keys = Array.from({ length: 6 }, (_, index) => `key-${index}`);
  const records = keys
    .map((key) => placed(key, tombstoneRecord(Buffer.from(key), version(1))))
    .sort(comparePlaces);

  function chunkOf(from: number, to: number, incarnation = 7): RecordsChunk {
    const last = records[to - 1]!;
    return {
      head: 40 + from,
      incarnation,
      records: records.slice(from, to).map(({ key, record }) => ({ key, record, horizonMs: 0 })),
      horizonMs: 0,
      last: { partition: last.partition, key: last.key },
      complete: to === records.length,
    };
  }

  /** Answers each request with the next script: chunks, then an error when there is one. */
  function sourceOf(...scripts: { chunks: RecordsChunk[]; error?: Error }[]) {
    const requests: (RecordPosition | undefined)[] = [];
    const admin: Pick<AdminClient, 'streamRecords'> = {
      async *streamRecords(_target, { after }) {
        requests.push(after);
        const script = scripts[Math.min(requests.length, scripts.length) - 1];
        yield* await Promise.resolve(script?.chunks ?? []);
        if (script?.error !== undefined) throw script.error;
      },
    };
    const source = new RecordSource({
      admin: admin as AdminClient,
      target: { nodeId: 'kv-0', address: 'kv-0:50052' },
      incarnation: 7,
      partitions: PARTITIONS,
      scheduler: {
        after: (_ms, task) => (setImmediate(task), { cancel: () => undefined }),
        soon: setImmediate,
      },
      random: systemRandom,
      signal: AbortSignal.timeout(5000),
    });
    return { source, requests };
  }

  const cut = new KvError('UNAVAILABLE', 'connection lost');

  it('goes on where its stream was cut', async () => {
    const { source, requests } = sourceOf(
      { chunks: [chunkOf(0, 2)], error: cut },
      { chunks: [], error: cut },
      { chunks: [chunkOf(2, 6)] },
    );
    expect(await collect(source.records())).to.deep.equal(records);
    expect(source.head).to.equal(40);
    const { partition, key } = records[1]!;
    expect(requests).to.deep.equal([undefined, { partition, key }, { partition, key }]);
  });

  it('counts as lost when it gives nothing any more', async () => {
    const { source, requests } = sourceOf({ chunks: [], error: cut });
    const failure = await collect(source.records()).catch((error: unknown) => error);
    expect(failure).to.be.instanceOf(KvError).and.include({ code: 'UNAVAILABLE' });
    expect((failure as Error).message)
      .to.contain('kv-0')
      .and.contain('connection lost');
    expect(requests).to.have.length(7);
  });

  it('is not read when its store was replaced', async () => {
    const { source } = sourceOf({ chunks: [chunkOf(0, 2)], error: cut }, { chunks: [chunkOf(2, 6, 8)] });
    const failure = await collect(source.records()).catch((error: unknown) => error);
    expect((failure as Error).message).to.contain('replaced');
  });
});

describe('backups in a directory', function () {
  this.timeout(10_000);
  let target: string;
  let parent: string;
  const signal = new AbortController().signal;

  beforeEach(() => {
    target = mkdtempSync(join(tmpdir(), 'kvcluster-backup-'));
    parent = clusterDirectory(target, CLUSTER);
  });

  afterEach(() => rmSync(target, { recursive: true, force: true }));

  const head = {
    format: 1 as const,
    kind: 'cluster' as const,
    clusterId: CLUSTER.clusterId,
    namespace: CLUSTER.namespace,
    clusterName: CLUSTER.name,
    epoch: 2,
    partitions: PARTITIONS,
    startedAt: '2026-01-01T00:00:00.000Z',
    finishedAt: '2026-01-01T00:00:01.000Z',
    softwareVersion: '0.1.0',
    sources: [{ nodeId: 'kv-0', incarnation: 7, head: 1 }],
  };

  /** 8.5 MiB that do not compress: two chunks. */
  async function write(startedAtMs: number): Promise<string> {
    const id = newBackupId(startedAtMs, systemRandom);
    const writer = await BackupWriter.create(parent, id, PARTITIONS);
    const records = Array.from({ length: 17 }, (_, index) => {
      const key = Buffer.from(`key-${index}`);
      return placed(key.toString(), liveRecord(key, systemRandom.bytes(512 * 1024), version(index + 1)));
    });
    for (const record of records.sort(comparePlaces)) await writer.add(record);
    await writer.commit(head);
    return join(parent, id);
  }

  it('lists them oldest first, and verifies one of several chunks', async () => {
    const later = await write(1_800_000_000_000);
    const earlier = await write(1_700_000_000_000);
    const entries = await listBackups(target);
    expect(entries.map(({ directory }) => directory)).to.deep.equal([earlier, later]);
    expect(entries.every(({ id }) => isBackupId(id))).to.equal(true);
    expect(entries[0]?.manifest).to.include({ records: 17 });
    expect(readdirSync(earlier)).to.deep.equal(['manifest.json', 'records-000000.kvb', 'records-000001.kvb']);
    expect(await verifyBackup(entries[0]!, signal)).to.deep.equal([]);
  });

  const damages: { what: string; file: string; damage: (path: string) => void; message: RegExp }[] = [
    {
      what: 'a missing chunk',
      file: 'records-000001.kvb',
      damage: (path) => unlinkSync(path),
      message: /ENOENT/,
    },
    {
      what: 'a short chunk',
      file: 'records-000001.kvb',
      damage: (path) => truncateSync(path, 1000),
      message: /1000 bytes/,
    },
    {
      what: 'a missing manifest',
      file: 'manifest.json',
      damage: (path) => unlinkSync(path),
      message: /ENOENT/,
    },
    {
      what: 'a chunk in the place of another',
      file: 'records-000000.kvb',
      damage: (path) => writeFileSync(path, readFileSync(path.replace('000000', '000001'))),
      message: /differs|bytes/,
    },
  ];
  for (const { what, file, damage, message } of damages) {
    it(`finds ${what}, and names the file`, async () => {
      const directory = await write(1_700_000_000_000);
      damage(join(directory, file));
      const [entry] = await listBackups(target);
      const faults = await verifyBackup(entry!, signal);
      expect(faults).to.have.length(1);
      expect(faults[0]?.file).to.equal(join(directory, file));
      expect(faults[0]?.problem).to.match(message);
    });
  }

  it('finds records that are out of order', async () => {
    const writer = await BackupWriter.create(parent, newBackupId(1_700_000_000_000, systemRandom), 1);
    for (const key of ['b', 'a'])
      await writer.add(placed(key, tombstoneRecord(Buffer.from(key), version(1))));
    await writer.commit({ ...head, partitions: 1 });
    const [entry] = await listBackups(target);
    expect((await verifyBackup(entry!, signal))[0]?.problem).to.equal('its records are not in order');
  });

  it('shows nothing of a backup that was abandoned', async () => {
    const writer = await BackupWriter.create(parent, newBackupId(1, systemRandom), PARTITIONS);
    expect(await listBackups(target)).to.deep.equal([]);
    await writer.abandon();
    expect(readdirSync(parent)).to.deep.equal([]);
  });
});
