import { expect } from 'chai';
import fc from 'fast-check';
import { createHash } from 'node:crypto';
import { zstdCompressSync } from 'node:zlib';
import { readRecordHead } from '../../../client/backup/record-head.ts';
import {
  BACKUP_FORMAT,
  decodeChunk,
  decodeManifest,
  encodeChunk,
  encodeManifest,
  type BackupManifest,
  type BackupRecord,
  type ChunkDescription,
} from '../../../common/backup-format.ts';
import { decodeRecord, liveRecord } from '../../../node/storage/record.ts';
import { anyBytes, attempt, attemptLater, bytes, damaged, keys, RUNS, uint48, versions } from './hostile.ts';

const CODES = ['DATA_LOSS', 'FAILED_PRECONDITION'] as const;
const HEAD = Buffer.from([0x4b, 0x56, 0x42, 0x4b, BACKUP_FORMAT]);
const partitionOf = (key: Buffer): number => key.length;

const records: fc.Arbitrary<BackupRecord[]> = fc.array(
  fc
    .record({ key: keys, value: bytes(60), version: versions })
    .map(({ key, value, version }) => ({ key, record: liveRecord(key, value, version).bytes })),
  { maxLength: 6 },
);

/** A chunk around some content, with a manifest that fits it: made by somebody who knows the format. */
function chunkOf(
  raw: Buffer,
  change: Partial<ChunkDescription> = {},
): { encoded: Buffer; expected: ChunkDescription } {
  const encoded = Buffer.concat([HEAD, zstdCompressSync(raw)]);
  const expected = {
    name: 'records-000000.kvb',
    records: 0,
    sizeBytes: encoded.length,
    rawBytes: raw.length,
    sha256: createHash('sha256').update(encoded).digest('hex'),
    firstPartition: 0,
    lastPartition: 0,
    ...change,
  };
  return { encoded, expected };
}

function entriesOf(list: readonly BackupRecord[]): Buffer {
  return Buffer.concat(
    list.flatMap(({ key, record }) => {
      const head = Buffer.alloc(8);
      head.writeUInt32BE(key.length, 0);
      head.writeUInt32BE(record.length, 4);
      return [head, key, record];
    }),
  );
}

describe('fuzzed chunks of backups', () => {
  it('come back as they were written', async () => {
    await fc.assert(
      fc.asyncProperty(records, async (list) => {
        const { bytes: encoded, description } = await encodeChunk('records-000000.kvb', list, partitionOf);
        expect(await decodeChunk(encoded, description)).to.deep.equal(list);
      }),
      { numRuns: RUNS / 4 },
    );
  });

  it('are DATA_LOSS after any damage', async () => {
    const hurt = records.chain((list) =>
      fc.record({ list: fc.constant(list), damage: damaged(fc.constant(chunkOf(entriesOf(list)).encoded)) }),
    );
    await fc.assert(
      fc.asyncProperty(hurt, async ({ list, damage }) => {
        const { expected } = chunkOf(entriesOf(list), { records: list.length });
        const outcome = await attemptLater(['DATA_LOSS'], () => decodeChunk(damage, expected));
        expect(outcome).to.have.property('error');
      }),
      { numRuns: RUNS },
    );
  });

  it('are an error or what they say, whatever they hold', async () => {
    const contents = fc.oneof(anyBytes, damaged(records.map(entriesOf)), records.map(entriesOf));
    await fc.assert(
      fc.asyncProperty(contents, fc.nat(6), async (raw, count) => {
        const { encoded, expected } = chunkOf(raw, { records: count });
        const outcome = await attemptLater(CODES, () => decodeChunk(encoded, expected));
        if ('error' in outcome) return;
        expect(outcome.value).to.have.length(count);
        expect(entriesOf(outcome.value)).to.deep.equal(raw);
      }),
      { numRuns: RUNS },
    );
  });

  it('are not unpacked beyond what the manifest says', async () => {
    const { encoded, expected } = chunkOf(Buffer.alloc(64 * 1024 * 1024), { rawBytes: 1000 });
    const startedMs = performance.now();
    expect(await attemptLater(['DATA_LOSS'], () => decodeChunk(encoded, expected))).to.have.property('error');
    expect(performance.now() - startedMs, 'milliseconds').to.be.below(500);
  });

  it('hold records that a merge and a store read the same', () => {
    const inputs = fc.oneof(
      records.filter((list) => list.length > 0).map(([first]) => first!),
      fc.record({ key: keys, record: anyBytes }),
      fc.record({
        key: keys,
        record: damaged(
          versions.map((version) => liveRecord(Buffer.from('k'), Buffer.from('v'), version).bytes),
        ),
      }),
    );
    fc.assert(
      fc.property(inputs, ({ key, record }) => {
        const stored = attempt(CODES, () => decodeRecord(key, record));
        const merged = attempt(CODES, () => readRecordHead(key, record));
        if ('value' in stored) {
          const { version, checksum } = stored.value;
          expect(merged).to.deep.equal({ value: { version, checksum } });
        } else expect(merged).to.have.property('error');
      }),
      { numRuns: RUNS },
    );
  });
});

describe('fuzzed manifests of backups', () => {
  const manifests: fc.Arbitrary<BackupManifest> = fc
    .record({
      kind: fc.constantFrom('node' as const, 'cluster' as const),
      clusterId: bytes(16, 16).map((id) => id.toString('hex')),
      namespace: fc.string(),
      clusterName: fc.string(),
      epoch: uint48(),
      partitions: fc.integer({ min: 1, max: 65_536 }),
      records: uint48(),
      sizeBytes: uint48(),
      softwareVersion: fc.string(),
      sources: fc.array(fc.record({ nodeId: fc.string(), incarnation: uint48(), head: uint48() }), {
        minLength: 1,
        maxLength: 3,
      }),
    })
    .map((content) => ({
      format: 1,
      startedAt: '2026-01-02T03:04:05.000Z',
      finishedAt: '2026-01-02T03:04:06.000Z',
      chunks: [chunkOf(Buffer.from('x')).expected],
      ...content,
    }));

  it('come back as they were written', () => {
    fc.assert(
      fc.property(manifests, (manifest) => {
        expect(decodeManifest(encodeManifest(manifest))).to.deep.equal(manifest);
      }),
      { numRuns: RUNS / 2 },
    );
  });

  it('are an error after any damage that changes what they say', () => {
    const hurt = manifests.chain((manifest) =>
      fc.record({
        manifest: fc.constant(manifest),
        text: damaged(fc.constant(Buffer.from(encodeManifest(manifest)))).map(String),
      }),
    );
    fc.assert(
      fc.property(hurt, ({ manifest, text }) => {
        const outcome = attempt(CODES, () => decodeManifest(text));
        // White space, and another way to write the same character, say the same.
        if ('value' in outcome) expect(outcome.value).to.deep.equal(manifest);
      }),
      { numRuns: RUNS },
    );
  });

  it('are an error whatever else they are', () => {
    const texts = fc.oneof(
      fc.string(),
      fc.json(),
      fc.constantFrom('null', '[]', '{}', '{"format":2}', '{"__proto__":1}'),
    );
    fc.assert(
      fc.property(texts, (text) => {
        expect(attempt(CODES, () => decodeManifest(text))).to.have.property('error');
      }),
      { numRuns: RUNS },
    );
  });
});
