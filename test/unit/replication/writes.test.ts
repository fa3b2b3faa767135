import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import { compareVersions } from '../../../model/version.ts';
import type { PeerFrame } from '../../../proto/gen/peer.ts';
import { ReplicaCluster } from '../../support/replica-cluster.ts';

/** What a promise is rejected with. */
async function failure(promise: Promise<unknown>): Promise<KvError> {
  const error: unknown = await promise.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).to.be.instanceOf(KvError);
  return error as KvError;
}

const carriesEntries = ({ body }: PeerFrame): boolean =>
  body?.$case === 'entries' && body.value.entries.length > 0;

describe('writes to three replicas', () => {
  let cluster: ReplicaCluster;

  beforeEach(async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
  });

  afterEach(() => cluster.end());

  it('are read on every node', async () => {
    await cluster.put(0, 'a', '1');
    for (const index of [0, 1, 2]) expect(await cluster.get(index, 'a')).to.equal('1');
  });

  it('leave all nodes equal and in sync', async () => {
    for (let round = 0; round < 60; round += 1) await cluster.put(round % 3, `k${round % 7}`, `v${round}`);
    await cluster.delete(1, 'k3');
    await cluster.time.advance(1000);
    await cluster.inSync();
    const contents = await cluster.contents(0);
    expect(contents).to.have.length(7);
    expect(await cluster.contents(1)).to.deep.equal(contents);
    expect(await cluster.contents(2)).to.deep.equal(contents);
  });

  it('tell what the coordinator held before', async () => {
    expect((await cluster.put(0, 'a', '1')).old).to.equal(undefined);
    expect((await cluster.put(0, 'a', '2')).old?.value.toString()).to.equal('1');
    expect((await cluster.delete(0, 'a')).existed).to.equal(true);
    expect((await cluster.delete(0, 'a')).existed).to.equal(false);
    expect((await cluster.put(0, 'a', '3')).old).to.equal(undefined);
  });

  it('replicate a tombstone for a key that the coordinator does not hold', async () => {
    await cluster.delete(0, 'never-there');
    await cluster.time.advance(1000);
    for (const index of [0, 1, 2]) {
      expect((await cluster.contents(index)).join()).to.match(/^never-there=deleted@/);
    }
  });

  it('are refused as UNAVAILABLE before anything is applied when too few replicas are known to be reachable', async () => {
    cluster.network.isolate('kv-0', cluster.names);
    await cluster.time.advance(3000);
    const error = await failure(cluster.put(0, 'a', '1'));
    expect([error.code, error.retryable]).to.deep.equal(['UNAVAILABLE', true]);
    expect(await cluster.contents(0)).to.deep.equal([]);
    cluster.network.heal();
    await cluster.inSync();
    await cluster.put(0, 'a', '2');
  });

  it('on a minority succeed at ONE, fail at QUORUM, and merge after the cut heals', async () => {
    cluster.network.isolate('kv-0', cluster.names);
    await cluster.time.advance(3000);
    await cluster.put(0, 'minority', '1', { consistency: 'ONE' });
    await cluster.put(1, 'majority', '2');
    expect((await failure(cluster.put(1, 'all', '3', { consistency: 'ALL' }))).code).to.equal('UNAVAILABLE');
    cluster.network.heal();
    await cluster.inSync();
    for (const index of [0, 1, 2]) {
      expect(await cluster.get(index, 'minority', 'ONE')).to.equal('1');
      expect(await cluster.get(index, 'majority', 'ONE')).to.equal('2');
    }
  });

  it('end as DEADLINE_EXCEEDED with an unknown outcome when the cut comes after the commit', async () => {
    cluster.network.isolate('kv-0', cluster.names);
    const error = await failure(cluster.put(0, 'a', '1', { deadlineMs: cluster.time.monotonicMs + 500 }));
    expect(error.code).to.equal('DEADLINE_EXCEEDED');
    expect(error.message).to.match(/applied on 1 of 3/);
    cluster.network.heal();
    await cluster.inSync();
    expect(await cluster.get(2, 'a')).to.equal('1');
  });

  it('wait for every replica at ALL', async () => {
    cluster.network.filter = (frame, _from, to) =>
      to === 'kv-2' && carriesEntries(frame) ? 'hold' : 'deliver';
    const error = await failure(
      cluster.put(0, 'a', '1', { consistency: 'ALL', deadlineMs: cluster.time.monotonicMs + 500 }),
    );
    expect(error.code).to.equal('DEADLINE_EXCEEDED');
    expect(error.message).to.match(/applied on 2 of 3/);
  });

  it('are refused when too much is in flight, and nothing of them is applied', async () => {
    const small = new ReplicaCluster(3, { settings: { maxInFlightBytes: 2000 } });
    try {
      await small.begin();
      const deadlineMs = small.time.monotonicMs + 5000;
      const write = (key: string) =>
        small.replica(0).engine.put({
          key: Buffer.from(key),
          value: Buffer.alloc(1500),
          ttlMs: undefined,
          requestId: undefined,
          consistency: 'QUORUM',
          deadlineMs,
        });
      const first = write('a');
      const error = await failure(write('b'));
      expect([error.code, error.retryable]).to.deep.equal(['RESOURCE_EXHAUSTED', true]);
      await small.time.run(first);
      expect(await small.contents(0)).to.have.length(1);
    } finally {
      small.end();
    }
  });

  it('let go of what they hold when their caller has gone', async () => {
    const small = new ReplicaCluster(3, { settings: { maxInFlightBytes: 2000 } });
    try {
      await small.begin();
      const write = (key: string, more: { deadlineMs: number; signal?: AbortSignal }) =>
        small.replica(0).engine.put({
          key: Buffer.from(key),
          value: Buffer.alloc(1500),
          ttlMs: undefined,
          requestId: undefined,
          consistency: 'ALL',
          ...more,
        });
      small.network.filter = (frame, _from, to) =>
        to === 'kv-2' && carriesEntries(frame) ? 'hold' : 'deliver';
      const caller = new AbortController();
      const startedMs = small.time.monotonicMs;
      const abandoned = write('a', { deadlineMs: startedMs + 60_000, signal: caller.signal });
      caller.abort();
      expect((await failure(small.time.run(abandoned))).code).to.equal('DEADLINE_EXCEEDED');
      // Long before the deadline, and the room is there for the next one.
      expect(small.time.monotonicMs - startedMs).to.be.lessThan(10_000);
      const next = await failure(small.time.run(write('b', { deadlineMs: small.time.monotonicMs + 100 })));
      expect(next.code).to.equal('DEADLINE_EXCEEDED');
    } finally {
      small.end();
    }
  });

  it('are refused while the node drains, and those under way finish', async () => {
    const replica = cluster.replica(0);
    const write = replica.engine.put({
      key: Buffer.from('a'),
      value: Buffer.from('1'),
      ttlMs: undefined,
      requestId: undefined,
      consistency: 'QUORUM',
      deadlineMs: cluster.time.monotonicMs + 5000,
    });
    replica.drain();
    expect((await failure(cluster.put(0, 'b', '2'))).code).to.equal('UNAVAILABLE');
    expect(replica.notReadyReason).to.match(/draining/);
    await cluster.time.run(write);
    await cluster.time.run(replica.idle());
    await cluster.time.advance(20);
    // The others know at once: with one of them gone as well, there is no quorum.
    cluster.kill(2);
    await cluster.time.advance(20);
    expect((await failure(cluster.put(1, 'c', '3'))).code).to.equal('UNAVAILABLE');
  });
});

