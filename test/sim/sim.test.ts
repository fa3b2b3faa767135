import { expect } from 'chai';
import { missing } from './coverage.ts';
import { COMPANIONS, PLANTED_BUGS, PLANTED_RULES } from './planted-bugs.ts';
import { REGRESSIONS } from './regressions.ts';
import { simulate } from './simulate.ts';
import { Sweep } from './sweep.ts';

/** What CI runs; `npm run test:sim -- --seeds N --from M` runs others. */
const SEEDS = 380;
const WORKERS = 2;
/** Far more than it takes, for a machine that does other things too. */
const SWEEP_LIMIT_MS = 900_000;
const SEED_LIMIT_MS = 60_000;

const violationsOf = async (options: Parameters<typeof simulate>[0]): Promise<readonly string[]> =>
  (await simulate(options)).violations.map(({ invariant, what }) => `${invariant}: ${what}`);

describe('whole clusters in simulated time, with faults from a seed', () => {
  it('go the same way twice for one seed', async () => {
    const once = await simulate({ seed: 7 });
    const again = await simulate({ seed: 7 });
    expect(again.hash).to.equal(once.hash);
    expect(again.events).to.equal(once.events);
    expect((await simulate({ seed: 8 })).hash).not.to.equal(once.hash);
  }).timeout(SEED_LIMIT_MS);

  it(`keep every promise in ${SEEDS} seeds, in which everything happens`, async () => {
    const progress = await Sweep.run({ from: 1, seeds: SEEDS, workers: WORKERS });
    const failures = progress.failures.map(
      ({ seed, invariant, what }) => `SEED=${seed} npm run test:sim: ${invariant}: ${what}`,
    );
    expect(failures).to.deep.equal([]);
    const rare = missing(progress.rowSeeds, SEEDS).map(({ row, seeds }) => `${row.name}: in ${seeds}`);
    expect(rare).to.deep.equal([]);
  }).timeout(SWEEP_LIMIT_MS);

  describe('notice every rule that is broken on purpose:', () => {
    it('all of them', () => {
      const known = [...PLANTED_BUGS.map(({ rule }) => rule), ...Object.values(COMPANIONS)];
      expect(known.sort()).to.deep.equal([...PLANTED_RULES].sort());
    });

    for (const { rule, seed } of PLANTED_BUGS) {
      it(`${rule}, in seed ${seed}`, async () => {
        expect(await violationsOf({ seed, broken: rule })).not.to.deep.equal([]);
        expect(await violationsOf({ seed }), 'the same seed with the rule').to.deep.equal([]);
      }).timeout(2 * SEED_LIMIT_MS);
    }
  });

  for (const { seed, showed } of REGRESSIONS) {
    it(`no longer ${showed} (seed ${seed})`, async () => {
      expect(await violationsOf({ seed })).to.deep.equal([]);
    }).timeout(SEED_LIMIT_MS);
  }
});
