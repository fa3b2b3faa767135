import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { LocalRunner, LocalTestCluster, NPM_START, isRunning } from '../support/local-cluster.ts';
import { waitFor } from '../support/wait.ts';

const ended = (pids: Iterable<number>) =>
  waitFor(
    { what: 'the end of the nodes', timeoutMs: 15_000, intervalMs: 50 },
    () => ![...pids].some(isRunning),
  );

describe('the one-machine runner', function () {
  this.timeout(60_000);

  describe('with a cluster', () => {
    let cluster: LocalTestCluster;

    before(async () => {
      cluster = await LocalTestCluster.start();
    });

    after(async () => {
      await (cluster as LocalTestCluster | undefined)?.dispose();
    });

    it('says where things are', () => {
      const { output } = cluster.runner;
      for (const { nodeId, client } of cluster.layout.nodes) {
        expect(output).to.contain(`${nodeId}  clients ${client}`);
      }
      expect(output)
        .to.contain(`npm run -s kvctl -- --data-dir ${cluster.dataDir} put hello world`)
        .and.contain('Ctrl-C');
    });

    it('keeps the secret for its owner alone', () => {
      const { mode } = statSync(join(cluster.dataDir, 'internal.key'));
      expect((mode & 0o777).toString(8)).to.equal('600');
    });

    it('refuses a data directory in use with one line', async () => {
      const second = new LocalRunner(['--data-dir', cluster.dataDir, '--base-port', '0']);
      expect(await second.ended()).to.equal(1);
      expect(second.output.trim().split('\n')).to.have.length(1);
      expect(second.output).to.contain(cluster.dataDir).and.contain('in use');
    });

    it('restarts a killed node, which comes back with its data', async () => {
      await cluster.kvctl(['put', 'durable', 'yes']);
      const before = cluster.runner.nodePids().get('kv-0');
      cluster.killNode('kv-0');
      await cluster.runner.untilPrinted('kv-0 was ended by SIGKILL');
      await waitFor({ what: 'a new kv-0', timeoutMs: 10_000, intervalMs: 50 }, () => {
        const now = cluster.runner.nodePids().get('kv-0');
        return now !== undefined && now !== before;
      });
      await cluster.untilInSync();
      const { client } = cluster.layout.nodes[0]!;
      const args = ['get', 'durable', '--endpoints', client, '--consistency', 'one'];
      expect((await cluster.kvctl(args)).text).to.equal('yes');
    });

    it('stops everything on Ctrl-C, with exit code 0, and starts again with the same data on other ports', async () => {
      const pids = [...cluster.runner.nodePids().values()];
      expect(pids).to.have.length(3);
      cluster.runner.process.kill('SIGINT');
      expect(await cluster.runner.ended()).to.equal(0);
      expect(pids.filter(isRunning)).to.deep.equal([]);
      await cluster.restart();
      expect((await cluster.kvctl(['get', 'durable'])).text).to.equal('yes');
    });

    it('takes its nodes with it when it is killed', async () => {
      const pids = [...cluster.runner.nodePids().values()];
      expect(pids.filter(isRunning)).to.have.length(3);
      cluster.runner.process.kill('SIGKILL');
      await ended(pids);
    });

    it('ends at once at the second Ctrl-C', async () => {
      await cluster.restart();
      expect((await cluster.kvctl(['get', 'durable'])).text).to.equal('yes');
      const pids = [...cluster.runner.nodePids().values()];
      // A stopped process does not see SIGTERM: only SIGKILL ends it.
      for (const pid of pids) process.kill(pid, 'SIGSTOP');
      cluster.runner.process.kill('SIGINT');
      await cluster.runner.untilPrinted('stopping; again to end at once');
      expect(pids.filter(isRunning)).to.have.length(3);
      cluster.runner.process.kill('SIGINT');
      await cluster.runner.ended();
      await ended(pids);
    });

    it('becomes as many nodes as it is started with, with the same data', async () => {
      await cluster.restart(['--nodes', '2']);
      await cluster.runner.untilPrinted('the cluster has 2 members and is in order');
      await cluster.runner.untilPrinted('kv-2 has left and is stopped');
      expect((await cluster.kvctl(['get', 'durable'])).text).to.equal('yes');
    });
  });

  describe('as a child of npm', () => {
    let directory: string;

    beforeEach(() => {
      directory = mkdtempSync(join(tmpdir(), 'kvcluster-npm-'));
    });

    afterEach(() => rmSync(directory, { recursive: true, force: true }));

    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      it(`ends with its nodes when npm alone gets ${signal}`, async () => {
        const flags = ['--data-dir', directory, '--base-port', '0', '--nodes', '1'];
        const npm = new LocalRunner(flags, NPM_START);
        try {
          await npm.untilPrinted('is ready');
          const pids = [...npm.nodePids().values()];
          expect(pids.filter(isRunning)).to.have.length(1);
          npm.process.kill(signal);
          await ended(pids);
          // Its output closes with the last process that holds it: the runner.
          await npm.ended();
        } finally {
          await npm.dispose();
        }
      });
    }
  });

  describe('before it starts anything', () => {
    let directory: string;

    beforeEach(() => {
      directory = mkdtempSync(join(tmpdir(), 'kvcluster-runner-'));
    });

    afterEach(() => rmSync(directory, { recursive: true, force: true }));

    async function refusal(...flags: string[]): Promise<{ code: number; output: string }> {
      const runner = new LocalRunner(['--data-dir', join(directory, 'data'), ...flags]);
      try {
        return { code: await runner.ended(), output: runner.output };
      } finally {
        await runner.dispose();
      }
    }

    it('names a port that is taken', async () => {
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      try {
        const { port } = server.address() as AddressInfo;
        // The taken port is the first peer's.
        const { code, output } = await refusal('--base-port', String(port - 1000), '--nodes', '1');
        expect(code).to.equal(1);
        expect(output.trim().split('\n')).to.have.length(1);
        expect(output).to.contain(`port ${port} is taken`).and.contain('--base-port');
      } finally {
        server.close();
      }
    });

    it('tells wrong use from a directory that cannot be made, in one line each', async () => {
      const wrong = await refusal('--nodes', 'many');
      expect(wrong.code).to.equal(2);
      expect(wrong.output).to.contain('--nodes must be a whole number');
      const runner = new LocalRunner(['--data-dir', '/proc/nowhere/data', '--base-port', '0']);
      expect(await runner.ended()).to.equal(1);
      expect(runner.output).to.match(/^kvcluster: cannot make the directory \/proc\/nowhere\/data.*\n$/);
    });
  });
});
