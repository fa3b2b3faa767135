import { expect } from 'chai';
import { segmentsToDrop } from '../../../node/storage/log-trim.ts';

const HOUR = 3_600_000;

describe('which segments of the log can go', () => {
  const segments = [1, 101, 201, 301].map((firstSequence, index) => ({
    firstSequence,
    madeAtMs: index * HOUR,
    bytes: 1000,
  }));
  const caps = { logBytes: 10_000, logAgeMs: 24 * HOUR, logKeepMs: 0.5 * HOUR };
  const progress = { checkpointed: 1000, acknowledged: 1000, nowMs: 4 * HOUR };
  const cases = [
    { name: 'all but the newest, when all is done with', drops: 3 },
    { name: 'none whose newest entry is too young', progress: { nowMs: 2.2 * HOUR }, drops: 1 },
    {
      name: 'also young ones beyond the cap',
      progress: { nowMs: 3.1 * HOUR },
      caps: { logBytes: 1500 },
      drops: 3,
    },
    { name: 'none that the state does not hold', progress: { checkpointed: 99 }, drops: 0 },
    { name: 'those that the state holds to the end', progress: { checkpointed: 200 }, drops: 2 },
    { name: 'none that a peer has yet to acknowledge', progress: { acknowledged: 150 }, drops: 1 },
    {
      name: 'as many as it takes to be below the cap',
      progress: { acknowledged: 0 },
      caps: { logBytes: 2500 },
      drops: 2,
    },
    {
      name: 'none beyond the cap that the state does not hold',
      progress: { checkpointed: 100, acknowledged: 0 },
      caps: { logBytes: 1 },
      drops: 1,
    },
    {
      name: 'those whose newest entry is too old',
      progress: { acknowledged: 0, nowMs: 26.5 * HOUR },
      drops: 2,
    },
  ];
  for (const { name, drops, ...changes } of cases) {
    it(name, () => {
      expect(
        segmentsToDrop(segments, { ...progress, ...changes.progress }, { ...caps, ...changes.caps }),
      ).to.equal(drops);
    });
  }
});
