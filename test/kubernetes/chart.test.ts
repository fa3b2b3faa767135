import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse, stringify } from 'yaml';
import { chartPath, helm } from '../support/helm.ts';
import type { Kubectl } from '../support/kubectl.ts';
import { requireKubernetes, sharedCluster, type TestCluster } from '../support/kubernetes-cluster.ts';
import { appImage } from '../support/kubernetes-image.ts';
import { createNamespace, type TestNamespace } from '../support/kubernetes-namespace.ts';
import type { KubernetesObject, Pod } from '../support/kubernetes-objects.ts';
import { reportOnFailure } from '../support/kubernetes-report.ts';
import { imageValues, installOperator, type OperatorRelease } from '../support/operator-release.ts';
import { waitFor } from '../support/wait.ts';

const crdName = 'kvclusters.kvcluster.io';
const single = (name: string, spec: object = {}): object => ({
  apiVersion: 'kvcluster.io/v1alpha1',
  kind: 'KVCluster',
  metadata: { name },
  spec: { replicas: 1, storage: { size: '256Mi' }, resources: { requests: { cpu: '50m' } }, ...spec },
});

/** A chart whose CRD has one field more, as the chart of a later release may. */
function chartWithField(field: string): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'kvcluster-chart-'));
  cpSync(chartPath, path, { recursive: true });
  const file = join(path, 'files', `${crdName}.yaml`);
  const crd = parse(readFileSync(file, 'utf8')) as {
    spec: { versions: [{ schema: { openAPIV3Schema: { properties: { spec: { properties: object } } } } }] };
  };
  const { spec } = crd.spec.versions[0].schema.openAPIV3Schema.properties;
  spec.properties = { ...spec.properties, [field]: { type: 'string' } };
  writeFileSync(file, stringify(crd));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

const failure = (promise: Promise<unknown>): Promise<string> => promise.then(() => 'no failure', String);

describe('the chart in a cluster', function () {
  this.timeout(120_000);
  let cluster: TestCluster;
  let image: string;
  let namespace: TestNamespace;
  let other: TestNamespace;
  let kubectl: Kubectl;
  /** The release that has the CRD. */
  let operator: OperatorRelease | undefined;
  let second: OperatorRelease | undefined;

  const becomesReady = (where: Kubectl, name: string): Promise<string> =>
    where.run(['wait', '--for=condition=Ready', '--timeout=90s', `kvcluster/${name}`], {
      timeoutMs: 100_000,
    });
  const kvctl = (...args: string[]): Promise<string> =>
    kubectl.exec('kept-0', ['node', '/app/entrypoint', 'kvctl', ...args]);
  const podUid = async (): Promise<string> => (await kubectl.get<Pod>('pod', 'kept-0')).metadata.uid;

  before(async function () {
    this.timeout(40 * 60_000);
    requireKubernetes(this);
    cluster = await sharedCluster();
    image = await appImage(cluster);
    [namespace, other] = await Promise.all([
      createNamespace(cluster.kubectl, 'chart'),
      createNamespace(cluster.kubectl, 'chart-other'),
    ]);
    kubectl = namespace.kubectl;
    operator = await installOperator(kubectl, { release: 'first', image });
    await kubectl.apply([single('kept')]);
    await becomesReady(kubectl, 'kept');
    await kvctl('put', 'greeting', 'hello');
  });

  afterEach(async function () {
    await reportOnFailure(this, kubectl);
  });

  after(async function () {
    this.timeout(180_000);
    await second?.uninstall();
    await operator?.uninstall();
    for (const made of [namespace, other] as (TestNamespace | undefined)[]) await made?.delete();
  });

  it('leaves the CRD, the clusters and their data when it is uninstalled', async () => {
    const uid = await podUid();
    await operator?.uninstall();
    expect(await kubectl.list('deployments')).to.deep.equal([]);
    expect(await cluster.kubectl.find('customresourcedefinition', crdName)).not.to.equal(undefined);
    expect(await kubectl.find('kvcluster', 'kept')).not.to.equal(undefined);
    expect(await podUid()).to.equal(uid);
    expect((await kvctl('get', 'greeting')).trim()).to.equal('hello');
  });

  it('is installed again under another name with --take-ownership, and goes on with the same pods', async () => {
    const uid = await podUid();
    const values = { image: imageValues(image), watchNamespaces: [namespace.name] };
    const install = ['install', 'next', chartPath, '--wait', '--timeout=90s'];
    expect(await failure(helm(install, { kubectl, values }))).to.include('invalid ownership metadata');

    await helm([...install, '--take-ownership'], { kubectl, values });
    operator = await installOperator(kubectl, { release: 'next', image });
    // A change of the spec is seen to be worked on: somebody looks after the cluster again.
    await kubectl.run(['patch', 'kvcluster/kept', '--type=merge', '--patch={"spec":{"paused":true}}']);
    const observed = '--for=jsonpath={.status.observedGeneration}=2';
    await kubectl.run(['wait', observed, '--timeout=60s', 'kvcluster/kept'], { timeoutMs: 70_000 });
    await kubectl.run(['patch', 'kvcluster/kept', '--type=merge', '--patch={"spec":{"paused":false}}']);
    await becomesReady(kubectl, 'kept');
    expect(await podUid()).to.equal(uid);
    expect((await kvctl('get', 'greeting')).trim()).to.equal('hello');
  });

  it('runs beside another release that watches other namespaces and makes no CRD', async () => {
    second = await installOperator(other.kubectl, { image, values: { crds: { create: false } } });
    await other.kubectl.apply([single('theirs')]);
    await becomesReady(other.kubectl, 'theirs');
    const mayList = (where: string): Promise<string> =>
      cluster.kubectl
        .run(['auth', 'can-i', 'list', 'kvclusters', `--namespace=${where}`, ...as(other.name)])
        .catch((error: unknown) => (error as { stdout: string }).stdout);
    expect((await mayList(other.name)).trim()).to.equal('yes');
    expect((await mayList(namespace.name)).trim()).to.equal('no');
  });

  it('brings a new field of the CRD with an upgrade, and restarts no node', async () => {
    const uid = await podUid();
    const withField = [single('later', { newField: 'x' })];
    const dryRun = ['--dry-run=server', '--validate=strict'];
    expect(await failure(kubectl.apply(withField, ...dryRun))).to.match(/unknown field "(spec\.)?newField"/);

    using later = chartWithField('newField');
    await operator?.upgrade({}, { chart: later.path });
    // The API server takes a moment to serve what it has accepted.
    await waitFor({ what: 'the new field to be accepted', timeoutMs: 20_000 }, () =>
      kubectl.apply(withField, ...dryRun),
    );
    await becomesReady(kubectl, 'kept');
    expect(await podUid()).to.equal(uid);

    await operator?.upgrade({});
    const crd = await cluster.kubectl.get<KubernetesObject>('customresourcedefinition', crdName);
    expect(JSON.stringify(crd)).not.to.include('newField');
  });
});

const as = (namespace: string): string[] => [`--as=system:serviceaccount:${namespace}:kvcluster`];
