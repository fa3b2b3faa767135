import { expect } from 'chai';
import type { AdminClient, AdminTarget } from '../../../client/admin-client.ts';
import { nodeStatusOf, viewNodes } from '../../../operator/nodes.ts';
import type { Json } from '../../../operator/runtime/api.ts';
import type { V1Pod } from '../../../operator/runtime/kubernetes.ts';
import { memberOfNode } from '../../../operator/steps/members.ts';
import { answerOf, demo, podOf } from '../../support/operator-fixtures.ts';

/** A pod whose container was started with these arguments. */
function podWith(name: string, ...args: readonly string[]): Json<V1Pod> {
  const pod = podOf(name);
  return { ...pod, spec: { containers: [{ name: 'node', image: 'kv:1', args: ['node', ...args] }] } };
}

async function look(
  pods: readonly Json<V1Pod>[],
  { workers = 1, expected = pods.map(({ metadata }) => metadata.name) } = {},
) {
  const asked: AdminTarget[] = [];
  const admin = {
    status: (target: AdminTarget) => {
      asked.push(target);
      return Promise.resolve(answerOf(target.nodeId));
    },
  } as unknown as AdminClient;
  const facts = { cluster: demo, clusterDomain: 'cluster.local', claimOf: () => undefined };
  const nodes = await viewNodes({ ...facts, pods, workers, expected, admin }, new AbortController().signal);
  return { asked, nodes, names: nodes.map(({ nodeId }) => nodeId) };
}

describe('viewNodes', () => {
  it('asks the one node of a pod on its peer port, by the name of the pod', async () => {
    const { asked } = await look([podWith('demo-0')]);
    expect(asked).to.deep.equal([
      { nodeId: 'demo-0', address: '10.0.0.1:50052', authority: 'demo-0.demo-headless.ns.svc.cluster.local' },
    ]);
  });

  it('asks each of several nodes on its own port, by the name of the pod that it is in', async () => {
    const { asked } = await look([podWith('demo-0', '--workers=3')]);
    const authority = 'demo-0.demo-headless.ns.svc.cluster.local';
    expect(asked).to.deep.equal([
      { nodeId: 'demo-0', address: '10.0.0.1:50052', authority },
      { nodeId: 'demo-0-w1', address: '10.0.0.1:50152', authority },
      { nodeId: 'demo-0-w2', address: '10.0.0.1:50252', authority },
    ]);
  });

  it('sees in each pod the nodes that it was started with, whatever the others have', async () => {
    const { names } = await look([podWith('demo-0'), podWith('demo-1', '--workers=2')], { workers: 2 });
    expect(names).to.deep.equal(['demo-0', 'demo-1', 'demo-1-w1']);
  });

  it('expects in a pod that is to come as many nodes as it will have', async () => {
    const { names } = await look([], { workers: 2, expected: ['demo-0'] });
    expect(names).to.deep.equal(['demo-0', 'demo-0-w1']);
  });

  it('shows the pod of a node that has another name', async () => {
    const { nodes } = await look([podWith('demo-0', '--workers=2')]);
    expect(nodes.map(nodeStatusOf).map(({ name, pod }) => [name, pod])).to.deep.equal([
      ['demo-0', undefined],
      ['demo-0-w1', 'demo-0'],
    ]);
  });
});

describe('the member that a node is', () => {
  const pod = podOf('demo-1');

  it('has the name and the ports of its pod where it is alone', () => {
    expect(memberOfNode({ podName: 'demo-1', worker: 0, workers: 1, pod })).to.deep.equal({
      nodeId: 'demo-1',
      host: 'demo-1',
      clientPort: 50_051,
      peerPort: 50_052,
      httpPort: 9090,
      zone: '',
      state: 'active',
      pod: 'demo-1',
    });
  });

  it('has ports of its own, and is in its pod, where there are several', () => {
    expect(memberOfNode({ podName: 'demo-1', worker: 1, workers: 2, pod })).to.include({
      nodeId: 'demo-1-w1',
      host: 'demo-1',
      pod: 'demo-1',
      clientPort: 50_151,
      peerPort: 50_152,
      httpPort: 9190,
    });
    expect(memberOfNode({ podName: 'demo-1', worker: 0, workers: 2, pod })).to.include({
      nodeId: 'demo-1',
      clientPort: 50_101,
      peerPort: 50_052,
      httpPort: 9140,
    });
  });
});
