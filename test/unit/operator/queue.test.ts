import { expect } from 'chai';
import { type HandlerResult, WorkQueue } from '../../../operator/runtime/queue.ts';
import { ManualTime } from '../../support/manual-time.ts';
import { seededRandom } from '../../support/seeded-random.ts';

interface Bench {
  readonly time: ManualTime;
  readonly queue: WorkQueue;
  /** Keys in the order in which handling began, with the time. */
  readonly begun: { key: string; atMs: number }[];
  readonly errors: unknown[];
  /** Ends the oldest handling that is under way. */
  readonly finish: (result?: HandlerResult | Error) => Promise<void>;
}

function bench(concurrency = 1): Bench {
  const time = new ManualTime();
  const begun: Bench['begun'] = [];
  const errors: unknown[] = [];
  const pending: ((result: HandlerResult | Error) => void)[] = [];
  const queue = new WorkQueue({
    concurrency,
    backoff: { initialMs: 100, maxMs: 1000 },
    scheduler: time.scheduler(),
    random: seededRandom(1),
    handle: (key) => {
      begun.push({ key, atMs: time.monotonicMs });
      return new Promise((resolve, reject) => {
        pending.push((result) => {
          if (result instanceof Error) reject(result);
          else resolve(result);
        });
      });
    },
    onError: (_key, error) => errors.push(error),
  });
  const finish = async (result: HandlerResult | Error = {}): Promise<void> => {
    pending.shift()?.(result);
    await time.advance(0);
  };
  return { time, queue, begun, errors, finish };
}

describe('WorkQueue', () => {
  it('handles a key once however often it is added while it waits', async () => {
    const { queue, begun, finish } = bench();
    for (const key of ['a', 'b', 'b', 'b']) queue.add(key);
    await finish();
    await finish();
    expect(begun.map(({ key }) => key)).to.deep.equal(['a', 'b']);
    expect(queue.depth).to.equal(0);
  });

  it('never handles one key twice at a time, and once more when it was added meanwhile', async () => {
    const { queue, begun, finish } = bench(4);
    queue.add('a');
    queue.add('a');
    queue.add('a');
    expect(begun).to.have.length(1);
    await finish();
    expect(begun).to.have.length(2);
    await finish();
    expect(begun).to.have.length(2);
  });

  it('handles no more keys at a time than it may', async () => {
    const { queue, begun, finish } = bench(2);
    for (const key of ['a', 'b', 'c']) queue.add(key);
    expect(begun).to.have.length(2);
    await finish();
    expect(begun).to.have.length(3);
  });

  it('comes back after the time that the handler asked for, once', async () => {
    const { time, queue, begun, finish } = bench();
    queue.add('a');
    await finish({ requeueAfterMs: 500 });
    await time.advance(499);
    expect(begun).to.have.length(1);
    await time.advance(1);
    expect(begun.map(({ atMs }) => atMs)).to.deep.equal([0, 500]);
  });

  it('forgets the time asked for when the key is handled before', async () => {
    const { time, queue, begun, finish } = bench();
    queue.add('a');
    await finish({ requeueAfterMs: 500 });
    queue.add('a');
    await finish({});
    await time.advance(1000);
    expect(begun).to.have.length(2);
  });

  it('tries again after failures, each time later, and starts over after a success', async () => {
    const { time, queue, begun, errors, finish } = bench();
    queue.add('a');
    for (let failure = 0; failure < 5; failure += 1) {
      await finish(new Error('no'));
      await time.advance(1000);
    }
    const waits = begun.slice(1).map(({ atMs }, index) => atMs - (begun[index]?.atMs ?? 0));
    expect(errors).to.have.length(5);
    expect(waits).to.have.length(5);
    await finish({});
    queue.add('a');
    const before = time.monotonicMs;
    await finish(new Error('no'));
    await time.advance(100);
    expect((begun.at(-1)?.atMs ?? 0) - before).to.be.within(50, 100);
  });

  it('stops: nothing new begins, and it waits for what is under way', async () => {
    const { time, queue, begun, finish } = bench();
    queue.add('a');
    queue.add('b');
    let stopped = false;
    const stopping = queue.stop(new Error('stop')).then(() => (stopped = true));
    await time.advance(10);
    expect(stopped).to.equal(false);
    await finish({ requeueAfterMs: 1 });
    await stopping;
    queue.add('c');
    await time.advance(1000);
    expect(begun.map(({ key }) => key)).to.deep.equal(['a']);
  });
});
