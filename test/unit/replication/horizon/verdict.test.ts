import { expect } from 'chai';
import fc from 'fast-check';
import { sealMap } from '../../../../model/cluster-map.ts';
import { PartitionSet } from '../../../../node/cluster/partition-set.ts';
import { type CollectionVerdict, judgeCollection } from '../../../../node/replication/horizon/verdict.ts';
import { SAFETY_RULES } from '../../../../node/replication/safety-rules.ts';
import { memberNamed } from '../../../support/member.ts';

const NAMES = ['kv-0', 'kv-1', 'kv-2'];
const NOW_MS = 1_800_000_000_000;
const AGE_MS = 60_000;
const STEP_MS = 1000;
const LABEL = Buffer.from('label');
const MAP = sealMap({
  clusterId: 'c0ffee00c0ffee00c0ffee00c0ffee00',
  namespace: 'default',
  name: 'kv',
  epoch: 1,
  partitions: 1,
  replicationFactor: 3,
  initialised: true,
  members: NAMES.map(memberNamed),
  retired: [],
  assignment: [[0, 1, 2]],
});

describe('how far collection may go', () => {
  const judge = (
    lowWaterMs: readonly number[],
    { wallMs = NOW_MS, latestWallMs = wallMs }: { wallMs?: number; latestWallMs?: number } = {},
  ): CollectionVerdict =>
    judgeCollection({
      nodeId: 'kv-0',
      map: MAP,
      label: { kind: 'known', bytes: LABEL },
      member: (nodeId) => ({
        kind: 'heard',
        report: {
          lowWaterMs: lowWaterMs[NAMES.indexOf(nodeId)] ?? 0,
          label: LABEL,
          settled: PartitionSet.of([0], 1),
        },
      }),
      wallMs,
      latestWallMs,
      ageMs: AGE_MS,
      stepMs: STEP_MS,
      slowMs: 120_000,
      rules: SAFETY_RULES,
    });

  it('is an age before the lowest of the low water marks', () => {
    const { targetMs, freezeOf } = judge([NOW_MS - 1000, NOW_MS - 7000, NOW_MS - 3000]);
    expect(targetMs).to.equal(NOW_MS - 7000 - AGE_MS);
    expect(freezeOf(0)).to.equal(undefined);
  });

  it('is an age before the wall clock where all low water marks are ahead of it', () => {
    const { targetMs, lowWaterMs } = judge([NOW_MS + 4096, NOW_MS + 9000, NOW_MS + 30_000]);
    expect(targetMs).to.equal(NOW_MS - AGE_MS);
    expect(lowWaterMs, 'the mark itself').to.equal(NOW_MS + 4096);
  });

  it('goes by the low water marks alone where this clock is known to be off', () => {
    const behind = { wallMs: NOW_MS - 3_600_000, latestWallMs: NOW_MS };
    expect(judge([NOW_MS, NOW_MS, NOW_MS], behind).targetMs).to.equal(NOW_MS - AGE_MS);
  });

  it('comes in steps, is never younger than the age, and never frees what one member has not got', () => {
    const nearbyMs = fc.integer({ min: NOW_MS - 200_000, max: NOW_MS + 200_000 });
    fc.assert(
      fc.property(nearbyMs, fc.tuple(nearbyMs, nearbyMs, nearbyMs), (wallMs, lowWaterMs) => {
        const { targetMs } = judge(lowWaterMs, { wallMs });
        const limitMs = Math.min(wallMs, ...lowWaterMs) - AGE_MS;
        expect(targetMs % STEP_MS).to.equal(0);
        expect(targetMs).to.be.within(limitMs - STEP_MS + 1, limitMs);
      }),
    );
  });
});
