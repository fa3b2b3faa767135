import { expect } from 'chai';
import type { ClusterMap } from '../../../../model/cluster-map.ts';
import { Settlement } from '../../../../node/replication/anti-entropy/settlement.ts';
import { SAFETY_RULES } from '../../../../node/replication/safety-rules.ts';
import { mapOf, PARTITIONS } from './compared-nodes.ts';

const FOUND = { equal: true, horizonMs: 5 };

/** What kv-0 knows. */
class Known {
  map: ClusterMap = mapOf(3);
  barrier = 0;
  label = 'one';
  readonly readable = new Set([0, 1, 2, 3]);
  serving: readonly string[] = ['kv-1', 'kv-2'];
  readonly settlement: Settlement;

  constructor() {
    const map = (): ClusterMap => this.map;
    this.settlement = new Settlement({
      partitions: PARTITIONS,
      cluster: {
        nodeId: 'kv-0',
        get map() {
          return map();
        },
        barrierEpoch: () => this.barrier,
        label: () => this.label,
      },
      standing: { isReadable: (partition) => this.readable.has(partition) },
      rules: SAFETY_RULES,
      peers: () => this.serving.map((nodeId) => ({ nodeId, readableAt: () => true })),
    });
  }

  compared(peer: string, partition: number): void {
    this.settlement.complete(peer, partition, this.settlement.begin(), FOUND);
  }

  get filled(): readonly number[] {
    return this.settlement.filled().map(({ partition }) => partition);
  }
}

describe('what completed comparisons permit', () => {
  it('is nothing for a partition that lost its standing after they began', () => {
    const known = new Known();
    known.readable.delete(1);
    const begun = known.settlement.begin();
    known.compared('kv-1', 1);
    known.settlement.forget([1]);
    for (const peer of ['kv-1', 'kv-2']) known.settlement.complete(peer, 1, begun, FOUND);
    expect(known.filled).to.deep.equal([]);
    for (const peer of ['kv-1', 'kv-2']) known.compared(peer, 1);
    expect(known.filled).to.deep.equal([1]);
  });

  it('is no reading of a partition that was still readable when they began', () => {
    const known = new Known();
    const begun = known.settlement.begin();
    known.readable.delete(1);
    for (const peer of ['kv-1', 'kv-2']) known.settlement.complete(peer, 1, begun, FOUND);
    expect(known.filled).to.deep.equal([]);
  });

  it('is no reading by comparisons with owners that are not read from', () => {
    const known = new Known();
    known.map = mapOf(4, {
      assignment: Array.from({ length: PARTITIONS }, () => [1, 2]),
      moving: { phase: 1, partitions: [{ partition: 1, oldReplicas: [1, 2], newReplicas: [0, 3] }] },
    });
    known.readable.delete(1);
    known.serving = [];
    known.compared('kv-3', 1);
    expect(known.filled).to.deep.equal([]);
    expect(known.settlement.needsOf(known.map, 1)).to.deep.equal({
      needed: 1,
      sources: ['kv-1', 'kv-2'],
      compared: [],
      reachable: [],
    });
    known.compared('kv-2', 1);
    expect(known.filled).to.deep.equal([1]);
  });

  it('is remembered of sources that are gone, and no longer than the partition is filled and kept', () => {
    const known = new Known();
    known.readable.delete(1);
    known.compared('kv-1', 1);
    known.serving = ['kv-2'];
    known.settlement.prune();
    known.compared('kv-2', 1);
    expect(known.filled).to.deep.equal([1]);
    known.readable.add(1);
    known.settlement.prune();
    known.readable.delete(1);
    expect(known.filled).to.deep.equal([]);
    known.compared('kv-1', 1);
    known.map = mapOf(3, { assignment: Array.from({ length: PARTITIONS }, () => [1, 2]) });
    known.settlement.prune();
    known.map = mapOf(3);
    expect(known.settlement.isFilledFrom('kv-1', 1)).to.equal(false);
  });

  it('is the next phase of a move only where the partition is readable here as well', () => {
    const known = new Known();
    known.map = mapOf(3, {
      epoch: 4,
      moving: { phase: 1, partitions: [{ partition: 1, oldReplicas: [1, 2], newReplicas: [0, 1] }] },
    });
    known.barrier = 4;
    known.readable.delete(1);
    known.compared('kv-1', 1);
    expect(known.settlement.settledEpoch()).to.equal(0);
    known.readable.add(1);
    expect(known.settlement.settledEpoch()).to.equal(4);
    known.map = { ...known.map, moving: { phase: 2, partitions: known.map.moving?.partitions ?? [] } };
    expect(known.settlement.settledEpoch()).to.equal(0);
  });

  it('is no larger horizon for partitions that move', () => {
    const known = new Known();
    for (const peer of ['kv-1', 'kv-2'])
      for (let partition = 0; partition < PARTITIONS; partition += 1) known.compared(peer, partition);
    expect([...known.settlement.settled()]).to.deep.equal([0, 1, 2, 3]);
    known.map = mapOf(3, {
      moving: { phase: 1, partitions: [{ partition: 1, oldReplicas: [0, 1, 2], newReplicas: [0, 1] }] },
    });
    expect([...known.settlement.settled()]).to.deep.equal([0, 2, 3]);
  });

  it('keeps what is known under a label while the label is not known for a moment', () => {
    const known = new Known();
    for (const peer of ['kv-1', 'kv-2']) known.compared(peer, 2);
    known.label = '';
    known.compared('kv-1', 2);
    known.label = 'one';
    expect([...known.settlement.settled()]).to.deep.equal([2]);
  });

  it('counts what is equal with all others, and what differs from any', () => {
    const known = new Known();
    for (const peer of ['kv-1', 'kv-2']) for (const partition of [0, 1, 2]) known.compared(peer, partition);
    known.settlement.differs('kv-1', 2);
    known.settlement.complete('kv-2', 1, known.settlement.begin(), { equal: false, horizonMs: 0 });
    expect(known.settlement.equality()).to.deep.equal({ equal: 1, differing: 2 });
  });
});
