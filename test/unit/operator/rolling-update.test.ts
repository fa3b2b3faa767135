import { expect } from 'chai';
import type { NodeView } from '../../../operator/nodes.ts';
import { planRoll, type RollPlan } from '../../../operator/steps/rolling-update.ts';
import { demoMap, members, peersOf, podOf, setOf, viewOf } from '../../support/operator-fixtures.ts';

const old = { revision: 'old' };

function plan(nodes: readonly NodeView[], set = setOf()): RollPlan {
  return planRoll({ set, nodes, expected: members, map: demoMap() });
}

function summary(of: RollPlan): unknown {
  if (of.kind === 'evict') return ['evict', of.node.nodeId];
  if (of.kind === 'delete') return ['delete', ...of.nodes.map(({ nodeId }) => nodeId)];
  return [of.kind];
}

describe('planRoll', () => {
  it('has nothing to do when every pod runs the new template', () => {
    expect(summary(plan(members.map((name) => viewOf(name))))).to.deep.equal(['done']);
  });

  it('evicts one pod, the last, when all are in sync', () => {
    expect(summary(plan(members.map((name) => viewOf(name, { pod: old }))))).to.deep.equal([
      'evict',
      'demo-2',
    ]);
  });

  it('goes on to the next pod when the replaced one is in sync', () => {
    const nodes = [viewOf('demo-0', { pod: old }), viewOf('demo-1', { pod: old }), viewOf('demo-2')];
    expect(summary(plan(nodes))).to.deep.equal(['evict', 'demo-1']);
  });

  for (const [what, third] of [
    ['is not in sync', viewOf('demo-2', { answer: { inSync: false } })],
    ['is not Ready', viewOf('demo-2', { pod: { ready: false } })],
    ['does not answer', viewOf('demo-2', { answer: null })],
    ['has no pod', viewOf('demo-2', { pod: null, answer: null })],
    ['is being deleted', viewOf('demo-2', { pod: { terminating: true } })],
    ['is about to stop', viewOf('demo-2', { answer: { draining: true } })],
  ] as const) {
    it(`waits while another node ${what}, and names it`, () => {
      const result = plan([viewOf('demo-0', { pod: old }), viewOf('demo-1', { pod: old }), third]);
      expect(result.kind).to.equal('wait');
      expect(result.kind === 'wait' && result.message).to.match(/1 of 3.*waiting for demo-2/);
    });
  }

  it('waits for a member whose pod has never been there', () => {
    expect(summary(plan([viewOf('demo-0', { pod: old }), viewOf('demo-1', { pod: old })]))).to.deep.equal([
      'wait',
    ]);
  });

  it('replaces all pods at once that do not serve, so that a corrected spec takes effect', () => {
    const broken = { pod: { ...old, ready: false, waiting: 'ImagePullBackOff' }, answer: null };
    const nodes = [viewOf('demo-0', broken), viewOf('demo-1', broken), viewOf('demo-2', { pod: old })];
    expect(summary(plan(nodes))).to.deep.equal(['delete', 'demo-0', 'demo-1']);
  });

  it('keeps a pod that is not Ready but alone completes a quorum', () => {
    const down = { pod: { ...old, ready: false }, answer: null };
    const cut = (name: string) => ({ peers: peersOf(name, ['demo-0']) });
    const nodes = [
      viewOf('demo-0', down),
      viewOf('demo-1', { pod: { ...old, ready: false }, answer: cut('demo-1') }),
      viewOf('demo-2', { answer: cut('demo-2') }),
    ];
    expect(summary(plan(nodes))).to.deep.equal(['delete', 'demo-0']);
  });

  it('leaves pods alone that are on their way out, or of another set', () => {
    const leaving = viewOf('demo-0', { pod: { ...old, terminating: true } });
    expect(summary(plan([leaving, viewOf('demo-1'), viewOf('demo-2')]))).to.deep.equal(['done']);
    const stranger = podOf('demo-0', old);
    const foreign = {
      ...viewOf('demo-0'),
      pod: { ...stranger, metadata: { ...stranger.metadata, ownerReferences: [] } },
    };
    expect(summary(plan([foreign, viewOf('demo-1'), viewOf('demo-2')]))).to.deep.equal(['done']);
  });

  it('does nothing before the controller has seen the newest template', () => {
    const nodes = members.map((name) => viewOf(name, { pod: old }));
    expect(summary(plan(nodes, setOf({ observedGeneration: 1 })))).to.deep.equal(['done']);
  });
});
