import { expect } from 'chai';
import type { NodeView } from '../../../operator/nodes.ts';
import { planRoll, type RollPlan } from '../../../operator/steps/rolling-update.ts';
import {
  demoMap,
  demoMapOfWorkers,
  members,
  peersOf,
  podOf,
  setOf,
  viewOf,
  viewsOfPod,
  workersByPod,
} from '../../support/operator-fixtures.ts';

const old = { revision: 'old' };

function plan(nodes: readonly NodeView[], set = setOf()): RollPlan {
  return planRoll({
    set,
    nodes,
    expected: members,
    down: new Set(),
    replicas: members.length,
    map: demoMap(),
  });
}

function summary(of: RollPlan): unknown {
  if (of.kind === 'evict') return ['evict', of.pod.metadata.name];
  if (of.kind === 'delete') return ['delete', ...of.pods.map(({ metadata }) => metadata.name)];
  return [of.kind];
}

describe('planRoll with several nodes in each pod', () => {
  const names = [...workersByPod.values()].flat();

  function planWorkers(
    nodes: readonly NodeView[],
    { map = demoMapOfWorkers(), down = [] as readonly string[] } = {},
  ): RollPlan {
    const expected = map.members.map(({ nodeId }) => nodeId);
    return planRoll({ set: setOf(), nodes, expected, down: new Set(down), replicas: members.length, map });
  }

  /** All pods of the old template, with changes of some. */
  function views(changes: Readonly<Record<string, Parameters<typeof viewsOfPod>[1]>> = {}): NodeView[] {
    return members.flatMap((pod) => viewsOfPod(pod, { pod: old, ...changes[pod] }));
  }

  it('evicts a pod with all of its nodes, one pod at a time', () => {
    expect(names).to.have.length(6);
    const first = planWorkers(views());
    expect(summary(first)).to.deep.equal(['evict', 'demo-2']);
    expect(first.kind === 'evict' && first.message).to.match(/^0 of 3 pods/);
  });

  for (const [what, answer] of [
    ['is not in sync', { inSync: false }],
    ['does not answer', null],
    ['is not ready', { ready: false }],
  ] as const) {
    it(`lets no pod go while the second node of another one ${what}, and names it`, () => {
      const result = planWorkers(views({ 'demo-1': { pod: {}, answers: [{}, answer] } }));
      expect(result.kind === 'wait' && result.message).to.match(/waiting for demo-1-w1 to be in sync/);
    });
  }

  it('waits for no node that the map does not list: the pods that have it come first', () => {
    const roll = [
      ...members.slice(0, 2).map((pod) => viewOf(pod, { pod: old })),
      ...viewsOfPod('demo-2', { answers: [{}, { ready: false, inSync: false, epoch: 0 }] }),
    ];
    expect(summary(planWorkers(roll, { map: demoMap() }))).to.deep.equal(['evict', 'demo-1']);
  });

  it('replaces at once a pod of which no node answers', () => {
    const dead = { pod: { ...old, ready: false }, answers: [null, null] };
    expect(summary(planWorkers(views({ 'demo-0': dead })))).to.deep.equal(['delete', 'demo-0']);
  });

  it('keeps pods of which a node serves and another does not, until that one has been down for long', () => {
    const cut = (...gone: readonly string[]) => ({
      peers: names
        .filter((name) => !gone.includes(name))
        .map((nodeId) => ({ ...peersOf('', [])[0]!, nodeId, connectedTo: names })),
    });
    const half = (pod: string) => ({
      pod: { ...old, ready: false },
      answers: [cut('demo-0-w1', 'demo-1-w1', pod), null],
    });
    const whole = {
      pod: {},
      answers: [cut('demo-0-w1', 'demo-1-w1', 'demo-2'), cut('demo-0-w1', 'demo-1-w1')],
    };
    const nodes = views({ 'demo-0': half('demo-0'), 'demo-1': half('demo-1'), 'demo-2': whole });
    expect(summary(planWorkers(nodes))).to.deep.equal(['wait']);
    expect(summary(planWorkers(nodes, { down: ['demo-0-w1'] }))).to.deep.equal(['wait']);
    const all = { down: ['demo-0', 'demo-0-w1', 'demo-1', 'demo-1-w1'] };
    const later = planWorkers(nodes, all);
    expect(later.kind === 'delete' && later.pods, 'one pod').to.have.length(1);
  });
});

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
