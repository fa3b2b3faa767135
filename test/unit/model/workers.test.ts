import { expect } from 'chai';
import { MAX_WORKERS, workerName, workerNames, workerOf, workerPorts } from '../../../model/workers.ts';

const pod = { client: 50_051, peer: 50_052, http: 9090 };

describe('the workers of a pod', () => {
  it('are called after their pod, the first one as the pod itself', () => {
    expect(workerNames('kv-0', 3)).to.deep.equal(['kv-0', 'kv-0-w1', 'kv-0-w2']);
  });

  it('are told by their names, also where the name of the cluster looks like one', () => {
    for (const name of ['kv-0', 'a-w1-0']) {
      for (let worker = 0; worker < MAX_WORKERS; worker += 1) {
        expect(workerOf({ nodeId: workerName(name, worker), pod: name })).to.equal(worker);
      }
    }
  });

  it('have the ports of the pod when there is only one', () => {
    expect(workerPorts(pod, 0, 1)).to.deep.equal(pod);
  });

  it('listen a hundred ports apart, and leave the ports for everybody to the pod', () => {
    expect(workerPorts(pod, 0, 3)).to.deep.equal({ client: 50_101, peer: 50_052, http: 9140 });
    expect(workerPorts(pod, 1, 3)).to.deep.equal({ client: 50_151, peer: 50_152, http: 9190 });
    expect(workerPorts(pod, 2, 3)).to.deep.equal({ client: 50_251, peer: 50_252, http: 9290 });
  });

  it('never share a port, however many there are', () => {
    const all = Array.from({ length: MAX_WORKERS }, (_, worker) =>
      Object.values(workerPorts(pod, worker, MAX_WORKERS)),
    ).flat();
    const taken = [...all, pod.client, pod.http];
    expect(new Set(taken).size).to.equal(taken.length);
  });
});
