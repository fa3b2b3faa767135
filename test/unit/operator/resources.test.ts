import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { parseKVCluster } from '../../../model/kvcluster.ts';
import { buildBackupClaim, buildBackupCronJob } from '../../../operator/resources/backup.ts';
import { buildPodDisruptionBudget } from '../../../operator/resources/pod-disruption-budget.ts';
import { buildClientService, buildHeadlessService } from '../../../operator/resources/services.ts';
import { buildStatefulSet } from '../../../operator/resources/statefulset.ts';
import { buildTopology, readTopology } from '../../../operator/resources/topology.ts';
import { hashOf } from '../../../operator/runtime/apply.ts';
import { demo, demoMap } from '../../support/operator-fixtures.ts';

/**
 * What each release rendered: a KVCluster of then must be rendered the same for ever, or upgrading the operator restarts
 * data pods. A file is made once,
 * for a new release, by running this test with KVCLUSTER_NEW_GOLDEN=true, and never changed after.
 */
const golden = join(import.meta.dirname, 'golden');

function render(spec: object) {
  const parsed = parseKVCluster({
    apiVersion: 'kvcluster.io/v1alpha1',
    kind: 'KVCluster',
    metadata: { name: demo.name, namespace: demo.namespace },
    spec,
  });
  if (!parsed.ok) throw new Error(parsed.problems.join());
  const { spec: complete } = parsed.cluster;
  const image = complete.image ?? 'kv:default';
  const { backup, replicas, workersPerPod: workers } = complete;
  return {
    statefulSet: buildStatefulSet({ cluster: demo, spec: complete, replicas, workers, image }),
    headlessService: buildHeadlessService(demo),
    clientService: buildClientService(demo),
    podDisruptionBudget: buildPodDisruptionBudget(demo, replicas),
    ...(backup === undefined
      ? {}
      : {
          cronJob: buildBackupCronJob({ cluster: demo, spec: complete, backup, image }),
          backupClaim: buildBackupClaim(demo, backup),
        }),
  };
}

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

describe('rendered objects', () => {
  const cases: Readonly<Record<string, object>> = {
    'v0.1.0-minimal': {},
    'v0.1.0-everything': {
      replicas: 2,
      replicationFactor: 5,
      partitions: 16,
      image: 'registry.example/kv:2',
      storage: { size: '20Gi', storageClassName: 'fast' },
      resources: { requests: { cpu: 2, memory: '1Gi' }, limits: { memory: '2Gi' } },
      scheduling: {
        affinity: { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [] } },
        nodeSelector: { disk: 'ssd' },
        tolerations: [{ key: 'dedicated', operator: 'Exists', effect: 'NoSchedule' }],
        topologySpread: [{ topologyKey: 'rack', whenUnsatisfiable: 'DoNotSchedule' }],
      },
      backup: {
        schedule: '0 3 * * *',
        timeZone: 'Europe/Zurich',
        suspend: true,
        storage: { size: '5Gi', storageClassName: 'cheap' },
      },
    },
  };

  for (const [name, spec] of Object.entries(cases)) {
    it(`are for ${name} what they were when it was released`, () => {
      const file = join(golden, `${name}.json`);
      if (process.env['KVCLUSTER_NEW_GOLDEN'] === 'true' && !existsSync(file))
        writeFileSync(file, `${JSON.stringify(render(spec), null, 2)}\n`);
      expect(plain(render(spec))).to.deep.equal(JSON.parse(readFileSync(file, 'utf8')));
    });
  }

  /** What each field of the resource changes. */
  const effects: readonly (readonly [string, object])[] = [
    ['replicas', { replicas: 2 }],
    ['partitions', { partitions: 8 }],
    ['workersPerPod', { workersPerPod: 2 }],
    ['image', { image: 'kv:other' }],
    ['storage.size', { storage: { size: '2Gi' } }],
    ['storage.storageClassName', { storage: { storageClassName: 'fast' } }],
    ['resources', { resources: { limits: { cpu: '1' } } }],
    ['scheduling.affinity', { scheduling: { affinity: { podAffinity: {} } } }],
    ['scheduling.nodeSelector', { scheduling: { nodeSelector: { a: 'b' } } }],
    ['scheduling.tolerations', { scheduling: { tolerations: [{ operator: 'Exists' }] } }],
    ['scheduling.topologySpread', { scheduling: { topologySpread: [] } }],
    ['backup.schedule', { backup: { schedule: '@weekly' } }],
    ['backup.timeZone', { backup: { schedule: '@daily', timeZone: 'UTC' } }],
    ['backup.suspend', { backup: { schedule: '@daily', suspend: true } }],
    ['backup.storage.size', { backup: { schedule: '@daily', storage: { size: '2Gi' } } }],
    [
      'backup.storage.storageClassName',
      { backup: { schedule: '@daily', storage: { storageClassName: 'x' } } },
    ],
  ];
  for (const [field, spec] of effects) {
    it(`change with spec.${field}`, () => {
      const base = field.startsWith('backup.') ? { backup: { schedule: '@daily' } } : {};
      expect(plain(render(spec))).to.not.deep.equal(plain(render(base)));
    });
  }

  it('have no budget for a single node', () => {
    expect(render({ replicas: 1 }).podDisruptionBudget).to.equal(undefined);
  });
});