describe('a write begun after another was acknowledged at QUORUM', () => {
  let cluster: ReplicaCluster;
  const written = async (index: number): Promise<void> => {
    await cluster.time.advance(2000);
    await cluster.inSync();
    for (const node of [0, 1, 2]) expect(await cluster.get(node, 'a', 'ONE'), `on ${node}`).to.equal('late');
    expect(cluster.node(index).counters.get('second_mints'), 'second mints').to.be.at.least(1);
  };

  beforeEach(async () => {
    cluster = new ReplicaCluster(3);
    await cluster.begin();
  });

  afterEach(() => cluster.end());

  it('ends above it although its coordinator has not seen the other and its clock is behind', async () => {
    const stopped = cluster.node(2).running!.clock;
    stopped.skewMs = -1500;
    // The first write does not reach the coordinator of the second.
    cluster.network.filter = (frame, from, to) =>
      from === 'kv-0' && to === 'kv-2' && carriesEntries(frame) ? 'hold' : 'deliver';
    const first = await cluster.put(0, 'a', 'early');
    const second = await cluster.put(2, 'a', 'late');
    expect(compareVersions(second.version, first.version)).to.be.greaterThan(0);
    cluster.network.filter = () => 'deliver';
    cluster.network.flush();
    await written(2);
  });

  it('ends above it also when the other arrives at its coordinator before its own entry is sent', async () => {
    cluster.node(2).running!.clock.skewMs = -1500;
    // kv-2 cannot send for a while: its entry waits in the log, and goes out as the record then stored for the key.
    let cut = true;
    cluster.network.filter = (frame, from, to) => {
      if (from === 'kv-0' && to === 'kv-2' && carriesEntries(frame) && cut) return 'hold';
      return 'deliver';
    };
    const first = await cluster.put(0, 'a', 'early');
    const store = cluster.store(2);
    const readLog = store.readLog.bind(store);
    const waiting: (() => void)[] = [];
    store.readLog = async (after, maxBytes) => {
      const slice = await readLog(after, maxBytes);
      if (cut) await new Promise<void>((resolve) => waiting.push(resolve));
      return slice;
    };
    const second = cluster.replica(2).engine.put({
      key: Buffer.from('a'),
      value: Buffer.from('late'),
      ttlMs: undefined,
      requestId: undefined,
      consistency: 'QUORUM',
      deadlineMs: cluster.time.monotonicMs + 5000,
    });
    await cluster.time.until('the entry is about to be sent', () => waiting.length > 0);
    cut = false;
    cluster.network.flush();
    await cluster.time.until('the first write is here', () => {
      const stored = store.latest(Buffer.from('a'));
      return stored !== undefined && compareVersions(stored.version, first.version) === 0;
    });
    for (const resume of waiting) resume();
    const { version } = await cluster.time.run(second);
    expect(compareVersions(version, first.version)).to.be.greaterThan(0);
    await written(2);
  });

  it('ends above it also when the answers to its first mint were lost with their streams', async () => {
    cluster.node(2).running!.clock.skewMs = -1500;
    cluster.network.filter = (frame, from, to) => {
      if (from === 'kv-0' && to === 'kv-2' && carriesEntries(frame)) return 'hold';
      return to === 'kv-2' && frame.body?.$case === 'ack' ? 'hold' : 'deliver';
    };
    const first = await cluster.put(0, 'a', 'early');
    const second = cluster.replica(2).engine.put({
      key: Buffer.from('a'),
      value: Buffer.from('late'),
      ttlMs: undefined,
      requestId: undefined,
      consistency: 'QUORUM',
      deadlineMs: cluster.time.monotonicMs + 20_000,
    });
    await cluster.time.advance(50);
    // The streams break, and begin anew beyond the entry.
    cluster.network.isolate('kv-2', cluster.names);
    await cluster.time.advance(3000);
    cluster.network.filter = (frame, from, to) =>
      from === 'kv-0' && to === 'kv-2' && carriesEntries(frame) ? 'hold' : 'deliver';
    cluster.network.heal();
    const { version } = await cluster.time.run(second);
    expect(compareVersions(version, first.version)).to.be.greaterThan(0);
    cluster.network.filter = () => 'deliver';
    cluster.network.flush();
    await written(2);
  });
});
