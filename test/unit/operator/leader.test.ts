import { expect } from 'chai';
import { ApiError, type KubernetesApi, type KubernetesCall } from '../../../operator/runtime/api.ts';
import { type Lease, LeaderElection, mayTake, observe } from '../../../operator/runtime/leader.ts';
import { createLogger } from '../../../common/log.ts';
import { ManualTime } from '../../support/manual-time.ts';
import { seededRandom } from '../../support/seeded-random.ts';

/** The one Lease of an API server, kept by compare-and-set. */
class LeaseStore implements KubernetesApi {
  lease: Lease | undefined;
  down = false;
  private version = 0;

  request<T>(call: KubernetesCall): Promise<T> {
    if (this.down) return Promise.reject(new ApiError(0, 'Timeout', 'no answer'));
    if (call.method === 'GET') {
      return this.lease === undefined
        ? Promise.reject(new ApiError(404, 'NotFound', 'not found'))
        : Promise.resolve(structuredClone(this.lease) as T);
    }
    const body = call.body as Lease;
    const isCurrent =
      call.method === 'POST'
        ? this.lease === undefined
        : body.metadata.resourceVersion === this.lease?.metadata.resourceVersion;
    if (!isCurrent) return Promise.reject(new ApiError(409, 'Conflict', 'changed'));
    this.version += 1;
    this.lease = { ...body, metadata: { ...body.metadata, resourceVersion: String(this.version) } };
    return Promise.resolve(this.lease as T);
  }

  // eslint-disable-next-line @typescript-eslint/require-await, require-yield
  async *watch(): AsyncGenerator<never> {
    throw new Error('nobody watches Leases');
  }
}

function election(store: LeaseStore, time: ManualTime, identity: string): LeaderElection {
  return new LeaderElection({
    api: store,
    namespace: 'ns',
    name: 'lease',
    identity,
    clock: time.clock(),
    scheduler: time.scheduler(),
    random: seededRandom(identity.length),
    log: createLogger({ level: 'silent' }),
  });
}

describe('LeaderElection', () => {
  it('gives the Lease to one of two, and to the other when it is released', async () => {
    const [store, time, running] = [new LeaseStore(), new ManualTime(), new AbortController()];
    const first = election(store, time, 'first');
    const second = election(store, time, 'second!');
    await time.run(first.acquire(running.signal));
    const keeping = first.keep(running.signal);
    const waiting = second.acquire(running.signal).catch(() => undefined);
    await time.advance(60_000);
    expect([first.isHeld(), second.isHeld()]).to.deep.equal([true, false]);
    running.abort(new Error('stop'));
    await time.run(keeping);
    await time.run(waiting);
    await first.release();
    expect(store.lease?.spec?.holderIdentity).to.equal('');
    const before = time.monotonicMs;
    await time.run(second.acquire(new AbortController().signal));
    expect(time.monotonicMs - before).to.be.below(3000);
  });

  it('takes over from a holder that has gone silent, not before its Lease has expired', async () => {
    const [store, time] = [new LeaseStore(), new ManualTime()];
    const { signal } = new AbortController();
    await time.run(election(store, time, 'first').acquire(signal));
    const second = election(store, time, 'second!');
    const before = time.monotonicMs;
    await time.run(second.acquire(signal));
    expect(time.monotonicMs - before).to.be.within(15_000, 20_000);
    expect(store.lease?.spec?.leaseTransitions).to.equal(2);
  });

  it('tells the holder that the Lease is lost before anybody else may take it', async () => {
    const [store, time] = [new LeaseStore(), new ManualTime()];
    const { signal } = new AbortController();
    const first = election(store, time, 'first');
    await time.run(first.acquire(signal));
    const lost = first.keep(signal).then(
      () => 'stopped',
      (error: unknown) => String(error),
    );
    store.down = true;
    const before = time.monotonicMs;
    expect(await time.run(lost)).to.match(/lost/);
    expect(time.monotonicMs - before).to.be.at.most(10_000);
    expect(first.isHeld()).to.equal(false);
  });

  it('survives a short outage of the API server', async () => {
    const [store, time, running] = [new LeaseStore(), new ManualTime(), new AbortController()];
    const first = election(store, time, 'first');
    await time.run(first.acquire(running.signal));
    const keeping = first.keep(running.signal);
    store.down = true;
    await time.advance(5000);
    store.down = false;
    await time.advance(30_000);
    expect(first.isHeld()).to.equal(true);
    running.abort(new Error('stop'));
    await time.run(keeping);
  });

  it('loses the Lease when somebody else has written it', async () => {
    const [store, time] = [new LeaseStore(), new ManualTime()];
    const { signal } = new AbortController();
    const first = election(store, time, 'first');
    await time.run(first.acquire(signal));
    const lost = first.keep(signal).catch((error: unknown) => String(error));
    const { lease } = store;
    if (lease === undefined) throw new Error('there is no Lease');
    store.lease = { ...lease, spec: { ...lease.spec, holderIdentity: 'thief' } };
    expect(await time.run(lost)).to.match(/lost/);
  });
});

describe('mayTake', () => {
  const lease = (holderIdentity: string, resourceVersion = '1'): Lease => ({
    metadata: { name: 'lease', resourceVersion },
    // A holder whose wall clock is far off: only our own observation counts.
    spec: { holderIdentity, leaseDurationSeconds: 15, renewTime: '1999-01-01T00:00:00.000000Z' },
  });

  it('judges expiry by how long the Lease has looked the same to us', () => {
    const seen = observe(lease('other'), undefined, 1000);
    expect(mayTake(lease('other'), seen, 'me', 16_000)).to.equal(false);
    expect(mayTake(lease('other'), seen, 'me', 16_001)).to.equal(true);
    expect(observe(lease('other'), seen, 9000)).to.equal(seen);
    expect(observe(lease('other', '2'), seen, 9000).sinceMs).to.equal(9000);
  });

  it('takes what is free or its own', () => {
    const seen = { resourceVersion: '1', sinceMs: 0 };
    expect(mayTake(lease(''), seen, 'me', 1)).to.equal(true);
    expect(mayTake(lease('me'), seen, 'me', 1)).to.equal(true);
  });
});
