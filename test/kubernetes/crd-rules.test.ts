import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { systemScheduler } from '../../common/clock.ts';
import { KVCLUSTER_API_VERSION, KVCLUSTER_KIND } from '../../model/kvcluster.ts';
import type { KubernetesApi } from '../../operator/runtime/api.ts';
import { connectToKubernetes } from '../../operator/runtime/kubernetes.ts';
import { pathOf, resources } from '../../operator/runtime/resource.ts';
import type { Kubectl } from '../support/kubectl.ts';
import { requireKubernetes, sharedCluster } from '../support/kubernetes-cluster.ts';
import { createNamespace, type TestNamespace } from '../support/kubernetes-namespace.ts';

const crd = readFileSync(join(import.meta.dirname, '../../deploy/crd/kvclusters.kvcluster.io.yaml'), 'utf8');

/** Nobody reconciles them: no operator watches their namespace. */
const withClass = {
  replicas: 2,
  replicationFactor: 3,
  partitions: 8,
  storage: { size: '1Gi', storageClassName: 'fast' },
  backup: { schedule: '@daily', storage: { size: '1Gi', storageClassName: 'cheap' } },
};
const withoutClass = { backup: { schedule: '@daily' } };

function manifest(name: string, spec: object): object {
  return { apiVersion: KVCLUSTER_API_VERSION, kind: KVCLUSTER_KIND, metadata: { name }, spec };
}

type Spec = Readonly<Record<string, unknown>>;

/** A value that is refused, the sentence, and one that is accepted; both on top of the object that exists. */
interface Rule {
  readonly what: string;
  /** Changes to an existing object, as a merge patch. */
  readonly refused: Spec;
  readonly message: RegExp;
  readonly accepted: Spec;
  /** The existing object. @default 'classy' */
  readonly on?: 'classy' | 'plain';
}

const schedule = (text: string): Spec => ({ backup: { schedule: text } });

