import { expect } from 'chai';
import { CONTENDERS } from '../../bench/bench.ts';
import { goalsOf } from '../../bench/cells/goals.ts';
import { median, type Summary } from '../../bench/cells/measure.ts';
import { keyChooser, scattered } from '../../bench/load/key-chooser.ts';
import type { KeyChoice } from '../../bench/load/work.ts';
import { keyName, work } from '../../bench/load/work.ts';
import { Results } from '../../bench/results.ts';
import { parseEtcdBenchmark } from '../../bench/tools/etcd-benchmark.ts';
import { parseRedisBenchmark } from '../../bench/tools/redis-benchmark.ts';
import { seededRandom } from '../../support/seeded-random.ts';

const KEYS = 10_000;
const DRAWS = 200_000;

/** How often each key was chosen, the most popular first. */
function popularity(choice: KeyChoice): number[] {
  const random = seededRandom(7);
  const chooser = keyChooser(choice, KEYS, () => random.fraction());
  const counts = new Array<number>(KEYS).fill(0);
  for (let draw = 0; draw < DRAWS; draw += 1) {
    const index = chooser.next();
    counts[index] = (counts[index] ?? NaN) + 1;
  }
  return counts.toSorted((a, b) => b - a);
}

const share = (counts: readonly number[]): number => counts.reduce((sum, count) => sum + count, 0) / DRAWS;

describe('the keys of the benchmark', () => {
  it('are sixteen bytes each and all different', () => {
    const names = new Set(Array.from({ length: 1000 }, (_, index) => keyName('k', index)));
    expect([...names].every(({ length }) => length === 16)).to.equal(true);
    expect(names.size).to.equal(1000);
  });

  it('are loaded in an order that leaves none out', () => {
    expect(new Set(Array.from({ length: KEYS }, (_, index) => scattered(index, KEYS))).size).to.equal(KEYS);
  });

  it('are chosen with the skew that a workload names', () => {
    expect(popularity('uniform')[0]).to.be.below(60);
    expect(share(popularity('hot-cold').slice(0, KEYS / 10))).to.be.closeTo(0.9, 0.01);
    // 1 / zeta(10,000, 0.99).
    expect(share(popularity('zipfian').slice(0, 1))).to.be.closeTo(0.098, 0.005);
    expect(share(popularity('latest').slice(0, 1))).to.be.closeTo(0.098, 0.005);
  });
});

describe('the figures of the load generators', () => {
  it('are read from what etcd prints', () => {
    const output = `
Summary:
  Total:\t2.5 secs.
  Slowest:\t0.1 secs.
  Fastest:\t0.0003 secs.
  Average:\t0.01 secs.
  Stddev:\t0.01 secs.
  Requests/sec:\t4000.5

Latency distribution:
  50% in 0.016 secs.
  90% in 0.03 secs.
  99% in 0.0852629 secs.
  99.9% in 9.5e-02 secs.
`;
    expect(parseEtcdBenchmark(output)).to.deep.include({
      operations: 10_001,
      opsPerSecond: 4000.5,
      p50Ms: 16,
      p999Ms: 95,
      maxMs: 100,
      errors: 0,
    });
    expect(parseEtcdBenchmark(`${output}\nError distribution:\n  [3]\tgone`)).to.deep.include({ errors: 1 });
    expect(() => parseEtcdBenchmark('panic: no etcd')).to.throw(/no figures/);
  });

  it('are read from what Redis prints', () => {
    const output = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","42000.00","1.1","0.3","1.0","2.0","3.5","9.9"
`;
    const wanted = { operations: 500, opsPerSecond: 42_000, p50Ms: 1, p99Ms: 3.5, maxMs: 9.9 };
    expect(parseRedisBenchmark(output, 500)).to.deep.include(wanted);
  });
});

describe('the goals of the benchmark', () => {
  const summary = (contender: string, opsPerSecond: number, misses = 0): Summary => ({
    ...{ contender, opsPerSecond, misses, operations: 1000, errors: 0, firstError: undefined },
    ...{ p50Ms: 1, p90Ms: 1, p99Ms: 1, p999Ms: 1, maxMs: 1, longestPauseMs: 1, serverCpus: 1, rounds: [] },
  });
  const goalOf = (ours: Summary) => {
    const results = new Results(() => undefined);
    const summaries = [ours, summary(CONTENDERS.etcd3Node, 3000), summary(CONTENDERS.etcd3Tool, 5000)];
    results.addCell({ id: 'put-3-100', title: 'put', work: work({}), summaries });
    return goalsOf(results).find(({ title }) => title.includes('durable put at QUORUM, our client, 100'));
  };

  it('are ratios to the faster client of etcd', () => {
    expect(goalOf(summary(CONTENDERS.kv3, 10_000))).to.deep.include({ value: 2, isReached: true });
    expect(goalOf(summary(CONTENDERS.kv3, 9000))).to.deep.include({ value: 1.8, isReached: false });
  });

  it('are not reached by answers that are wrong', () => {
    expect(goalOf(summary(CONTENDERS.kv3, 20_000, 1))).to.deep.include({ isReached: false });
  });

  it('are neither reached nor missed when nothing was measured', () => {
    const goals = goalsOf(new Results(() => undefined));
    expect(goals).to.have.lengthOf(31);
    expect(goals.every(({ isReached }) => isReached === undefined)).to.equal(true);
  });

  it('are medians of rounds', () => {
    expect([median([3, 1, 2]), median([4, 1, 3, 2])]).to.deep.equal([2, 2.5]);
  });
});
