import { expect } from 'chai';
import { measured } from '../support/measured.ts';
import { recordTrace, replay } from './trace.ts';

/** Given by hand: everything is replayed, and not a sample. */
const ALL = process.env['KVCLUSTER_MINUTES'] !== undefined;
const SEEDS = ALL ? [1, 2, 3] : [1];
const SAMPLE_EVERY = 60;

describe('a recorded trace of a store, replayed to where power was lost', function () {
  this.timeout(ALL ? 3_600_000 : 60_000);

  for (const seed of SEEDS) {
    it(`recovers what was acknowledged, whatever unsynced change was lost (seed ${seed})`, async () => {
      const trace = await recordTrace(seed);
      const kinds = Map.groupBy(trace.machine.disk.events, ({ kind }) => kind);
      // What the trace is about.
      for (const [kind, least] of [
        ['create', 8],
        ['remove', 3],
        ['sync', 50],
      ] as const)
        expect(kinds.get(kind)?.length ?? 0, kind).to.be.at.least(least);
      const { prefixes, crashes } = await replay(trace, (event) => ALL || event % SAMPLE_EVERY === seed);
      measured(`${crashes} crashes after ${prefixes} of ${trace.machine.now} events`);
      expect(crashes).to.be.greaterThan(prefixes);
    });
  }
});