const rules: readonly Rule[] = [
  {
    what: 'changed partitions',
    refused: { partitions: 9 },
    message: /spec\.partitions.*partitions cannot be changed after the cluster was created/,
    accepted: { partitions: 8 },
  },
  {
    what: 'a grown volume',
    refused: { storage: { size: '2Gi' } },
    message: /changing the size of volumes is not supported yet \(it is 1Gi\)/,
    accepted: { storage: { size: '1024Mi' } },
  },
  {
    what: 'a size that is no quantity',
    refused: { storage: { size: 'big' } },
    message: /size: must be a quantity such as 10Gi, not "big"/,
    accepted: { storage: { size: '1Gi' } },
  },
  {
    what: 'a size of nothing',
    refused: { backup: { storage: { size: '0' } } },
    message: /size: must be more than 0, not "0"/,
    accepted: { backup: { storage: { size: '1.0Gi' } } },
  },
  {
    what: 'a changed storageClassName',
    refused: { storage: { storageClassName: 'slow' } },
    message: /storageClassName cannot be changed.*\(it is "fast"\)/,
    accepted: { storage: { storageClassName: 'fast' } },
  },
  {
    what: 'a storageClassName that vanishes',
    refused: { storage: { storageClassName: null } },
    message: /storageClassName cannot be changed, set or removed.*\(it is "fast"\)/,
    accepted: { paused: true },
  },
  {
    what: 'a storage section that vanishes with its storageClassName',
    refused: { storage: null },
    message: /storageClassName cannot be changed, set or removed.*\(it is "fast"\)/,
    accepted: { paused: true },
  },
  {
    what: 'a storageClassName that appears',
    refused: { storage: { storageClassName: 'fast' } },
    message: /storageClassName cannot be changed, set or removed.*\(it is not set\)/,
    accepted: { storage: { size: '1Gi' } },
    on: 'plain',
  },
  {
    what: "a changed storageClassName of the backups' volume",
    refused: { backup: { storage: { storageClassName: 'fast' } } },
    message: /spec\.backup\.storage.*storageClassName cannot be changed.*\(it is "cheap"\)/,
    accepted: { backup: { storage: { storageClassName: 'cheap' } } },
  },
  {
    what: 'a time zone within the schedule',
    refused: schedule('TZ=UTC 0 3 * * *'),
    message: /must not contain "TZ="; use timeZone/,
    accepted: { backup: { schedule: '0 3 * * *', timeZone: 'UTC' } },
  },
  {
    what: 'a schedule of six fields',
    refused: schedule('0 0 3 * * *'),
    message: /must have five fields/,
    accepted: schedule('0 3 * * *'),
  },
  {
    what: 'an unknown macro',
    refused: schedule('@every 1h'),
    message: /must have five fields.*@daily/,
    accepted: schedule('@hourly'),
  },
  {
    what: 'a minute out of range',
    refused: schedule('60 3 * * *'),
    message: /schedule: minute takes \* or 0-59/,
    accepted: schedule('0-59/5,30 3 * * *'),
  },
  {
    what: 'an hour out of range',
    refused: schedule('0 24 * * *'),
    message: /schedule: hour takes \* or 0-23/,
    accepted: schedule('0 */6 * * *'),
  },
  {
    what: 'a day of the month out of range',
    refused: schedule('0 3 32 * *'),
    message: /schedule: day of month takes \* or 1-31/,
    accepted: schedule('0 3 1,31 * ?'),
  },
  {
    what: 'a month out of range',
    refused: schedule('0 3 * 13 *'),
    message: /schedule: month takes \* or 1-12/,
    accepted: schedule('0 3 * jan-DEC *'),
  },
  {
    what: 'a day of the week out of range',
    refused: schedule('0 3 * * 7'),
    message: /schedule: day of week takes \* or 0-6/,
    accepted: schedule('0 3 * * mon-Fri'),
  },
  {
    what: 'more workers in a pod than have ports',
    refused: { workersPerPod: 17 },
    message: /spec\.workersPerPod.*less than or equal to 16/,
    accepted: { workersPerPod: 16 },
  },
  {
    what: 'a pod without workers',
    refused: { workersPerPod: 0 },
    message: /spec\.workersPerPod.*greater than or equal to 1/,
    accepted: { workersPerPod: 2 },
  },
  {
    what: 'a replicationFactor above 7',
    refused: { replicationFactor: 8 },
    message: /spec\.replicationFactor.*less than or equal to 7/,
    accepted: { replicationFactor: 3 },
  },
  {
    what: 'an image with a space',
    refused: { image: 'a b' },
    message: /spec\.image.*should match/,
    accepted: { image: 'registry.example:5000/kv@sha256:0123' },
  },
  {
    what: 'an unknown way to spread pods',
    refused: { scheduling: { topologySpread: [{ topologyKey: 'rack', whenUnsatisfiable: 'Never' }] } },
    message: /Unsupported value: "Never"/,
    accepted: { scheduling: { topologySpread: [{ topologyKey: 'rack' }] } },
  },
];

/** What a merge patch makes of a spec. */
function merged(target: unknown, patch: unknown): unknown {
  if (patch === null || typeof patch !== 'object' || Array.isArray(patch)) return patch;
  const result: Record<string, unknown> = { ...(target as Record<string, unknown> | undefined) };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) Reflect.deleteProperty(result, key);
    else result[key] = merged(result[key], value);
  }
  return result;
}

/** The message with which a call is refused; it must be refused. */
async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    return (error as Error).message.replaceAll(/\s+/g, ' ');
  }
  throw new Error('it was accepted');
}

