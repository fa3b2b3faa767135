import { PassThrough } from 'node:stream';
import { expect } from 'chai';
import { KvClient, type Version, type WatchEvent } from '../../client/kv-client.ts';
import { runKvctl } from '../../client/kvctl/kvctl.ts';
import { systemClock, systemScheduler } from '../../common/clock.ts';
import { systemRandom } from '../../common/random.ts';
import { compareVersions } from '../../model/version.ts';
import { LocalTestCluster } from '../support/local-cluster.ts';
import { waitFor } from '../support/wait.ts';

/** Takes what a watch tells, for as long as it lasts. */
class Follower {
  readonly newest = new Map<string, { version: Version; value: string | undefined }>();
  readonly wrong: string[] = [];
  token: Buffer | undefined;
  error: unknown;
  private readonly controller = new AbortController();
  private readonly ended: Promise<void>;

  constructor(client: KvClient, options: { prefix: string; token?: Buffer }) {
    const { signal } = this.controller;
    this.ended = this.follow(client.watch({ ...options, signal }));
  }

  async begun(): Promise<void> {
    await waitFor(
      { what: 'the watch to begin', timeoutMs: 15_000, intervalMs: 10 },
      () => this.token !== undefined,
    );
  }

  async stop(): Promise<void> {
    this.controller.abort(new Error('enough'));
    await this.ended;
  }

  private async follow(events: AsyncIterable<WatchEvent>): Promise<void> {
    try {
      for await (const event of events) this.take(event);
    } catch (error) {
      this.error = error;
    }
  }

  private take(event: WatchEvent): void {
    if (event.kind === 'progress') {
      this.token = event.token;
      return;
    }
    const name = event.key.toString();
    const known = this.newest.get(name);
    if (known !== undefined && compareVersions(event.version, known.version) <= 0) this.wrong.push(name);
    const value = event.kind === 'put' ? event.value.toString() : undefined;
    this.newest.set(name, { version: event.version, value });
  }
}

/** `kvctl watch` in this process, until it is interrupted. */
class WatchCommand {
  text = '';
  private readonly interrupted = new AbortController();
  private readonly code: Promise<number>;

  constructor(cluster: LocalTestCluster, options: readonly string[]) {
    const stdout = new PassThrough();
    stdout.on('data', (data: Buffer) => (this.text += data.toString()));
    this.code = runKvctl(['watch', 'k/', '--data-dir', cluster.dataDir, ...options], {
      stdin: new PassThrough().end(),
      stdout,
      stderr: new PassThrough(),
      directory: cluster.directory,
      clock: systemClock,
      scheduler: systemScheduler,
      random: systemRandom,
      signal: this.interrupted.signal,
    });
  }

  async untilPrinted(words: string): Promise<void> {
    await waitFor({ what: `"${words}"`, timeoutMs: 20_000, intervalMs: 20 }, (see) => {
      see(this.text);
      return this.text.includes(words);
    });
  }

  /** Ctrl-C; the exit code. */
  interrupt(): Promise<number> {
    this.interrupted.abort(new Error('Ctrl-C'));
    return this.code;
  }
}

