import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import { createServer, type AddressInfo } from 'node:net';
import { readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createAdminClient } from '../../client/admin-client.ts';
import { plaintext } from '../../client/grpc.ts';
import { PROOF_WINDOW_MS } from '../../common/call-proof.ts';
import { systemClock } from '../../common/clock.ts';
import { systemRandom } from '../../common/random.ts';
import { sealMap, type ClusterMap } from '../../model/cluster-map.ts';
import { AdminClient as AdminStub } from '../../proto/gen/admin.ts';
import { status } from '../../node/rpc/grpc.ts';
import { firstMap, NodeHome, NodeProcess } from '../support/node-process.ts';
import { PlainClient, unary, type WireError } from '../support/unary.ts';
import { waitFor } from '../support/wait.ts';

const main = join(import.meta.dirname, '../../node/main.ts');

describe('the life of a node process', () => {
  it('is alive and not ready until it has a map, then ready', async () => {
    using home = new NodeHome();
    await using node = await NodeProcess.start({ home });
    expect(await node.http('/healthz')).to.deep.equal({ status: 200, body: 'ok\n' });
    expect(await node.http('/readyz')).to.deep.equal({
      status: 503,
      body: 'sample-0 has no cluster map yet\n',
    });
    using client = new PlainClient(node.client());
    expect(await client.put('a', 'b').catch((error: unknown) => error)).to.include({
      code: status.UNAVAILABLE,
    });
    await node.joinAlone();
    expect(await node.http('/readyz')).to.deep.equal({ status: 200, body: 'ok\n' });
    await client.put('a', 'b');
    expect(await client.get('a')).to.equal('b');
  });

  it('keeps what it acknowledged, and its map, over a restart', async () => {
    using home = new NodeHome();
    {
      await using first = await NodeProcess.startAlone({ home });
      using client = new PlainClient(first.client());
      await client.put('a', 'b');
      expect(await first.kill('SIGTERM')).to.deep.equal({ code: 0, signal: null });
    }
    await using second = await NodeProcess.start({ home });
    await second.ready();
    using client = new PlainClient(second.client());
    expect(await client.get('a')).to.equal('b');
  });

  it('refuses a data directory in use, in one line', async () => {
    using home = new NodeHome();
    await using first = await NodeProcess.start({ home });
    const second = NodeProcess.spawn({ home, flags: { 'node-id': 'sample-0' } });
    expect(await second.exited).to.deep.equal({ code: 1, signal: null });
    expect(second.stderr).to.match(/^kvcluster node: data directory \S+ is in use by another process: .*\n$/);
    expect((await first.http('/healthz')).status).to.equal(200);
  });

  it('refuses the volume of another node, naming both', async () => {
    using home = new NodeHome();
    {
      await using first = await NodeProcess.start({ home });
      await first.kill('SIGTERM');
    }
    const other = NodeProcess.spawn({ home, flags: { 'node-id': 'sample-1' } });
    expect(await other.exited).to.deep.equal({ code: 1, signal: null });
    expect(other.stderr).to.contain('this volume belongs to node sample-0, and this node is sample-1');
  });

  for (const port of ['client-port', 'peer-port', 'http-port']) {
    it(`refuses a taken ${port}, in one line`, async () => {
      using home = new NodeHome();
      const taken = createServer();
      await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
      const number = (taken.address() as AddressInfo).port;
      const node = NodeProcess.spawn({ home, flags: { [port]: String(number) } });
      try {
        expect(await node.exited).to.deep.equal({ code: 1, signal: null });
        expect(node.stderr).to.equal(
          `kvcluster node: cannot listen on 127.0.0.1:${number}: the port is in use by another process\n`,
        );
      } finally {
        taken.close();
      }
    });
  }

  it('refuses unknown and missing flags, all at once, and prints help', () => {
    const run = (...flags: string[]) => spawnSync(process.execPath, [main, ...flags], { encoding: 'utf8' });
    const bad = run('--bogus', '--node-id', 'a-0');
    expect(bad.status).to.equal(2);
    expect(bad.stderr.trim().split('\n')).to.deep.equal([
      'kvcluster node: unknown flag --bogus',
      'kvcluster node: --cluster-name is required',
      'kvcluster node: --data-dir is required',
      'kvcluster node: --secret-file is required',
      'See --help for all flags.',
    ]);
    const help = run('--help');
    expect(help.status).to.equal(0);
    expect(help.stdout).to.contain('--secret-file FILE');
  });

  it('refuses a secret that is none, and never logs the one it has', async () => {
    using home = new NodeHome();
    const short = join(home.directory, 'short');
    writeFileSync(short, 'abc');
    const refused = NodeProcess.spawn({ home, flags: { 'secret-file': short } });
    expect(await refused.exited).to.deep.equal({ code: 1, signal: null });
    expect(refused.stderr).to.contain('has 3 bytes');
    const text = 'a secret that would be easy to find in a log';
    writeFileSync(home.secretFile, text);
    await using node = await NodeProcess.start({ home, flags: { 'log-level': 'debug' } });
    await node.kill('SIGTERM');
    expect(JSON.stringify(node.log)).to.contain('starting').and.not.contain(text);
  });

  it('sets a corrupt store aside, loudly, and starts blank', async () => {
    using home = new NodeHome();
    {
      await using first = await NodeProcess.startAlone({ home });
      await first.kill('SIGTERM');
    }
    const state = join(home.dataDir('sample-0'), 'state');
    for (const name of readdirSync(state)) writeFileSync(join(state, name), Buffer.alloc(65_536, 0xa5));
    await using node = await NodeProcess.start({ home });
    expect(node.log.find(({ level }) => level === 'error')?.['msg']).to.match(/^THE STORE IS CORRUPT/);
    expect(readdirSync(home.dataDir('sample-0'))).to.include('quarantine-1');
    expect((await node.http('/readyz')).body).to.contain('no cluster map');
  });

  it('stops for good when its store cannot write any more, and keeps what it acknowledged', async () => {
    using home = new NodeHome();
    const log = join(home.dataDir('sample-0'), 'log');
    let acked = 0;
    {
      await using node = await NodeProcess.startAlone({ home });
      using client = new PlainClient(node.client());
      // The open segment still takes entries; the next one cannot be made.
      renameSync(log, `${log}.away`);
      const value = Buffer.alloc(1024 * 1024);
      while (acked < 100) {
        const stored = await client.put(`big-${acked}`, value).then(
          () => true,
          () => false,
        );
        if (!stored) break;
        acked += 1;
      }
      expect(await node.exited).to.deep.equal({ code: 1, signal: null });
      expect(node.stderr).to.match(/^kvcluster node: the store has failed.*\n$/);
    }
    expect(acked).to.be.within(5, 40);
    renameSync(`${log}.away`, log);
    await using node = await NodeProcess.start({ home });
    await node.ready();
    using client = new PlainClient(node.client());
    for (let index = 0; index < acked; index += 1) {
      expect(await client.get(`big-${index}`), `big-${index}`).to.have.length(1024 * 1024);
    }
  });

  it('leaves when the map retires its incarnation, and comes back blank', async () => {
    using home = new NodeHome();
    const admin = home.admin();
    try {
      let map: ClusterMap;
      {
        await using node = await NodeProcess.startAlone({ home });
        const { volume } = await admin.status(node.adminTarget);
        const { hash, ...held } = (await admin.getMap(node.adminTarget)) ?? firstMap([node.member]);
        const retired = [{ nodeId: 'sample-0', incarnation: volume?.incarnation ?? 0 }];
        map = sealMap({ ...held, epoch: 2, initialised: true, retired });
        // It may be gone before it can answer.
        await admin.proposeMap(node.adminTarget, map, { epoch: 1, hash }).catch(() => undefined);
        expect(await node.exited).to.deep.equal({ code: 1, signal: null });
        expect(node.stderr).to.match(
          /^kvcluster node: the cluster map retired incarnation \d+ of sample-0\n$/,
        );
      }
      await using node = await NodeProcess.start({ home });
      const answer = await admin.status(node.adminTarget);
      expect(answer.volume?.clusterId ?? '').to.equal('');
      expect(answer.volume?.incarnation).not.to.equal(map.retired[0]?.incarnation);
      expect(readdirSync(home.dataDir('sample-0'))).to.include('quarantine-1');
    } finally {
      admin.close();
    }
  });

  describe('stopping', () => {
    it('serves a while, then refuses, and exits 0 with everything that it acknowledged (scenario 20)', async () => {
      using home = new NodeHome();
      const acked = new Map<string, string>();
      /** Writes without an answer of the node, by key: applied or not. */
      const unknown = new Map<string, string>();
      const codes = new Set<number>();
      let lastAckMs = 0;
      {
        await using node = await NodeProcess.startAlone({ home, flags: { 'drain-serve-ms': '500' } });
        using client = new PlainClient(node.client());
        let stop = false;
        const write = async (writer: number): Promise<void> => {
          for (let round = 0; !stop; round += 1) {
            const key = `${writer}/${round % 10}`;
            try {
              await client.put(key, String(round));
              acked.set(key, String(round));
              unknown.delete(key);
              lastAckMs = performance.now();
            } catch (error) {
              const { code, metadata } = error as WireError;
              codes.add(code);
              if (metadata.get('kv-retryable')[0] !== 'true') unknown.set(key, String(round));
              await new Promise((resolve) => setTimeout(resolve, 5));
            }
          }
        };
        const writers = Array.from({ length: 20 }, (_, writer) => write(writer));
        await waitFor({ what: '200 keys', timeoutMs: 10_000, intervalMs: 5 }, () => acked.size === 200);
        const signalledMs = performance.now();
        const exit = node.kill('SIGTERM');
        await waitFor({ what: 'it to be not ready', timeoutMs: 3000, intervalMs: 5 }, async () => {
          const { status: code, body } = await node.http('/readyz');
          return code === 503 && body === 'shutting down\n';
        });
        expect(await exit).to.deep.equal({ code: 0, signal: null });
        stop = true;
        await Promise.all(writers);
        // Connections that were asked to go are made anew, and served to the end of the while.
        expect(lastAckMs - signalledMs).to.be.greaterThan(350);
      }
      expect([...codes]).to.deep.equal([status.UNAVAILABLE]);
      await using node = await NodeProcess.start({ home });
      await node.ready();
      using client = new PlainClient(node.client());
      for (const [key, value] of acked) {
        expect([value, unknown.get(key)], key).to.include(await client.get(key));
      }
    });

    it('exits at once at the second signal', async () => {
      using home = new NodeHome();
      await using node = await NodeProcess.startAlone({ home, flags: { 'drain-serve-ms': '60000' } });
      void node.kill('SIGINT');
      await waitFor({ what: 'the first signal', timeoutMs: 3000, intervalMs: 5 }, () =>
        node.log.some(({ msg }) => msg === 'signal received'),
      );
      expect(await node.kill('SIGINT')).to.deep.equal({ code: 1, signal: null });
    });
  });

  describe('around the data', () => {
    const home = new NodeHome();
    let node: NodeProcess;
    before(async () => {
      node = await NodeProcess.startAlone({ home });
    });
    after(async () => {
      await node[Symbol.asyncDispose]();
      home[Symbol.dispose]();
    });

    it('shows metrics that Prometheus can read', async () => {
      using client = new PlainClient(node.client());
      await client.put('measured', 'x');
      await client.get('').catch(() => undefined);
      const { body } = await node.http('/metrics');
      const samples = body.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
      for (const line of samples) {
        expect(line).to.match(
          /^[a-z_][a-z0-9_]*(\{[a-zA-Z0-9_]+="[^"]*"(,[a-zA-Z0-9_]+="[^"]*")*\})? (-?[0-9.e+-]+|NaN|\+Inf)$/,
        );
      }
      expect(body).to.match(/kv_operations_total\{rpc="KeyValueStore\/Put",code="OK"\} \d+/);
      expect(body).to.match(/kv_operations_total\{rpc="KeyValueStore\/Get",code="INVALID_ARGUMENT"\} 1/);
      expect(body).to.match(
        /kv_operation_duration_seconds_bucket\{le="0.005",rpc="KeyValueStore\/Put"\} \d+/,
      );
      for (const name of [
        'kv_store_records',
        'kv_store_log_bytes',
        'kv_store_state_bytes',
        'kv_store_overlay_bytes',
      ]) {
        expect(body, name).to.match(new RegExp(`^${name} \\d+$`, 'm'));
      }
      for (const line of [
        'kv_map_epoch 1',
        'kv_readable 1',
        'kv_ready 1',
        'kv_store_failed 0',
        'kv_store_version_conflicts 0',
      ]) {
        expect(samples).to.include(line);
      }
      expect(body)
        .to.match(/^kv_sync_group_entries_sum [1-9]/m)
        .and.match(/^kv_sync_duration_seconds_count [1-9]/m);
      expect(body).to.contain('process_resident_memory_bytes').and.contain('nodejs_eventloop_lag_seconds');
      expect(body).not.to.contain('measured');
    });

    it('answers nothing else over HTTP', async () => {
      expect((await node.http('/')).status).to.equal(404);
      const posted = await fetch(`http://127.0.0.1:${node.ports.httpPort}/metrics`, { method: 'POST' });
      expect(posted.status).to.equal(405);
    });

    it('reports its status to who knows the secret', async () => {
      const admin = home.admin();
      try {
        const answer = await admin.status(node.adminTarget);
        expect(answer).to.include({
          nodeId: 'sample-0',
          ready: true,
          notReadyReason: '',
          epoch: 1,
          draining: false,
        });
        expect(answer.diskTotalBytes).to.be.greaterThan(answer.diskFreeBytes);
        expect(answer.uptimeMs).to.be.greaterThan(0);
      } finally {
        admin.close();
      }
    });

    const strangers: readonly [string, Parameters<typeof createAdminClient>[0], string, string][] = [
      [
        'another secret',
        { secret: Buffer.alloc(32), sender: 'x', clock: systemClock, random: systemRandom },
        'sample-0',
        'UNAUTHENTICATED',
      ],
      [
        'another recipient',
        { secret: home.secret, sender: 'x', clock: systemClock, random: systemRandom },
        'sample-1',
        'PERMISSION_DENIED',
      ],
    ];
    for (const [what, options, nodeId, code] of strangers) {
      it(`refuses admin calls with ${what}`, async () => {
        const admin = createAdminClient(options);
        const target = { ...node.adminTarget, nodeId };
        const records = admin.streamRecords(target, {}, new AbortController().signal);
        const calls = [
          () => admin.status(target),
          () => admin.getMap(target),
          () => records[Symbol.asyncIterator]().next(),
        ];
        for (const call of calls) {
          expect(
            await call().then(
              () => undefined,
              (error: unknown) => error,
            ),
          ).to.include({ code });
        }
        admin.close();
      });
    }

    it('refuses admin calls without a proof, and counts them', async () => {
      const stub = new AdminStub(node.adminTarget.address, plaintext());
      const error = await unary<unknown>((metadata, options, done) =>
        stub.getStatus({}, metadata, options, done),
      ).catch((thrown: unknown) => thrown);
      stub.close();
      expect(error).to.include({ code: status.UNAUTHENTICATED });
      expect((await node.http('/metrics')).body).to.match(
        /kv_refused_calls_total\{rpc="Admin\/GetStatus",reason="no-proof"\} 1/,
      );
    });

    it('lets in an administrator whose clock is off, at the second try', async () => {
      const late = {
        ...systemClock,
        wallMs: () => systemClock.wallMs() - 2 * PROOF_WINDOW_MS,
        monotonicMs: () => systemClock.monotonicMs(),
      };
      const admin = createAdminClient({
        secret: home.secret,
        sender: 'x',
        clock: late,
        random: systemRandom,
        deadlineMs: 4 * PROOF_WINDOW_MS,
      });
      try {
        expect((await admin.status(node.adminTarget)).nodeId).to.equal('sample-0');
        expect((await node.http('/metrics')).body).to.contain('reason="outside-window"} 1');
      } finally {
        admin.close();
      }
    });

    it('logs no key and no value', async () => {
      using client = new PlainClient(node.client());
      await client.put('key-that-nobody-may-see', 'value-that-nobody-may-see');
      await client.list({ prefix: 'key-that-nobody-may-see', pageSize: 20_000 }).catch(() => undefined);
      expect(JSON.stringify(node.log)).not.to.contain('nobody-may-see');
    });
  });
});
