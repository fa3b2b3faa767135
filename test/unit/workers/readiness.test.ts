import { expect } from 'chai';
import type { WorkerState } from '../../../node/workers/messages.ts';
import { podNotReadyReason, servingWorkers } from '../../../node/workers/readiness.ts';

const both = ['kv-0', 'kv-0-w1'];
const ready = (podMembers: readonly string[] = both): WorkerState => ({ listening: true, podMembers });
const waiting = (notReadyReason: string, podMembers: readonly string[] = both): WorkerState => ({
  listening: true,
  notReadyReason,
  podMembers,
});

function reason(...states: readonly (WorkerState | undefined)[]): string | undefined {
  return podNotReadyReason(states.map((state, worker) => ({ nodeId: both[worker] ?? '', state })));
}

describe('a pod of several workers', () => {
  it('is ready when all of them are', () => {
    expect(reason(ready(), ready())).to.equal(undefined);
  });

  it('is not while one is not, and says which and why', () => {
    expect(reason(ready(), waiting('fills'))).to.equal('kv-0-w1: fills');
    expect(reason(ready(), undefined)).to.equal('kv-0-w1: not running');
    expect(reason(waiting('a'), waiting('b'))).to.equal('kv-0: a; kv-0-w1: b');
  });

  it('does not wait for a worker that no map lists', () => {
    expect(reason(ready(['kv-0']), waiting('no map', []))).to.equal(undefined);
  });

  it('waits for one that has lost its map when the map of another lists it', () => {
    expect(reason(ready(), waiting('no map', []))).to.equal('kv-0-w1: no map');
  });

  it('is not ready while nobody has a map', () => {
    expect(reason(waiting('no map', []), waiting('no map', []))).to.match(/no map/);
  });

  it('hands clients to workers that are ready, and to any that listen when none is', () => {
    const seen = (state: WorkerState | undefined, worker: number) => ({ nodeId: both[worker] ?? '', state });
    const [a, b] = [seen(ready(), 0), seen(waiting('fills'), 1)];
    expect(servingWorkers([a, b])).to.deep.equal([a]);
    expect(servingWorkers([b, seen(undefined, 0)])).to.deep.equal([b]);
    expect(servingWorkers([seen(undefined, 0), seen({ listening: false, podMembers: [] }, 1)])).to.deep.equal(
      [],
    );
  });
});
