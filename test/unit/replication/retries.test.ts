import { expect } from 'chai';
import type { KvError } from '../../../common/errors.ts';
import type { RequestId } from '../../../proto/gen/kvstore.ts';
import { ReplicaCluster } from '../../support/replica-cluster.ts';

const SECOND = 1000;
const id = (number: number, attempt = 0): RequestId => ({
  clientId: Buffer.alloc(16, 4),
  number,
  clientStartMs: 1_800_000_000_000,
  attempt,
});

async function failureOf(promise: Promise<unknown>): Promise<KvError> {
  try {
    await promise;
  } catch (error) {
    return error as KvError;
  }
  throw new Error('it succeeded');
}

describe('writes that are sent again', () => {
  let cluster: ReplicaCluster;

  beforeEach(async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
  });

  afterEach(() => cluster.end());

  const put = (index: number, value: string, requestId: RequestId) =>
    cluster.put(index, 'k', value, { requestId });

  it('are applied once, whoever coordinates the retry', async () => {
    const first = await put(0, 'mine', id(1));
    for (const index of [0, 1, 2]) {
      expect((await put(index, 'mine', id(1, 1))).version, `at kv-${index}`).to.deep.equal(first.version);
    }
    expect((await put(0, 'mine', id(2))).version).not.to.deep.equal(first.version);
  });

  it('are not applied again above a later write', async () => {
    const first = await put(0, 'mine', id(1));
    await cluster.put(1, 'k', 'later');
    for (const index of [0, 1, 2]) {
      expect((await put(index, 'mine', id(1, 1))).version).to.deep.equal(first.version);
      expect(await cluster.get(index, 'k')).to.equal('later');
    }
  });

  it('are written when nobody has them', async () => {
    await put(1, 'mine', id(1, 3));
    expect(await cluster.get(2, 'k')).to.equal('mine');
    expect(cluster.node(1).counters.get('retries_written')).to.equal(1);
  });

  it('are answered with what they replaced, by the node that coordinated them', async () => {
    await cluster.put(0, 'k', 'before');
    await put(0, 'mine', id(1));
    expect((await put(0, 'mine', id(1, 1))).old?.value.toString()).to.equal('before');
    expect((await put(1, 'mine', id(1, 1))).old).to.equal(undefined);
  });

  it('are finished when their coordinator was killed in between', async () => {
    cluster.network.cut('kv-0', 'kv-2');
    const [first, second] = [id(1), id(1, 1)];
    const killed = cluster.replica(0).engine.put({
      key: Buffer.from('k'),
      value: Buffer.from('mine'),
      ttlMs: undefined,
      requestId: first,
      consistency: 'ALL',
      deadlineMs: cluster.time.monotonicMs + 5000,
    });
    killed.catch(() => undefined);
    await cluster.time.until('kv-1 has it', () => cluster.store(1).get(Buffer.from('k')) !== undefined);
    const { version } = cluster.store(1).get(Buffer.from('k')) ?? {};
    cluster.kill(0);
    expect((await put(2, 'mine', second)).version, 'by one that never saw it').to.deep.equal(version);
    expect(await cluster.get(2, 'k')).to.equal('mine');
    expect(cluster.node(2).counters.get('retries_finished')).to.equal(1);
  });

  it('are known again after all nodes have started anew', async () => {
    const first = await put(0, 'mine', id(1));
    // Nothing is left to be sent again afterwards.
    await cluster.time.advance(3 * SECOND);
    for (const index of [0, 1, 2]) cluster.kill(index);
    for (const index of [0, 1, 2]) await cluster.start(index);
    await cluster.inSync();
    // Until all have said that they serve again.
    await cluster.time.advance(SECOND);
    await cluster.put(1, 'k', 'later');
    expect((await put(2, 'mine', id(1, 1))).version).to.deep.equal(first.version);
    expect(await cluster.get(0, 'k')).to.equal('later');
  });

  it('have to wait while too few replicas can tell', async () => {
    await put(0, 'mine', id(1));
    cluster.wipe(1);
    cluster.kill(1);
    cluster.kill(2);
    cluster.wipe(2);
    await cluster.start(1);
    await cluster.start(2);
    const error = await failureOf(put(0, 'other', id(2, 1)));
    expect(error.code).to.equal('UNAVAILABLE');
  });

  it('are refused when they come too late', async () => {
    await put(0, 'mine', id(1));
    await cluster.time.advance(120 * SECOND);
    const error = await failureOf(put(0, 'mine', id(1, 1)));
    expect(error.code).to.equal('FAILED_PRECONDITION');
    await put(0, 'next', id(2, 1));
    expect(await cluster.get(0, 'k')).to.equal('next');
  });

  it('end above what was acknowledged before they began, although their first coordinator did not know it', async () => {
    // kv-0 is cut off while others write with a clock that is ahead; then it commits alone and dies.
    cluster.network.cut('kv-0', 'kv-1');
    cluster.network.cut('kv-0', 'kv-2');
    const ahead = cluster.node(1).running?.clock;
    if (ahead !== undefined) ahead.skewMs = 1500;
    const earlier = await cluster.put(1, 'k', 'earlier');
    const write = cluster.replica(0).engine.put({
      key: Buffer.from('k'),
      value: Buffer.from('mine'),
      ttlMs: undefined,
      requestId: id(1),
      consistency: 'ONE',
      deadlineMs: cluster.time.monotonicMs + 5000,
    });
    await cluster.time.run(write);
    cluster.network.heal();
    await cluster.connected();
    const { version } = await put(0, 'mine', id(1, 1));
    expect(version.wallMs).to.be.at.least(earlier.version.wallMs);
    expect(await cluster.get(2, 'k')).to.equal('mine');
  });
});

describe('a node whose clock is wrong', () => {
  let cluster: ReplicaCluster;

  beforeEach(async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
  });

  afterEach(() => cluster.end());

  /** By the right time. */
  const soonMs = (): number => cluster.time.clock().wallMs() + 2 * SECOND;
  const setClock = (skewMs: number): void => {
    const clock = cluster.node(0).running?.clock;
    if (clock === undefined) throw new Error('not running');
    clock.skewMs = skewMs;
  };

  it('leaves writes to the others until it is right again, and serves reads', async () => {
    const own = await cluster.put(0, 'k', 'v');
    await cluster.time.advance(3 * SECOND);
    setClock(3600 * SECOND);
    expect(cluster.replica(0).status().writeRefusal).to.match(/clock of this node is 3600\.\d s ahead/);
    const { version } = await cluster.put(0, 'k', 'w');
    expect(version.writer).not.to.equal(own.version.writer);
    expect(version.wallMs).to.be.below(soonMs());
    expect(await cluster.get(0, 'k')).to.equal('w');
    setClock(0);
    await cluster.time.advance(SECOND);
    const again = await cluster.put(0, 'k', 'x');
    expect(again.version.writer).to.equal(own.version.writer);
    expect(again.version.wallMs, 'not dragged along').to.be.below(soonMs());
  });

  it('refuses writes that nobody else can take', async () => {
    await cluster.time.advance(3 * SECOND);
    setClock(-3600 * SECOND);
    cluster.network.cut('kv-0', 'kv-1');
    cluster.network.cut('kv-0', 'kv-2');
    await cluster.time.advance(10 * SECOND);
    const error = await failureOf(cluster.put(0, 'k', 'w', { consistency: 'ONE' }));
    expect(error).to.include({ code: 'UNAVAILABLE', retryable: true });
  });
});
