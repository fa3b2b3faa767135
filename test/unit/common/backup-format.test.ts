import { expect } from 'chai';
import {
  ChunkBuilder,
  chunkName,
  decodeChunk,
  decodeManifest,
  encodeChunk,
  encodeManifest,
  type BackupManifest,
  type BackupRecord,
} from '../../../common/backup-format.ts';
import { KvError } from '../../../common/errors.ts';

const records: readonly BackupRecord[] = [
  { key: Buffer.from('a'), record: Buffer.from('first') },
  { key: Buffer.from('b'), record: Buffer.alloc(0) },
  { key: Buffer.alloc(1024, 0xff), record: Buffer.alloc(100_000, 7) },
];
const partitionOf = (key: Buffer): number => key.length;

const manifest = async (): Promise<BackupManifest> => {
  const { description } = await encodeChunk(chunkName(0), records, partitionOf);
  return {
    format: 1,
    kind: 'node',
    clusterId: '0123456789abcdef0123456789abcdef',
    namespace: 'default',
    clusterName: 'sample',
    epoch: 3,
    partitions: 256,
    startedAt: '2026-01-02T03:04:05.000Z',
    finishedAt: '2026-01-02T03:04:06.000Z',
    softwareVersion: '0.1.0',
    sources: [{ nodeId: 'sample-0', incarnation: 281474976710655, head: 12 }],
    records: description.records,
    sizeBytes: description.sizeBytes,
    chunks: [description],
  };
};

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof KvError) return error.code;
    throw error;
  }
  return 'OK';
}

describe('backup format', () => {
  it('reads back the records of a chunk and describes them', async () => {
    const { bytes, description } = await encodeChunk(chunkName(7), records, partitionOf);
    expect(await decodeChunk(bytes, description)).to.deep.equal(records);
    expect(description).to.include({
      name: 'records-000007.kvb',
      records: 3,
      sizeBytes: bytes.length,
      firstPartition: 1,
      lastPartition: 1024,
    });
  });

  it('finds any flipped byte of a chunk', async () => {
    const { bytes, description } = await encodeChunk(chunkName(0), records, partitionOf);
    for (let offset = 0; offset < bytes.length; offset += 1) {
      const damaged = Buffer.from(bytes);
      damaged[offset] = (damaged[offset] ?? 0) ^ 0x10;
      expect(await codeOf(() => decodeChunk(damaged, description)), `offset ${offset}`).to.equal('DATA_LOSS');
    }
    expect(await codeOf(() => decodeChunk(bytes.subarray(1), description))).to.equal('DATA_LOSS');
  });

  it('does not unpack more than the manifest says', async () => {
    const { bytes, description } = await encodeChunk(chunkName(0), records, partitionOf);
    expect(await codeOf(() => decodeChunk(bytes, { ...description, rawBytes: 10 }))).to.equal('DATA_LOSS');
    expect(await codeOf(() => decodeChunk(bytes, { ...description, records: 2 }))).to.equal('DATA_LOSS');
  });

  it('closes a chunk at its target size', () => {
    const builder = new ChunkBuilder();
    const big: BackupRecord = { key: Buffer.from('k'), record: Buffer.alloc(3 * 1024 * 1024) };
    expect([builder.add(big), builder.add(big), builder.add(big)]).to.deep.equal([false, false, true]);
    expect(builder.take()).to.have.length(3);
    expect(builder.take()).to.have.length(0);
  });

  it('reads back a manifest', async () => {
    const content = await manifest();
    expect(decodeManifest(encodeManifest(content))).to.deep.equal(content);
  });

  it('finds a changed, cut or foreign manifest', async () => {
    const text = encodeManifest(await manifest());
    const cases: Record<string, string> = {
      'another number': text.replace('"epoch": 3', '"epoch": 4'),
      'a field too many': text.replace('"epoch": 3', '"epoch": 3, "note": "x"'),
      'a field too few': text.replace('"epoch": 3,', ''),
      'cut short': text.slice(0, -20),
      'not an object': '[]',
      'a path as chunk name': text.replace('records-000000.kvb', '../records-000000.kvb'),
    };
    for (const [name, changed] of Object.entries(cases)) {
      expect(changed, name).not.to.equal(text);
      expect(await codeOf(() => decodeManifest(changed)), name).to.equal('DATA_LOSS');
    }
  });

  it('refuses a newer format by saying so', async () => {
    const text = encodeManifest(await manifest()).replace('"format": 1', '"format": 2');
    expect(() => decodeManifest(text)).to.throw(
      KvError,
      'the backup has format 2, this software reads format 1',
    );
    const { bytes, description } = await encodeChunk(chunkName(0), records, partitionOf);
    bytes[4] = 2;
    expect(await codeOf(() => decodeChunk(bytes, description))).to.equal('DATA_LOSS');
  });
});
