import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { KvError } from '../../../common/errors.ts';
import { parseKVCluster } from '../../../model/kvcluster.ts';
import { parseRunnerArguments } from '../../../node/local/arguments.ts';
import { firstNodes, layOut } from '../../../node/local/layout.ts';
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
      verbose: false,
    });
    expect(parseRunnerArguments(['--help'], root)).to.equal('help');
  });

  for (const [flags, message] of [
    [['--nodes', 'many'], /--nodes must be a whole number from 1 to 100, not "many"/],
    [['--nodes', '0'], /--nodes/],
    [['--base-port', '70000'], /--base-port must be/],
    [['--frob'], /--frob/],
    [['extra'], /extra/],
    [['--data-dir'], /--data-dir/],
  ] as const) {
    it(`refuses ${flags.join(' ')}`, async () => {
      expect(await refusalOf(() => parseRunnerArguments(flags, root))).to.match(message);
    });
  }

  it('reads the sample, with another number of nodes when told so', async () => {
    expect((await readManifest(sample, undefined)).spec.replicas).to.equal(3);
    expect((await readManifest(sample, 1)).spec.replicas).to.equal(1);
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
      expect(await refusalOf(() => readManifest(path, undefined)))
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
    const nodes = await layOut(firstNodes(parsed.cluster, 3), '/data', 50_051);
    expect(nodes.map(({ clientPort, peerPort, httpPort }) => [clientPort, peerPort, httpPort])).to.deep.equal(
      [
        [50_051, 51_051, 9091],
        [50_052, 51_052, 9092],
        [50_053, 51_053, 9093],
      ],
    );
    expect(nodes.map(({ nodeId, dataDir }) => [nodeId, dataDir])[2]).to.deep.equal(['kv-2', '/data/kv-2']);
    const shifted = await layOut(firstNodes(parsed.cluster, 3), '/data', 20_000);
    expect(shifted[1]).to.include({ clientPort: 20_001, peerPort: 21_001, httpPort: 22_001 });
  });
});