describe('scans and watches of three local processes', function () {
  this.timeout(90_000);
  let cluster: LocalTestCluster;
  let client: KvClient;
  let writes = 0;

  before(async () => {
    cluster = await LocalTestCluster.start();
    // It asks the nodes in their order, so that it is known which one to kill.
    const random = { ...systemRandom, fraction: () => 0 };
    client = await KvClient.connect({ endpoints: cluster.endpoints, random });
    // Before there is a horizon, tokens of a cluster that has just begun have no mark that another node could go on from.
    await waitFor({ what: 'horizons', timeoutMs: 40_000, intervalMs: 100 }, async (see) => {
      const statuses = await Promise.all(cluster.targets.map((target) => cluster.admin.status(target)));
      see(statuses.map(({ horizonMs, collectionFrozenReason: why }) => `${horizonMs} ${why}`).join('; '));
      return statuses.every(({ horizonMs }) => horizonMs > 0);
    });
  });

  after(async () => {
    (client as KvClient | undefined)?.close();
    await (cluster as LocalTestCluster | undefined)?.dispose();
  });

  /** Writes until told to stop; gives what was acknowledged last of each key. */
  async function writer(prefix: string, stopped: () => boolean): Promise<ReadonlyMap<string, Version>> {
    await using own = await KvClient.connect({ endpoints: cluster.endpoints });
    const acknowledged = new Map<string, Version>();
    for (let turn = 0; !stopped(); turn += 1) {
      const key = `${prefix}${turn % 97}`;
      try {
        const { version } = turn % 5 === 0 ? await own.delete(key) : await own.put(key, `${turn}`);
        acknowledged.set(key, version);
        writes += 1;
      } catch {
        // Unknown outcomes are owed to nobody.
      }
    }
    return acknowledged;
  }

  it('let a watch survive kill -9 of its node, and of the next one, and tell everything', async () => {
    const follower = new Follower(client, { prefix: 'w/' });
    await follower.begun();
    let done = false;
    const writing = writer('w/', () => done);
    for (const nodeId of ['kv-0', 'kv-1']) {
      const from = writes;
      await waitFor({ what: 'writes before', timeoutMs: 20_000, intervalMs: 20 }, () => writes > from + 100);
      cluster.killNode(nodeId);
      await waitFor({ what: 'writes after', timeoutMs: 20_000, intervalMs: 20 }, () => writes > from + 300);
      await cluster.untilInSync();
    }
    done = true;
    const acknowledged = await writing;
    await waitFor({ what: 'everything to be told', timeoutMs: 20_000, intervalMs: 50 }, (see) => {
      see(String(follower.error));
      const missing = [...acknowledged].filter(([key, version]) => {
        const told = follower.newest.get(key);
        return told === undefined || compareVersions(told.version, version) < 0;
      });
      see(`${missing.length} of ${acknowledged.size} keys are missing; ${String(follower.error)}`);
      return missing.length === 0;
    });
    await follower.stop();
    expect(follower.wrong).to.deep.equal([]);
    expect(acknowledged.size).to.equal(97);
  });

  it('let a watch go on from its token after a while without anybody', async () => {
    const first = new Follower(client, { prefix: 'r/' });
    await first.begun();
    await client.put('r/1', 'told');
    await waitFor({ what: 'the first value', timeoutMs: 5000, intervalMs: 10 }, () =>
      first.newest.has('r/1'),
    );
    const before = first.token;
    await waitFor(
      { what: 'a token behind it', timeoutMs: 10_000, intervalMs: 20 },
      () => first.token !== before,
    );
    await first.stop();
    const { token } = first;
    if (token === undefined) throw new Error('there is no token');
    await client.put('r/2', 'meanwhile');
    await client.delete('r/1');
    const second = new Follower(client, { prefix: 'r/', token });
    await waitFor(
      { what: 'what happened meanwhile', timeoutMs: 10_000, intervalMs: 20 },
      () => second.newest.has('r/1') && second.newest.has('r/2'),
    );
    await second.stop();
    expect([...second.newest].map(([key, { value }]) => [key, value])).to.have.deep.members([
      ['r/2', 'meanwhile'],
      ['r/1', undefined],
    ]);
  });

  it('let a scan go on when its node is killed in the middle', async () => {
    const random = { ...systemRandom, fraction: () => 0 };
    await using scanning = await KvClient.connect({ endpoints: cluster.endpoints, random });
    const names = Array.from({ length: 3000 }, (_, index) => `s/${String(index).padStart(5, '0')}`);
    const value = Buffer.alloc(2000, 'x');
    for (let at = 0; at < names.length; at += 100) {
      await Promise.all(names.slice(at, at + 100).map((name) => client.put(name, value)));
    }
    const found: string[] = [];
    for await (const { key } of scanning.scan({ prefix: 's/' })) {
      found.push(key.toString());
      if (found.length === 500) cluster.killNode('kv-0');
    }
    expect(found).to.deep.equal(names);
    await cluster.untilInSync();
  });

  it('print both with kvctl', async () => {
    await client.put('k/a', '1');
    await client.put('k/b', 'two words');
    const scanned = await cluster.kvctl(['scan', 'k/']);
    expect(scanned.text).to.equal('k/a\t1\nk/b\ttwo words\n');
    const json = await cluster.kvctl(['scan', 'k/', '--start-after', 'k/a', '-o', 'json']);
    expect(JSON.parse(json.text)).to.deep.include({ key: { text: 'k/b' }, value: { text: 'two words' } });
    const watching = new WatchCommand(cluster, ['-o', 'json']);
    await watching.untilPrinted('"kind":"progress"');
    await client.put('k/c', '3');
    await client.delete('k/a');
    await watching.untilPrinted('"kind":"put","key":{"text":"k/c"},"value":{"text":"3"}');
    await watching.untilPrinted('"kind":"delete","key":{"text":"k/a"}');
    const token = /"kind":"progress","token":"([^"]+)"/.exec(watching.text)?.[1] ?? '';
    expect(await watching.interrupt()).to.equal(130);
    const resumed = new WatchCommand(cluster, ['--token', token]);
    await resumed.untilPrinted('put\tk/c\t3\n');
    await resumed.untilPrinted('delete\tk/a\n');
    expect(await resumed.interrupt()).to.equal(130);
  });
});
