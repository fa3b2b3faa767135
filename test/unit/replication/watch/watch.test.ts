import { expect } from 'chai';
import { DEFAULT_COLLECTION_SETTINGS } from '../../../../node/replication/horizon/collector.ts';
import { DEFAULT_WATCH_SETTINGS } from '../../../../node/replication/watch/settings.ts';
import { decodeWatchToken, encodeWatchToken } from '../../../../node/replication/watch/token.ts';
import { type ClusterOptions, PARTITIONS, ReplicaCluster } from '../../../support/replica-cluster.ts';
import { SMALL_LIMITS } from '../../../support/memory-store.ts';
import { Watcher } from './watcher.ts';

const NO_PREFIX = Buffer.alloc(0);
const keys = (count: number, name = 'key'): readonly string[] =>
  Array.from({ length: count }, (_, index) => `${name}-${index}`);

describe('a watch', () => {
  let cluster: ReplicaCluster;
  const watchers: Watcher[] = [];

  const begin = async (size: number, options: ClusterOptions = {}): Promise<void> => {
    cluster = new ReplicaCluster(size, { replicationFactor: 3, ...options });
    await cluster.begin();
  };
  const watch = async (
    index: number,
    options: { prefix?: string; token?: Buffer } = {},
  ): Promise<Watcher> => {
    const watcher = new Watcher(cluster, index, options);
    watchers.push(watcher);
    await watcher.until('it begins', () => watcher.batches > 0);
    return watcher;
  };
  /** Which node's log tells each partition, by the token. */
  const sourcesOf = (token: Buffer, prefix = NO_PREFIX): readonly (string | undefined)[] =>
    decodeWatchToken(prefix, token, PARTITIONS).told.map(({ place }) => place?.nodeId);
  const lowestMarkOf = (token: Buffer): number =>
    Math.min(
      ...decodeWatchToken(NO_PREFIX, token, PARTITIONS).told.flatMap(({ marks }) => [...marks.values()]),
    );

  afterEach(async () => {
    const violations = watchers.flatMap((watcher) => watcher.violations);
    for (const watcher of watchers.splice(0)) watcher.stop();
    await cluster.time.advance(10);
    cluster.end();
    expect(violations).to.deep.equal([]);
  });

  it('tells every change from its beginning on, wherever it is written', async () => {
    await begin(3);
    await cluster.put(0, 'before', 'x');
    await cluster.time.advance(1000);
    const watcher = await watch(1);
    for (const [index, key] of keys(30).entries()) await cluster.put(index % 3, key, `value ${index}`);
    await cluster.delete(2, 'key-7');
    await cluster.delete(0, 'never there');
    await watcher.toldOf('never there', undefined);
    await watcher.toldOf('key-7', undefined);
    expect(watcher.latest.get('key-29')).to.equal('value 29');
    expect(watcher.latest.size).to.equal(31);
  });

  it('tells only what begins with its prefix', async () => {
    await begin(3);
    const watcher = await watch(0, { prefix: 'a/' });
    await cluster.put(0, 'a', 'no');
    await cluster.put(1, 'a/1', 'yes');
    await cluster.put(2, 'b/1', 'no');
    await cluster.put(2, 'a/2', 'yes');
    await watcher.toldOf('a/2', 'yes');
    expect([...watcher.latest.keys()].sort()).to.deep.equal(['a/1', 'a/2']);
  });

  it('tells at a node that holds only some of the partitions what others hold', async () => {
    await begin(5);
    const all = await Promise.all(cluster.nodes.map((_, index) => watch(index)));
    const names = keys(60);
    for (const [index, key] of names.entries()) await cluster.put(index % 5, key, 'x');
    for (const watcher of all) {
      await watcher.until('everything is told', () => watcher.latest.size === 60);
      expect(new Set(sourcesOf(watcher.token)).size).to.be.greaterThan(1);
    }
  });

  it('goes on when the nodes that tell it are killed, one after the other, without a gap', async () => {
    await begin(5);
    const watcher = await watch(0);
    let round = 0;
    const write = async (): Promise<void> => {
      round += 1;
      for (const key of keys(20)) await cluster.put(round % 2 === 0 ? 0 : 1, key, `round ${round}`);
    };
    for (const victim of [2, 3, 4]) {
      await write();
      cluster.kill(victim);
      await cluster.time.advance(3000);
      await write();
      await cluster.start(victim);
      await cluster.inSync();
    }
    await write();
    for (const key of keys(20)) await watcher.toldOf(key, `round ${round}`);
    expect(watcher.error).to.equal(undefined);
  });

  it('goes on when its sources hang, and when they are cut off', async () => {
    await begin(5);
    const watcher = await watch(0);
    await watcher.until('its marks are known', () => lowestMarkOf(watcher.token) > 0);
    for (const victim of [1, 2, 3, 4]) {
      cluster.network.cut('kv-0', `kv-${victim}`);
      await cluster.time.advance(3000);
      for (const key of keys(20)) await cluster.put(0, key, `without ${victim}`);
      for (const key of keys(20)) await watcher.toldOf(key, `without ${victim}`);
      cluster.network.heal();
      await cluster.connected();
    }
  });

  it('resumes in the log of the same node, also after that was restarted, and repeats nothing', async () => {
    await begin(3);
    const first = await watch(0);
    for (const key of keys(20)) await cluster.put(0, key, '1');
    for (const key of keys(20)) await first.toldOf(key, '1');
    first.stop();
    const { token } = first;
    cluster.kill(0);
    for (const key of keys(5, 'meanwhile')) await cluster.put(1, key, '2');
    await cluster.start(0);
    await cluster.inSync();
    // The others hear of it with a heartbeat.
    await cluster.time.advance(1000);
    const second = await watch(1, { token });
    for (const key of keys(5, 'meanwhile')) await second.toldOf(key, '2');
    expect(second.latest.size).to.equal(5);
    expect(sourcesOf(second.token)).to.deep.equal(['kv-0']);
  });

  it('resumes at another node from the mark when the one that told it is gone', async () => {
    await begin(3);
    for (const key of keys(50, 'old')) await cluster.put(0, key, 'long ago');
    const writtenMs = cluster.time.clock().wallMs();
    const first = await watch(0);
    await first.until('old writes lie below the mark', () => lowestMarkOf(first.token) > writtenMs);
    await cluster.time.advance(10_000);
    await cluster.put(1, 'a', '1');
    await first.toldOf('a', '1');
    first.stop();
    cluster.kill(0);
    await cluster.time.advance(3000);
    await cluster.put(1, 'a', '2');
    await cluster.delete(2, 'old-7');
    const second = await watch(1, { token: first.token });
    await second.toldOf('a', '2');
    await second.toldOf('old-7', undefined);
    await cluster.put(1, 'b', '3');
    await second.toldOf('b', '3');
    expect([...second.latest.keys()].sort()).to.deep.equal(['a', 'b', 'old-7']);
  });

  it('tells the newest of what the log no longer has from what is stored', async () => {
    await begin(3, { limits: { ...SMALL_LIMITS, logKeepMs: 0 } });
    const first = await watch(0);
    await cluster.put(0, 'a', '1');
    await first.toldOf('a', '1');
    first.stop();
    for (let round = 0; round < 30; round += 1) {
      for (const key of keys(10)) await cluster.put(1, key, `round ${round}`);
    }
    await cluster.delete(1, 'a');
    await cluster.time.advance(1000);
    const place = decodeWatchToken(NO_PREFIX, first.token, PARTITIONS).told[0]?.place;
    expect(cluster.store(0).logStart).to.be.greaterThan(place?.sequence ?? Infinity);
    const second = await watch(0, { token: first.token });
    for (const key of keys(10)) await second.toldOf(key, 'round 29');
    await second.toldOf('a', undefined);
  });

  it('answers OUT_OF_RANGE when deletes since its token may have been collected', async () => {
    const collection = { ...DEFAULT_COLLECTION_SETTINGS, ageMs: 1000, stepMs: 500 };
    await begin(3, { settings: { collection }, limits: { ...SMALL_LIMITS, logKeepMs: 0 } });
    const first = await watch(0);
    await cluster.put(0, 'a', '1');
    await first.toldOf('a', '1');
    first.stop();
    await cluster.delete(0, 'a');
    await cluster.time.advance(60_000);
    for (const key of keys(300)) await cluster.put(1, key, 'x');
    await cluster.time.advance(1000);
    const second = new Watcher(cluster, 0, { token: first.token });
    await second.end();
    expect(second.code).to.equal('OUT_OF_RANGE');
    expect(second.told).to.deep.equal([]);
  });

  it('keeps nothing for a client that is slow, and loses nothing it has not read', async () => {
    await begin(3, { limits: { ...SMALL_LIMITS, logKeepMs: 0 } });
    const slow = await watch(0);
    await slow.until('its mark is known', () => lowestMarkOf(slow.token) > 0);
    slow.pause();
    await cluster.put(0, 'first', 'x');
    for (let round = 0; round < 30; round += 1) {
      for (const key of keys(10)) await cluster.put(1, key, `round ${round} ${'x'.repeat(100)}`);
      if (round === 10) await cluster.delete(2, 'first');
    }
    await cluster.time.advance(2000);
    slow.resume();
    for (const key of keys(10)) await slow.toldOf(key, `round 29 ${'x'.repeat(100)}`);
    await slow.toldOf('first', undefined);
    expect(slow.told.length).to.be.lessThan(200);
    await cluster.put(2, 'after', 'y');
    await slow.toldOf('after', 'y');
  });

  it('tells a value that has expired before it could be told as deleted', async () => {
    await begin(3);
    const watcher = await watch(0);
    await cluster.put(0, 'a', 'stays');
    await watcher.toldOf('a', 'stays');
    const { token } = watcher;
    watcher.stop();
    await cluster.put(0, 'a', 'short', { ttlMs: 500 });
    await cluster.put(0, 'b', 'long', { ttlMs: 60_000 });
    await cluster.time.advance(1000);
    const later = await watch(0, { token });
    await later.toldOf('b', 'long');
    expect(later.told.filter(({ key }) => key === 'a').map(({ value }) => value)).to.deep.equal([undefined]);
  });

  it('gives a token every few seconds while nothing changes', async () => {
    await begin(3);
    const watcher = await watch(0);
    await cluster.time.advance(10_500);
    expect(watcher.batches).to.equal(6);
    expect(watcher.told).to.deep.equal([]);
  });

  it('ends as UNAVAILABLE when its node drains', async () => {
    await begin(3);
    const watcher = await watch(0);
    cluster.replica(0).drain();
    await watcher.end();
    expect(watcher.code).to.equal('UNAVAILABLE');
    const other = await watch(1, { token: watcher.token });
    await cluster.put(1, 'a', '1');
    await other.toldOf('a', '1');
  });

  it('ends as UNAVAILABLE when a partition has had no readable replica for a while', async () => {
    await begin(5);
    const watcher = await watch(0);
    for (const victim of [1, 2, 3, 4]) cluster.kill(victim);
    await cluster.time.advance(8000);
    expect(watcher.ended).to.equal(false);
    await watcher.end();
    expect(watcher.code).to.equal('UNAVAILABLE');
    expect(watcher.error?.message).to.match(/partition \d has no readable replica/);
  });

  it('refuses a token that is not its own', async () => {
    await begin(3);
    const watcher = await watch(0);
    const codeWith = async (token: Buffer, prefix = ''): Promise<string | undefined> => {
      const refused = new Watcher(cluster, 0, { token, prefix });
      await refused.end();
      return refused.code;
    };
    const { token } = watcher;
    expect(await codeWith(token, 'other')).to.equal('INVALID_ARGUMENT');
    expect(await codeWith(token.subarray(0, -1))).to.equal('INVALID_ARGUMENT');
    expect(await codeWith(Buffer.from([9, ...token.subarray(1)]))).to.equal('INVALID_ARGUMENT');
    expect(await codeWith(Buffer.from([1]))).to.equal('INVALID_ARGUMENT');
    const { told } = decodeWatchToken(NO_PREFIX, token, PARTITIONS);
    const foreign = encodeWatchToken(NO_PREFIX, { clusterId: 'ffff', told }, PARTITIONS);
    expect(await codeWith(foreign)).to.equal('OUT_OF_RANGE');
  });

  it('bounds how many there are', async () => {
    await begin(3, { settings: { watch: { ...DEFAULT_WATCH_SETTINGS, mostWatches: 2 } } });
    const first = await watch(0);
    await watch(0);
    const third = new Watcher(cluster, 0);
    await third.end();
    expect(third.code).to.equal('RESOURCE_EXHAUSTED');
    first.stop();
    await first.end();
    await watch(0);
  });
});
