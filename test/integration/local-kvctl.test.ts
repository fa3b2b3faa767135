import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { type KvctlResult, LocalTestCluster, kvctl } from '../support/local-cluster.ts';
import { waitFor } from '../support/wait.ts';

describe('kvctl on a local cluster', function () {
  this.timeout(60_000);
  let cluster: LocalTestCluster;

  before(async () => {
    cluster = await LocalTestCluster.start();
  });

  after(async () => {
    await (cluster as LocalTestCluster | undefined)?.dispose();
  });

  function expectOk(result: KvctlResult): KvctlResult {
    expect(result).to.include({ code: 0, stderr: '' });
    return result;
  }

  it('puts, gets and deletes, with the words that scripts rely on', async () => {
    expect(expectOk(await cluster.kvctl(['put', 'greeting', 'hello world'])).text).to.equal('OK\n');
    expect(expectOk(await cluster.kvctl(['get', 'greeting'])).text).to.equal('hello world');
    expect(expectOk(await cluster.kvctl(['delete', 'greeting', 'never-there'])).text).to.equal('1\n');
  });

  it('says on standard error alone that a key is missing, and exits with 1', async () => {
    const { code, text, stderr } = await cluster.kvctl(['get', 'never-there']);
    expect({ code, text }).to.deep.equal({ code: 1, text: '' });
    expect(stderr).to.equal('kvctl: key not found: never-there\n');
  });

  it('takes any bytes from standard input and gives them back as they were', async () => {
    const bytes = Buffer.from(Array.from({ length: 1024 }, (_, index) => (index * 7) % 256));
    expectOk(await cluster.kvctl(['put', 'binary'], bytes));
    expect(expectOk(await cluster.kvctl(['get', 'binary'])).stdout).to.deep.equal(bytes);
    expectOk(await cluster.kvctl(['put', 'empty', '-']));
    expect(expectOk(await cluster.kvctl(['get', 'empty'])).stdout).to.have.length(0);
  });

  it('lists by prefix over pages, in byte order, up to a limit', async () => {
    const names = Array.from({ length: 25 }, (_, index) => `list/${String(index).padStart(2, '0')}`);
    for (const name of names) expectOk(await cluster.kvctl(['put', name, 'x']));
    const lines = async (...args: string[]): Promise<string[]> =>
      expectOk(await cluster.kvctl(['list', ...args]))
        .text.split('\n')
        .slice(0, -1);
    expect(await lines('list/', '--page-size', '7')).to.deep.equal(names);
    expect(await lines('list/', '--limit', '3')).to.deep.equal(names.slice(0, 3));
    expect(await lines('list/', '--start-after', 'list/22')).to.deep.equal(['list/23', 'list/24']);
    expect(await lines('no/such/')).to.deep.equal([]);
    const zero = expectOk(await cluster.kvctl(['list', 'list/2', '--print0']));
    expect(zero.text).to.equal(
      names
        .slice(20)
        .map((name) => `${name}\0`)
        .join(''),
    );
  });

  it('shows as JSON when a key expires', async () => {
    expectOk(await cluster.kvctl(['put', 'session', 'token', '--ttl', '30s', '--consistency', 'all']));
    const found = JSON.parse(expectOk(await cluster.kvctl(['get', 'session', '-o', 'json'])).text) as {
      value: unknown;
      remainingTtlMs: number;
    };
    expect(found.value).to.deep.equal({ text: 'token' });
    expect(found.remainingTtlMs).to.be.within(20_000, 30_000);
  });

  it('shows every member with its state, as a table and as JSON', async () => {
    await cluster.untilInSync();
    const { text } = expectOk(await cluster.kvctl(['status']));
    for (const nodeId of ['kv-0', 'kv-1', 'kv-2']) {
      expect(text).to.match(new RegExp(`^${nodeId} +readable +yes +yes +0 +2 `, 'm'));
    }
    const status = JSON.parse(expectOk(await cluster.kvctl(['status', '-o', 'json'])).text) as {
      cluster: object;
      nodes: { nodeId: string; state: string }[];
    };
    expect(status.cluster).to.include({ namespace: 'default', name: 'kv', epoch: 2, initialised: true });
    expect(status.nodes.map(({ nodeId, state }) => `${nodeId} ${state}`)).to.deep.equal([
      'kv-0 readable',
      'kv-1 readable',
      'kv-2 readable',
    ]);
  });

  it('tells wrong use (2) from failure (1)', async () => {
    const cases: [string[], number, RegExp][] = [
      [['put'], 2, /missing required argument 'key'/],
      [['get', 'k', '--consistency', 'most'], 2, /one, quorum or all/],
      [['put', 'k', 'v', '--ttl', '30'], 2, /500ms, 30s/],
      [['frobnicate'], 2, /unknown command 'frobnicate'/],
      [['backup', 'verify', '../../etc', '--target', cluster.directory], 1, /not the id of a backup/],
      [
        ['put', 'k', 'v', '--endpoints', '127.0.0.1:1', '--timeout', '200ms'],
        1,
        /ECONNREFUSED 127\.0\.0\.1:1/,
      ],
      [['put', 'k'.repeat(1025), 'v'], 1, /1024/],
    ];
    for (const [args, code, message] of cases) {
      const result = await (args[0] === 'put' || args[0] === 'get' ? cluster.kvctl(args) : kvctl(args));
      expect(result.code, args.join(' ')).to.equal(code);
      expect(result.stderr).to.match(message);
      expect(result.text).to.equal('');
    }
  });

  it('is refused by members without the right secret', async () => {
    const secret = join(cluster.directory, 'wrong.key');
    writeFileSync(secret, Buffer.alloc(32, 1));
    const members = cluster.targets.map(({ nodeId, address }) => `${nodeId}=${address}`).join(',');
    const { code, stderr } = await kvctl(['status', '--members', members, '--secret-file', secret]);
    expect(code).to.equal(1);
    expect(stderr).to.match(/secret/);
  });

  describe('backup', () => {
    let target: string;
    let id: string;

    before(async () => {
      target = join(cluster.directory, 'backups');
      for (let index = 0; index < 20; index += 1)
        expectOk(await cluster.kvctl(['put', `kept/${index}`, 'value']));
      expectOk(await cluster.kvctl(['delete', 'kept/3']));
      const summaryFile = join(cluster.directory, 'summary.json');
      expectOk(await cluster.kvctl(['backup', 'create', '--target', target, '--summary-file', summaryFile]));
      const summary = JSON.parse(readFileSync(summaryFile, 'utf8')) as { id: string; records: number };
      expect(summary).to.include.keys('time', 'id', 'records', 'bytes', 'seconds', 'clusterId');
      id = summary.id;
      // The state counts what is checkpointed.
      await waitFor({ what: `a state of ${summary.records} records`, timeoutMs: 10_000 }, async (see) => {
        const records = (await cluster.untilInSync())[0]?.records;
        see(`${records} records`);
        return records === summary.records;
      });
    });

    function backupDirectory(): string {
      const cluster1 = join(target, 'default', 'kv');
      const [clusterId = ''] = readdirSync(cluster1);
      return join(cluster1, clusterId, id);
    }

    it('is listed and verifies', async () => {
      const { text } = expectOk(await cluster.kvctl(['backup', 'list', '--target', target]));
      expect(text).to.match(new RegExp(`^${id} +default/kv +[0-9a-f]{32} .* complete$`, 'm'));
      const { text: verdict } = expectOk(await cluster.kvctl(['backup', 'verify', id, '--target', target]));
      expect(verdict).to.match(new RegExp(`^${id}: good, \\d+ records$`, 'm'));
    });

    it('is found to be bad, with the name of the file, when one byte of a chunk is flipped', async () => {
      const chunk = join(backupDirectory(), 'records-000000.kvb');
      const good = readFileSync(chunk);
      const bad = Buffer.from(good);
      bad[bad.length >> 1]! ^= 0x10;
      writeFileSync(chunk, bad);
      try {
        const { code, text, stderr } = await cluster.kvctl(['backup', 'verify', '--target', target]);
        expect(code).to.equal(1);
        expect(text).to.contain(`${id}: BAD`).and.contain(chunk);
        expect(stderr).to.contain('1 of 1 backups are bad');
      } finally {
        writeFileSync(chunk, good);
      }
    });

    it('is said to be unreadable when its manifest is damaged', async () => {
      const manifest = join(backupDirectory(), 'manifest.json');
      const good = readFileSync(manifest, 'utf8');
      writeFileSync(manifest, good.replace(/"epoch": \d+/, '"epoch": 999'));
      try {
        const { text } = expectOk(await cluster.kvctl(['backup', 'list', '--target', target]));
        expect(text).to.match(new RegExp(`^${id} .* unreadable: manifest.json: .*checksum`, 'm'));
        expect((await cluster.kvctl(['backup', 'verify', '--target', target])).code).to.equal(1);
      } finally {
        writeFileSync(manifest, good);
      }
    });

    it('needs two of three members, says who is missing, and leaves nothing behind without them', async () => {
      const elsewhere = join(cluster.directory, 'elsewhere');
      const summaryFile = join(cluster.directory, 'failed.json');
      const args = ['backup', 'create', '--target', elsewhere, '--wait', '1s', '--summary-file', summaryFile];
      let patient: Promise<KvctlResult> | undefined;
      await cluster.withoutRestarts(async () => {
        cluster.killNode('kv-2');
        // The other two notice within the failure detection time; what they hold can be read all along.
        expect(expectOk(await cluster.kvctl(args)).text).to.match(/from kv-0, kv-1$/m);
        rmSync(elsewhere, { recursive: true });
        cluster.killNode('kv-1');
        const { code, stderr } = await cluster.kvctl(args);
        expect(code).to.equal(1);
        expect(stderr).to.contain('needs 2 readable replicas').and.contain('kv-1:').and.contain('kv-2:');
        expect(existsSync(elsewhere)).to.equal(false);
        patient = cluster.kvctl(['backup', 'create', '--target', elsewhere, '--wait', '30s']);
      });
      const summary = JSON.parse(readFileSync(summaryFile, 'utf8')) as { error: string };
      expect(summary.error).to.contain('needs 2 readable replicas');
      expect(expectOk((await patient)!).text, 'waits until the members have returned').to.contain('records');
      await cluster.untilInSync();
    });

    it('clears away what a crash left, and nothing that is being written', async () => {
      const parent = join(backupDirectory(), '..');
      const old = join(parent, '.partial-20200101t000000z-0000');
      const fresh = join(parent, '.partial-20260101t000000z-0000');
      for (const directory of [old, fresh]) mkdirSync(directory);
      utimesSync(old, 1_600_000_000, 1_600_000_000);
      const listed = expectOk(await cluster.kvctl(['backup', 'list', '--target', target])).text;
      expect(listed.trim().split('\n')).to.have.length(2);
      expectOk(await cluster.kvctl(['backup', 'create', '--target', target]));
      const names = readdirSync(parent);
      expect(names).to.include('.partial-20260101t000000z-0000');
      expect(names).to.not.include('.partial-20200101t000000z-0000');
    });
  });
});
