import { expect } from 'chai';
import { annotations } from '../../../operator/resources/names.ts';
import { hashOf, reasonToWrite } from '../../../operator/runtime/apply.ts';
import { firstDifference } from '../../../operator/runtime/live-compare.ts';

describe('firstDifference', () => {
  it('ignores what others added: defaults, fields, list items that are told apart by name', () => {
    const rendered = { spec: { replicas: 3, containers: [{ name: 'node', image: 'kv:1' }] } };
    const live = {
      spec: {
        replicas: 3,
        revisionHistoryLimit: 10,
        containers: [
          { name: 'sidecar', image: 'other' },
          { name: 'node', image: 'kv:1', imagePullPolicy: 'IfNotPresent' },
        ],
      },
      status: {},
    };
    expect(firstDifference(rendered, live)).to.equal(undefined);
  });

  it('takes quantities of the same amount for the same, where quantities stand', () => {
    const rendered = { resources: { requests: { cpu: '1000m', memory: '1024Mi' }, limits: { cpu: '0.5' } } };
    const live = { resources: { requests: { cpu: '1', memory: '1Gi' }, limits: { cpu: '500m' } } };
    expect(firstDifference(rendered, live)).to.equal(undefined);
    expect(
      firstDifference({ env: [{ name: 'A', value: '1000m' }] }, { env: [{ name: 'A', value: '1' }] }),
    ).to.equal('env.A.value');
    expect(firstDifference({ requests: { cpu: '2' } }, { requests: { cpu: '1' } })).to.equal('requests.cpu');
  });

  for (const [what, rendered, live, path] of [
    ['a changed leaf', { a: { b: 1 } }, { a: { b: 2 } }, 'a.b'],
    ['a missing leaf', { a: { b: false } }, { a: {} }, 'a.b'],
    ['a missing branch', { a: { b: 1 } }, {}, 'a.b'],
    ['a missing container', { containers: [{ name: 'x' }] }, { containers: [] }, 'containers.x.name'],
    ['another length of a plain list', { drop: ['ALL'] }, { drop: ['ALL', 'CHOWN'] }, 'drop'],
    ['another order of a plain list', { args: ['a', 'b'] }, { args: ['b', 'a'] }, 'args.0'],
    [
      'another owner',
      { ownerReferences: [{ uid: '2' }] },
      { ownerReferences: [{ uid: '1' }] },
      'ownerReferences.2.uid',
    ],
  ] as const) {
    it(`finds ${what}`, () => {
      expect(firstDifference(rendered, live)).to.equal(path);
    });
  }
});

describe('reasonToWrite', () => {
  const rendered = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'demo', namespace: 'ns' },
    spec: { type: 'ClusterIP' },
  };
  const hash = hashOf(rendered);
  const live = (appliedHash: string, spec: object) => ({
    metadata: { ...rendered.metadata, annotations: { [annotations.appliedHash]: appliedHash } },
    spec,
  });

  it('is none for an object as rendered, also when others added to it', () => {
    expect(reasonToWrite(rendered, hash, live(hash, { type: 'ClusterIP', clusterIP: '10.0.0.1' }))).to.equal(
      undefined,
    );
  });

  it('is a missing object, another rendering, or a leaf that somebody changed', () => {
    expect(reasonToWrite(rendered, hash, undefined)).to.match(/does not exist/);
    expect(reasonToWrite(rendered, hash, live('old', { type: 'ClusterIP' }))).to.match(/has changed/);
    expect(reasonToWrite(rendered, hash, live(hash, { type: 'NodePort' }))).to.match(/spec\.type/);
  });
});