describe('the rules of the KVCluster resource', function () {
  this.timeout(30_000);
  let namespace: TestNamespace;
  let kubectl: Kubectl;
  let api: KubernetesApi;
  const dry = '--dry-run=server';

  /** What kubectl sends, without a process for each call; kubectl itself is tried with some of them below. */
  const send = async (name: string, contentType: string, body: object, subresource = ''): Promise<void> => {
    const isApply = contentType.includes('apply');
    await api.request({
      method: 'PATCH',
      path: `${pathOf(resources.kvClusters, { namespace: namespace.name, name })}${subresource}`,
      query: { dryRun: 'All', fieldManager: 'rules', ...(isApply ? { force: 'true' } : {}) },
      contentType,
      body,
    });
  };
  const apply = (name: string, spec: object): Promise<void> =>
    send(name, 'application/apply-patch+yaml', manifest(name, spec));
  const patch = (name: string, spec: object, subresource?: string): Promise<void> =>
    send(name, 'application/merge-patch+json', { spec }, subresource);

  before(async function () {
    this.timeout(40 * 60_000); // Kubernetes itself may have to be built first
    requireKubernetes(this);
    const cluster = await sharedCluster();
    const own = ['--server-side', '--force-conflicts', '--field-manager=rules'];
    await cluster.kubectl.apply(crd, ...own);
    const established = ['--for=condition=Established', 'crd/kvclusters.kvcluster.io', '--timeout=30s'];
    await cluster.kubectl.run(['wait', ...established]);
    namespace = await createNamespace(cluster.kubectl, 'rules');
    kubectl = namespace.kubectl;
    api = connectToKubernetes(systemScheduler, cluster.kubeconfig);
    await kubectl.apply([manifest('classy', withClass), manifest('plain', withoutClass)], ...own);
  });

  after(async () => {
    await (namespace as TestNamespace | undefined)?.delete();
  });

  for (const { what, refused, message, accepted, on: name = 'classy' } of rules) {
    const base = name === 'classy' ? withClass : withoutClass;
    it(`refuse ${what}, by apply and by patch`, async () => {
      expect(await refusal(apply(name, merged(base, refused) as object))).to.match(message);
      expect(await refusal(patch(name, refused))).to.match(message);
      await apply(name, merged(base, accepted) as object);
      await patch(name, accepted);
    });
  }

  it('refuse a number of replicas out of range by scale, and take any other', async () => {
    for (const replicas of [0, 101]) {
      expect(await refusal(patch('classy', { replicas }, '/scale'))).to.match(/spec\.replicas.*should be/);
    }
    for (const replicas of [5, 1, 2]) await patch('classy', { replicas }, '/scale');
  });

  for (const [what, name, message] of [
    ['a name of 41 characters', 'a'.repeat(41), /at most 40 characters/],
    [
      'a name that begins with a digit',
      '1demo',
      /a lower-case letter, then lower-case letters, digits or "-"/,
    ],
    ['a name with a dot', 'a.b', /a lower-case letter, then lower-case letters, digits or "-"/],
  ] as const) {
    it(`refuse ${what}`, async () => {
      expect(await refusal(apply(name, {}))).to.match(message);
    });
  }

  it('accept a name of 40 characters, and a spec with nothing in it', async () => {
    await apply('a'.repeat(40), {});
    await send('bare', 'application/apply-patch+yaml', { ...manifest('bare', {}), spec: undefined });
  });

  it('are told by kubectl apply, patch and scale', async () => {
    const edited = [manifest('classy', { ...withClass, partitions: 16 })];
    const [byApply, byPatch, byScale] = await Promise.all([
      refusal(kubectl.apply(edited, dry)),
      refusal(
        kubectl.run([
          'patch',
          'kvcluster',
          'classy',
          '--type=merge',
          '--patch={"spec":{"partitions":16}}',
          dry,
        ]),
      ),
      refusal(kubectl.run(['scale', 'kvcluster', 'classy', '--replicas=101', dry])),
    ]);
    expect(byApply).to.match(/"classy" is invalid: .*spec\.partitions/);
    expect(byPatch).to.match(/"classy" is invalid: .*spec\.partitions/);
    expect(byScale).to.match(/"classy" is invalid: .*spec\.replicas/);
  });

  it('refuse a field that does not exist', async () => {
    const wrong = [manifest('fresh', { colour: 'red' })];
    // Before the schema is published kubectl cannot look itself, and the API server answers with the whole path.
    expect(await refusal(kubectl.apply(wrong, dry))).to.match(/unknown field "(spec\.)?colour"/);
  });

  it('fill in the defaults', async () => {
    const { spec } = await kubectl.json<{ spec: unknown }>(['get', 'kvcluster', 'plain']);
    expect(spec).to.deep.equal({
      replicas: 3,
      replicationFactor: 3,
      partitions: 256,
      workersPerPod: 1,
      storage: { size: '1Gi' },
      resources: { requests: { cpu: '100m', memory: '256Mi' } },
      backup: { schedule: '@daily', suspend: false, storage: { size: '1Gi' } },
      paused: false,
    });
  });

  it('come with words for kubectl explain', async () => {
    const words = await kubectl.run(['explain', 'kvcluster.spec.backup.schedule']);
    expect(words).to.match(/as in a CronJob: five fields/);
    const workers = await kubectl.run(['explain', 'kvcluster.spec.workersPerPod']);
    expect(workers.replaceAll(/\s+/g, ' ')).to.match(/Copies of a key never share a pod\. May be changed/);
  });
});
