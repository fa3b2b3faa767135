import { expect } from 'chai';
import { abortReason } from '../../../common/clock.ts';
import { createLogger } from '../../../common/log.ts';
import {
  ApiError,
  type KubernetesApi,
  type KubernetesCall,
  type KubernetesObject,
  type WatchEvent,
} from '../../../operator/runtime/api.ts';
import { Informer, isAtLeast } from '../../../operator/runtime/informer.ts';
import { resources } from '../../../operator/runtime/resource.ts';
import { ManualTime } from '../../support/manual-time.ts';
import { seededRandom } from '../../support/seeded-random.ts';

/** An API server of one kind: what it lists, and watches that a test feeds, cuts and refuses. */
class ListAndWatch implements KubernetesApi {
  items: KubernetesObject[] = [];
  version = 1;
  lists = 0;
  failingLists = 0;
  readonly watchedFrom: string[] = [];
  private feed: ((event: WatchEvent | Error | 'end') => void) | undefined;

  request<T>(call: KubernetesCall): Promise<T> {
    expect(call.query?.['labelSelector']).to.equal('app=x');
    this.lists += 1;
    if (this.failingLists > 0) {
      this.failingLists -= 1;
      return Promise.reject(new ApiError(500, 'InternalError', 'not now'));
    }
    const page = { metadata: { resourceVersion: String(this.version) }, items: this.items };
    return Promise.resolve(structuredClone(page) as T);
  }

  async *watch(
    _path: string,
    query: Record<string, string>,
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent> {
    this.watchedFrom.push(query['resourceVersion'] ?? '');
    const events: (WatchEvent | Error | 'end')[] = [];
    let wake = (): void => undefined;
    this.feed = (event) => {
      events.push(event);
      wake();
    };
    signal.addEventListener('abort', () => wake());
    while (!signal.aborted) {
      const event = events.shift();
      if (event === 'end') return;
      if (event instanceof Error) throw event;
      if (event !== undefined) yield event;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
    throw abortReason(signal);
  }

  send(event: WatchEvent | Error | 'end'): void {
    this.feed?.(event);
  }
}

const pod = (name: string, resourceVersion = '1'): KubernetesObject => ({
  metadata: { name, namespace: 'ns', resourceVersion },
});

class Bench implements AsyncDisposable {
  readonly api = new ListAndWatch();
  readonly time = new ManualTime();
  readonly changes: string[] = [];
  readonly informer: Informer;
  private readonly stop = new AbortController();
  private readonly running: Promise<void>;

  constructor(items: KubernetesObject[] = [], failingLists = 0) {
    this.api.items = items;
    this.api.failingLists = failingLists;
    this.informer = new Informer({
      api: this.api,
      resource: resources.pods,
      labelSelector: 'app=x',
      clock: this.time.clock(),
      scheduler: this.time.scheduler(),
      random: seededRandom(7),
      log: createLogger({ level: 'silent' }),
      onChange: ({ metadata }) => this.changes.push(metadata.name),
    });
    this.running = this.informer.run(this.stop.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort(new Error('done'));
    await this.time.run(this.running);
  }
}

describe('Informer', () => {
  it('has synced after its first list, and follows the watch from there', async () => {
    await using bench = new Bench([pod('a')]);
    const { api, informer, time, changes } = bench;
    expect(informer.hasSynced).to.equal(false);
    await time.advance(0);
    expect(informer.hasSynced).to.equal(true);
    api.send({ type: 'ADDED', object: pod('b', '2') });
    api.send({ type: 'MODIFIED', object: pod('a', '3') });
    api.send({ type: 'DELETED', object: pod('b', '4') });
    await time.advance(0);
    expect(changes).to.deep.equal(['a', 'b', 'a', 'b']);
    expect(informer.get('ns', 'a')?.metadata.resourceVersion).to.equal('3');
    expect(informer.get('ns', 'b')).to.equal(undefined);
    expect(api.watchedFrom).to.deep.equal(['1']);
  });

  it('watches on from where it was when the server ends a watch', async () => {
    await using bench = new Bench();
    const { api, time } = bench;
    await time.advance(0);
    api.send({ type: 'BOOKMARK', object: pod('', '9') });
    api.send('end');
    await time.advance(0);
    expect(api.watchedFrom).to.deep.equal(['1', '9']);
    expect(api.lists).to.equal(1);
  });

  for (const [what, event] of [
    ['an expired version', { type: 'ERROR', object: { ...pod(''), code: 410 } }],
    ['an error of the server', { type: 'ERROR', object: { ...pod(''), code: 500 } }],
    ['a broken connection', new Error('socket hang up')],
  ] as const) {
    it(`lists again after ${what}, reports every object, and finds what was deleted meanwhile`, async () => {
      await using bench = new Bench([pod('a'), pod('gone')]);
      const { api, informer, time, changes } = bench;
      await time.advance(0);
      changes.length = 0;
      api.items = [pod('a', '5'), pod('new', '6')];
      api.send(event);
      await time.advance(1000);
      expect(api.lists).to.equal(2);
      expect(changes.toSorted()).to.deep.equal(['a', 'gone', 'new']);
      expect(informer.get('ns', 'gone')).to.equal(undefined);
    });
  }

  it('goes on trying while lists fail', async () => {
    await using bench = new Bench([pod('a')], 5);
    const { api, informer, time } = bench;
    await time.until('it has synced', () => informer.hasSynced, 120_000);
    expect(api.lists).to.equal(6);
  });

  it('gives up a watch that has died without a sign', async () => {
    await using bench = new Bench();
    const { api, time } = bench;
    await time.advance(600_000);
    expect(api.lists).to.be.at.least(2);
  });

  it('reports every object every ten minutes', async () => {
    await using bench = new Bench([pod('a')]);
    const { api, time, changes } = bench;
    for (let minute = 0; minute < 10; minute += 1) {
      await time.advance(60_000);
      api.send('end');
    }
    await time.advance(1000);
    expect(changes).to.deep.equal(['a', 'a']);
  });

  it('lets a writer wait until its write is seen, and not for ever', async () => {
    await using bench = new Bench([pod('a')]);
    const { api, informer, time } = bench;
    await time.advance(0);
    const seen = informer.waitUntil('ns', 'a', (object) => isAtLeast(object, '10'));
    api.send({ type: 'MODIFIED', object: pod('a', '10') });
    await time.run(seen, 0);
    await time.run(
      informer.waitUntil('ns', 'a', (object) => isAtLeast(object, '11')),
      5000,
    );
  });
});
