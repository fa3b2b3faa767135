import { expect } from 'chai';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeChunk, decodeManifest, MANIFEST_NAME } from '../../../common/backup-format.ts';
import { systemClock } from '../../../common/clock.ts';
import { createLogger } from '../../../common/log.ts';
import { sealMap } from '../../../model/cluster-map.ts';
import { Snapshots, type SnapshotsOptions } from '../../../node/backup/snapshots.ts';
import type { RecordsChunk } from '../../../proto/gen/peer.ts';

const map = sealMap({
  clusterId: '0'.repeat(32),
  namespace: 'default',
  name: 'sample',
  epoch: 1,
  partitions: 4,
  replicationFactor: 3,
  initialised: true,
  members: [],
  retired: [],
  assignment: [[], [], [], []],
});
const GIB = 1024 ** 3;
const never = new AbortController().signal;
const record = (key: string, bytes = 10) => ({
  key: Buffer.from(key),
  record: Buffer.alloc(bytes, 1),
  horizonMs: 0,
});
const chunk = (more: Partial<RecordsChunk>): RecordsChunk => ({
  head: undefined,
  incarnation: 77,
  records: [],
  last: undefined,
  complete: false,
  horizonMs: 0,
  ...more,
});
const whole = [chunk({ head: 5 }), chunk({ records: [record('a'), record('b')] }), chunk({ complete: true })];

describe('node-local snapshots', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'kvcluster-snapshots-'));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  function snapshots(
    records: () => AsyncIterable<RecordsChunk> | Iterable<RecordsChunk>,
    more: Partial<SnapshotsOptions> = {},
  ): Snapshots {
    return new Snapshots({
      replica: {
        map,
        nodeId: 'sample-0',
        streamRecords: async function* () {
          yield* records();
        },
      },
      directory,
      softwareVersion: '0.1.0',
      diskSpace: () => Promise.resolve({ freeBytes: GIB, totalBytes: 2 * GIB }),
      clock: systemClock,
      logger: createLogger({ level: 'silent' }),
      ...more,
    });
  }
  const present = (): string[] => readdirSync(directory).sort();
  const codeOf = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => 'OK',
      (error: unknown) => (error as { code?: unknown }).code ?? String(error),
    );

  it('write every record, split into chunks, with a manifest of where they came from', async () => {
    const big = Array.from({ length: 5 }, (_, index) => record(`big-${index}`, 4 * 1024 * 1024));
    const result = await snapshots(() => [
      chunk({ head: 5 }),
      chunk({ records: big }),
      chunk({ complete: true }),
    ]).take(never);
    const manifest = decodeManifest(readFileSync(join(directory, result.name, MANIFEST_NAME), 'utf8'));
    expect(manifest.sources).to.deep.equal([{ nodeId: 'sample-0', incarnation: 77, head: 5 }]);
    expect(manifest.chunks.map(({ records }) => records)).to.deep.equal([2, 2, 1]);
    const keys: string[] = [];
    for (const description of manifest.chunks) {
      const decoded = await decodeChunk(
        readFileSync(join(directory, result.name, description.name)),
        description,
      );
      keys.push(...decoded.map(({ key }) => key.toString()));
    }
    expect(keys).to.deep.equal(big.map(({ key }) => key.toString()));
    expect(result).to.include({ records: 5, sizeBytes: manifest.sizeBytes });
  });

  it('keep the newest two, also of the same second, and what is not theirs', async () => {
    mkdirSync(join(directory, 'of-somebody-else'));
    const clock = { ...systemClock, wallMs: () => Date.UTC(2026, 0, 2, 3, 4, 5) };
    const taker = snapshots(() => whole, { clock });
    const names: string[] = [];
    for (let round = 0; round < 4; round += 1) names.push((await taker.take(never)).name);
    expect(names).to.deep.equal([1, 2, 3, 4].map((number) => `20260102T030405Z-000${number}`));
    expect(present()).to.deep.equal([...names.slice(2), 'of-somebody-else']);
  });

  it('are refused below 20 % free, with the share, and leave nothing', async () => {
    const diskSpace = () => Promise.resolve({ freeBytes: 0.19 * GIB, totalBytes: GIB });
    const error: unknown = await snapshots(() => whole, { diskSpace })
      .take(never)
      .catch((thrown: unknown) => thrown);
    expect(error).to.include({ code: 'RESOURCE_EXHAUSTED', retryable: false });
    expect((error as Error).message)
      .to.contain('only 19 % of the volume')
      .and.contain('20 % are needed');
    expect(present()).to.deep.equal([]);
  });

  it('leave nothing when the stream is cut or fails', async () => {
    expect(await codeOf(snapshots(() => whole.slice(0, 2)).take(never))).to.equal('UNAVAILABLE');
    const failing = snapshots(function* () {
      yield* whole.slice(0, 2);
      throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
    });
    expect(await codeOf(failing.take(never))).to.equal('RESOURCE_EXHAUSTED');
    expect(present()).to.deep.equal([]);
  });

  it('remove what a killed process left unfinished', async () => {
    mkdirSync(join(directory, '20260101T000000Z-0001'));
    const { name } = await snapshots(() => whole).take(never);
    expect(present()).to.deep.equal([name]);
  });

  it('are made one at a time; calls that come meanwhile share the next one', async () => {
    let running = 0;
    let most = 0;
    let begun = 0;
    const taker = snapshots(async function* () {
      begun += 1;
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      yield* whole;
      running -= 1;
    });
    const results = await Promise.all([1, 2, 3, 4, 5].map(() => taker.take(never)));
    expect({ begun, most }).to.deep.equal({ begun: 2, most: 1 });
    expect(new Set(results.slice(1).map(({ name }) => name)).size).to.equal(1);
    expect(results[0]?.name).not.to.equal(results[1]?.name);
  });

  it('end when the last one who waits has gone, and not before', async () => {
    const gates = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
    let begun = 0;
    const taker = snapshots(async function* () {
      const gate = gates[begun];
      begun += 1;
      yield* whole.slice(0, 2);
      await gate?.promise;
      yield* whole.slice(2);
    });
    const first = new AbortController();
    const second = new AbortController();
    const third = new AbortController();
    const outcomes = [first, second, third].map(({ signal }) => codeOf(taker.take(signal)));
    first.abort(Object.assign(new Error('gone'), { code: 'gone' }));
    second.abort(Object.assign(new Error('gone'), { code: 'gone' }));
    for (const gate of gates) gate.resolve(undefined);
    expect(await Promise.all(outcomes)).to.deep.equal(['gone', 'gone', 'OK']);
    expect(present()).to.have.length(1);
    expect(begun).to.be.within(1, 2);
  });
});
