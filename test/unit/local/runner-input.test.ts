import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { KvError } from '../../../common/errors.ts';
import { parseKVCluster } from '../../../model/kvcluster.ts';
import { parseRunnerArguments } from '../../../node/local/arguments.ts';
import { firstNodes, layOut, membersFor } from '../../../node/local/layout.ts';
import { readManifest } from '../../../node/local/manifest.ts';

const root = join(import.meta.dirname, '../../..');
const sample = join(root, 'deploy/samples/kvcluster.yaml');

async function refusalOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    expect((error as KvError).code).to.equal('INVALID_ARGUMENT');
    return (error as KvError).message;
  }
  throw new Error('it was accepted');
}

describe("the one-machine runner's input", () => {
  let directory: string;

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'kvcluster-manifest-'));
  });

  after(() => rmSync(directory, { recursive: true, force: true }));

  it('defaults to the sample and .kvcluster', () => {
    expect(parseRunnerArguments([], root)).to.deep.equal({
      manifest: sample,
      dataDir: '.kvcluster',
      basePort: 50_051,
      nodes: undefined,
      workers: undefined,
      verbose: false,
    });
    expect(parseRunnerArguments(['--help'], root)).to.equal('help');
  });

  for (const [flags, message] of [
    [['--nodes', 'many'], /--nodes must be a whole number from 1 to 100, not "many"/],
    [['--nodes', '0'], /--nodes/],
    [['--workers', '10'], /--workers must be a whole number from 1 to 9, not "10"/],
    [['--base-port', '70000'], /--base-port must be/],
    [['--frob'], /--frob/],
    [['extra'], /extra/],
    [['--data-dir'], /--data-dir/],
  ] as const) {
    it(`refuses ${flags.join(' ')}`, async () => {
      expect(await refusalOf(() => parseRunnerArguments(flags, root))).to.match(message);
    });
  }

  it('reads the sample, with other numbers of nodes and workers when told so', async () => {
    expect((await readManifest(sample)).spec).to.include({ replicas: 3, workersPerPod: 1 });
    expect((await readManifest(sample, { replicas: 1 })).spec).to.include({ replicas: 1, workersPerPod: 1 });
    expect((await readManifest(sample, { workersPerPod: 2 })).spec).to.include({
      replicas: 3,
      workersPerPod: 2,
    });
  });

  for (const [name, text, message] of [
    ['an unknown field', 'spec: {replicas: 3, colour: blue}', /unknown field "colour"/],
    ['too many nodes', 'spec: {replicas: 101}', /replicas/],
    ['what is not YAML', 'spec: {', /cannot read/],
  ] as const) {
    it(`refuses a manifest with ${name}`, async () => {
      const path = join(directory, 'cluster.yaml');
      writeFileSync(
        path,
        `apiVersion: kvcluster.io/v1alpha1\nkind: KVCluster\nmetadata: {name: kv}\n${text}\n`,
      );
      expect(await refusalOf(() => readManifest(path)))
        .to.match(message)
        .and.contain(path);
    });
  }

  it('lays nodes out on the ports of the documentation', async () => {
    const parsed = parseKVCluster({
      apiVersion: 'kvcluster.io/v1alpha1',
      kind: 'KVCluster',
      metadata: { name: 'kv' },
    });
    if (!parsed.ok) throw new Error(parsed.problems.join());
    const nodes = await layOut(firstNodes(parsed.cluster, 3), {
      dataDir: '/data',
      basePort: 50_051,
      workers: 1,
    });
    expect(nodes.map(({ clientPort, peerPort, httpPort }) => [clientPort, peerPort, httpPort])).to.deep.equal(
      [
        [50_051, 51_051, 9091],
        [50_052, 51_052, 9092],
        [50_053, 51_053, 9093],
      ],
    );
    expect(nodes.map(({ nodeId, dataDir }) => [nodeId, dataDir])[2]).to.deep.equal(['kv-2', '/data/kv-2']);
    const shifted = await layOut(firstNodes(parsed.cluster, 3), {
      dataDir: '/data',
      basePort: 20_000,
      workers: 1,
    });
    expect(shifted[1]).to.include({ clientPort: 20_001, peerPort: 21_001, httpPort: 22_001 });
  });

  describe('with workers', () => {
    const names = (count: number): string[] => Array.from({ length: count }, (_, ordinal) => `kv-${ordinal}`);

    it('makes each worker a member with ports of its own, in its node', async () => {
      const [node] = await layOut(['kv-1'], { dataDir: '/data', basePort: 50_051, workers: 2 });
      expect(node).to.include({ clientPort: 50_052, peerPort: 51_052, httpPort: 9092 });
      expect(membersFor(node!).map((member) => ({ ...member, host: '', zone: '', state: '' }))).to.deep.equal(
        [
          { nodeId: 'kv-1', pod: 'kv-1', clientPort: 50_102, peerPort: 51_052, httpPort: 9142, ...blanks },
          { nodeId: 'kv-1-w1', pod: 'kv-1', clientPort: 50_152, peerPort: 51_152, httpPort: 9192, ...blanks },
        ],
      );
    });
    const blanks = { host: '', zone: '', state: '' };

    for (const basePort of [50_051, 0]) {
      const size = basePort === 0 ? 5 : 50;
      it(`never gives a port twice, from ${basePort}, however many there are`, async () => {
        const nodes = await layOut(names(size), { dataDir: '/data', basePort, workers: 9 });
        const own = nodes.flatMap(membersFor).flatMap((m) => [m.clientPort, m.peerPort, m.httpPort]);
        const all = [...own, ...nodes.flatMap(({ clientPort, httpPort }) => [clientPort, httpPort])];
        expect(new Set(all).size).to.equal(all.length);
      });
    }

    it('refuses more than there are ports for', async () => {
      const options = { dataDir: '/data', basePort: 50_051 };
      const tooMany = [
        layOut(names(51), { ...options, workers: 2 }),
        layOut(names(1), { ...options, workers: 10 }),
      ];
      for (const layout of tooMany)
        expect(await refusalOf(() => layout)).to.match(/room for 50 nodes of 9 workers/);
      expect(await layOut(names(100), { ...options, workers: 1 })).to.have.length(100);
    });
  });
});
