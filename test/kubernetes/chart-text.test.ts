import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse, parseAllDocuments } from 'yaml';
import { CommandError } from '../cluster/command.ts';
import { chartPath, helm, provideHelm, type HelmValues } from '../support/helm.ts';
import { requireKubernetes } from '../support/kubernetes-cluster.ts';

interface Rendered {
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly rules?: readonly {
    readonly apiGroups: readonly string[];
    readonly resources: readonly string[];
    readonly verbs: readonly string[];
  }[];
}

/** A value for everything that is empty or unset by default. */
const everyValue: HelmValues = {
  fullnameOverride: 'ops',
  watchNamespaces: ['team-a', 'team-b'],
  image: { tag: '9.9.9', pullPolicy: 'Always' },
  imagePullSecrets: [{ name: 'pull' }],
  nodeImage: 'example/nodes:1',
  replicas: 2,
  concurrency: 2,
  clusterDomain: 'example.local',
  logLevel: 'debug',
  serviceAccount: { name: 'account', annotations: { a: 'b' } },
  podLabels: { team: 'storage' },
  podAnnotations: { note: 'x' },
  nodeSelector: { disk: 'fast' },
  tolerations: [{ key: 'dedicated', operator: 'Exists' }],
  affinity: { nodeAffinity: {} },
  priorityClassName: 'high',
  metrics: { serviceAnnotations: { scrape: 'true' } },
  test: { cluster: 'mine', namespace: 'team-a' },
};

async function render(values: HelmValues = {}, ...args: string[]): Promise<Rendered[]> {
  const text = await helm(['template', 'kv', chartPath, '--namespace=ops', ...args], { values });
  return parseAllDocuments(text)
    .map((document) => document.toJS() as Rendered | null)
    .filter((object) => object !== null);
}

describe('the chart as text', function () {
  before(async function () {
    this.timeout(40 * 60_000);
    requireKubernetes(this);
    await provideHelm();
  });

  for (const [how, values] of [
    ['its defaults', {}],
    ['every value set', everyValue],
  ] as const) {
    it(`has nothing for helm lint to remark with ${how}`, async () => {
      await helm(['lint', '--strict', chartPath], { values });
    });
  }

  it('carries the CRD as it is in deploy/crd, and keeps it on uninstall', async () => {
    const crd = (await render()).find(({ kind }) => kind === 'CustomResourceDefinition');
    expect(crd?.metadata.annotations).to.deep.equal({ 'helm.sh/resource-policy': 'keep' });
    const path = join(chartPath, '../../deploy/crd/kvclusters.kvcluster.io.yaml');
    const original = parse(readFileSync(path, 'utf8')) as { spec: unknown };
    expect(crd).to.have.deep.property('spec', original.spec);
  });

  it('has no object of the whole cluster when it watches namespaces and makes no CRD', async () => {
    const objects = await render({ watchNamespaces: ['team-a', 'team-b'], crds: { create: false } });
    expect(new Set(objects.map(({ kind }) => kind))).to.deep.equal(
      new Set(['ServiceAccount', 'Role', 'RoleBinding', 'Service', 'Deployment', 'Pod']),
    );
    const placed = objects.filter(({ kind }) => kind === 'Role');
    expect(placed.map(({ metadata }) => metadata.namespace).sort()).to.deep.equal([
      'ops',
      'team-a',
      'team-b',
    ]);
    for (const { metadata } of objects) expect(metadata.namespace, metadata.name).to.be.a('string');
  });

  it('grants the same everywhere as in single namespaces', async () => {
    const everywhere = (await render()).find(({ kind }) => kind === 'ClusterRole');
    const single = (await render({ watchNamespaces: ['team-a'] })).find(
      ({ kind, metadata }) => kind === 'Role' && metadata.namespace === 'team-a',
    );
    expect(everywhere?.rules).to.be.an('array').that.is.not.empty;
    expect(everywhere?.rules).to.deep.equal(single?.rules);
  });

  it('names every verb, resource and group that it grants', async () => {
    for (const { rules = [], metadata } of await render()) {
      for (const rule of rules) expect(JSON.stringify(rule), metadata.name).not.to.include('*');
    }
  });

  it('refuses a Kubernetes older than 1.30', async () => {
    const error = await render({}, '--kube-version=1.29.9').catch((reason: unknown) => reason);
    expect(error).to.be.instanceOf(CommandError);
    expect((error as CommandError).message).to.include('1.30');
    await render({}, '--kube-version=1.30.0');
    await render({}, '--kube-version=1.31.2-gke.100');
  });

  it('refuses values that are not in its schema', async () => {
    const error = await render({ replica: 2 }).catch((reason: unknown) => reason);
    expect((error as Error).message).to.include("additional properties 'replica' not allowed");
  });
});
