import { expect } from 'chai';
import { ownedMetadata, ownerReferenceTo } from '../../../operator/resources/names.ts';
import type { ObjectMeta } from '../../../operator/runtime/api.ts';
import { ownershipOf } from '../../../operator/runtime/ownership.ts';
import { demo } from '../../support/operator-fixtures.ts';

describe('ownershipOf', () => {
  const ours: ObjectMeta = ownedMetadata(demo, 'demo', 'node');
  const ownerless: ObjectMeta = { ...ours, ownerReferences: [] };
  const owner = ownerReferenceTo(demo);
  const deletionTimestamp = '2030-01-01T00:00:00Z';

  for (const [what, metadata, expected] of [
    ['an owned object', ours, 'ours'],
    ['an orphan with our marks', ownerless, 'ours'],
    ['an owned object that is being deleted', { ...ours, deletionTimestamp }, 'earlier'],
    [
      'the object of an earlier KVCluster',
      { ...ours, ownerReferences: [{ ...owner, uid: 'old' }] },
      'earlier',
    ],
    [
      'an object of another KVCluster',
      { ...ours, ownerReferences: [{ ...owner, uid: 'x', name: 'y' }] },
      'foreign',
    ],
    [
      'an object of another controller',
      { ...ours, ownerReferences: [{ ...owner, uid: 'x', apiVersion: 'apps/v1', kind: 'Deployment' }] },
      'foreign',
    ],
    ['an unmarked object', { name: 'demo' }, 'foreign'],
    ['an orphan without the annotation', { ...ownerless, annotations: {} }, 'foreign'],
    [
      'an orphan of another cluster',
      { ...ownerless, labels: { ...ours.labels, 'app.kubernetes.io/instance': 'x' } },
      'foreign',
    ],
  ] as const) {
    it(`calls ${what} ${expected}`, () => {
      expect(ownershipOf({ metadata }, demo)).to.equal(expected);
    });
  }

  it('calls nothing absent', () => {
    expect(ownershipOf(undefined, demo)).to.equal('absent');
  });
});