describe('a set that exists', () => {
  const { statefulSet } = render({});
  const asStored = {
    ...statefulSet,
    spec: {
      ...statefulSet.spec,
      selector: { matchLabels: { legacy: 'yes' } },
      serviceName: 'legacy',
      template: {},
      volumeClaimTemplates: [
        {
          apiVersion: 'v1',
          kind: 'PersistentVolumeClaim',
          metadata: { name: 'data' },
          spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '9Gi' } } },
          status: { phase: 'Pending' },
        },
      ],
    },
  };
  const rebuild = (live: typeof statefulSet) => {
    const parsed = parseKVCluster(
      parse('{apiVersion: kvcluster.io/v1alpha1, kind: KVCluster, metadata: {name: demo}}'),
    );
    if (!parsed.ok) throw new Error(parsed.problems.join());
    return buildStatefulSet({
      cluster: demo,
      spec: parsed.cluster.spec,
      replicas: 3,
      workers: 1,
      image: 'kv:default',
      live,
    });
  };

  it('keeps what cannot be changed', () => {
    const { spec } = rebuild(asStored);
    expect(spec?.selector).to.deep.equal({ matchLabels: { legacy: 'yes' } });
    expect(spec?.serviceName).to.equal('legacy');
    expect(spec?.volumeClaimTemplates?.[0]?.spec?.resources?.requests).to.deep.equal({ storage: '9Gi' });
    expect(spec?.volumeClaimTemplates?.[0]?.status).to.equal(undefined);
  });

  it('is rendered as it was before it existed, whatever the API server filled in', () => {
    const defaulted = structuredClone(statefulSet);
    const template = defaulted.spec?.volumeClaimTemplates?.[0];
    if (template?.spec !== undefined) template.spec.volumeMode = 'Filesystem';
    expect(hashOf(rebuild(defaulted))).to.equal(hashOf(rebuild(statefulSet)));
    expect(hashOf(rebuild(defaulted))).to.equal(hashOf(statefulSet));
  });
});

describe('the published map', () => {
  it('comes back as it was written', () => {
    expect(readTopology(buildTopology(demo, demoMap()))).to.deep.equal({ kind: 'map', map: demoMap() });
  });

  it('is none when there is no ConfigMap', () => {
    expect(readTopology(undefined)).to.deep.equal({ kind: 'none' });
  });

  for (const [what, text] of [
    ['edited', JSON.stringify({ ...demoMap(), partitions: 9 })],
    ['cut', '{"epoch":'],
  ] as const) {
    it(`is damaged when it was ${what}`, () => {
      const configMap = { ...buildTopology(demo, demoMap()), data: { 'map.json': text } };
      expect(readTopology(configMap).kind).to.equal('damaged');
    });
  }
});
