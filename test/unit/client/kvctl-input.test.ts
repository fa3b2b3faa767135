import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseEndpoints } from '../../../client/endpoint-list.ts';
import { clusterDomainOf, fullServiceName } from '../../../client/headless-service.ts';
import { parseDurationMs } from '../../../client/kvctl/duration.ts';
import { formatBytes, jsonBytes } from '../../../client/kvctl/output.ts';
import { targetOf } from '../../../client/members.ts';
import type { Member } from '../../../model/cluster-map.ts';
import { compareNatural } from '../../../model/natural-order.ts';
import { type KvctlResult, kvctl } from '../../support/local-cluster.ts';

describe('what people write to kvctl', () => {
  for (const [text, expected] of [
    ['500ms', 500],
    ['30s', 30_000],
    ['1.5s', 1500],
    ['1h30m', 5_400_000],
    ['7d', 604_800_000],
    ['', undefined],
    ['30', undefined],
    ['30 s', undefined],
    ['s', undefined],
    ['-5s', undefined],
    ['5y', undefined],
    ['99999999999999999d', undefined],
  ] as const) {
    it(`reads the duration "${text}" as ${expected ?? 'none'}`, () => {
      expect(parseDurationMs(text)).to.equal(expected);
    });
  }

  it('reads endpoints, with the usual port where none is named', () => {
    expect(parseEndpoints('kv.default.svc, 10.0.0.1:7000,[::1]:50051,kv.default.svc:50051')).to.deep.equal([
      'kv.default.svc:50051',
      '10.0.0.1:7000',
      '[::1]:50051',
    ]);
    for (const wrong of ['', ',', 'a:b', 'a:0', 'a:70000', 'http://a:1', 'a b:1', '::1']) {
      expect(() => parseEndpoints(wrong), wrong).to.throw(/endpoint/);
    }
  });

  it('shows sizes and bytes for people', () => {
    expect([0, 1023, 1024, 1536, 5 * 1024 ** 3].map(formatBytes)).to.deep.equal([
      '0 B',
      '1023 B',
      '1.0 KiB',
      '1.5 KiB',
      '5.0 GiB',
    ]);
    expect(jsonBytes(Buffer.from('grüße'))).to.deep.equal({ text: 'grüße' });
    expect(jsonBytes(Buffer.from([0xff, 0]))).to.deep.equal({ base64: '/wA=' });
  });
});

describe('the connection options of kvctl', () => {
  // Nothing listens there, so the error names the endpoint that was used.
  const [first, second] = ['127.0.0.1:1', '127.0.0.1:2'];
  let directory: string;

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'kvctl-options-'));
  });

  after(() => rmSync(directory, { recursive: true, force: true }));

  for (const [line, endpoint] of [
    [`--endpoints ${first} --timeout 50ms put a b`, first],
    [`--timeout=50ms put a b --endpoints=${first}`, first],
    [`--endpoints ${first} get a --endpoints ${second} --timeout 50ms`, second],
    [`--endpoints ${first} list --timeout 50ms`, first],
  ] as const) {
    it(`stand before and after the command: ${line}`, async () => {
      const { code, stderr } = await kvctl(line.split(' '), { directory });
      expect(code).to.equal(1);
      expect(stderr).to.contain(`tried ${endpoint} for 50 ms`);
    });
  }

  it('win over the environment from either place', async () => {
    process.env['KVCTL_ENDPOINTS'] = first;
    try {
      for (const [line, endpoint] of [
        ['--timeout 50ms get a', first],
        [`--timeout 50ms --endpoints ${second} get a`, second],
        [`--timeout 50ms get a --endpoints ${second}`, second],
      ] as const) {
        expect((await kvctl(line.split(' '), { directory })).stderr, line).to.contain(`tried ${endpoint}`);
      }
    } finally {
      delete process.env['KVCTL_ENDPOINTS'];
    }
  });

  it('reach a command of a group from before either name', async () => {
    for (const line of [
      '--data-dir nowhere backup create --target backups',
      'backup --data-dir nowhere create --target backups',
      'backup create --target backups --data-dir nowhere',
    ]) {
      const { code, stderr } = await kvctl(line.split(' '), { directory });
      expect(code, line).to.equal(1);
      expect(stderr, line).to.contain(join(directory, 'nowhere'));
    }
  });

  it('are refused before a command that has them not, as after it', async () => {
    for (const [line, message] of [
      [`--endpoints ${first} status`, 'status has no option --endpoints'],
      [`status --endpoints ${first}`, "unknown option '--endpoints'"],
      ['--secret-file key backup list --target backups', 'list has no option --secret-file'],
      ['--service a.b status --members a=b:1', 'cannot be used with'],
      ['--timeout 30 get a', '500ms, 30s'],
    ] as const) {
      const { code, stderr } = await kvctl(line.split(' '), { directory });
      expect(code, line).to.equal(2);
      expect(stderr, line).to.contain(message);
    }
  });

  it('are shown with the program and with the command', async () => {
    expect((await kvctl(['--help'])).text)
      .to.contain('--endpoints')
      .and.contain('--service');
    expect((await kvctl(['get', '--help'])).text)
      .to.contain('--endpoints')
      .and.not.contain('--service');
  });
});

describe('kvctl backup list', () => {
  let directory: string;

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'kvctl-backups-'));
  });

  after(() => rmSync(directory, { recursive: true, force: true }));

  const list = (target: string): Promise<KvctlResult> =>
    kvctl(['backup', 'list', '--target', target], { directory });

  it('tells a directory that does not exist from one without backups', async () => {
    const missing = await list('mistyped');
    expect(missing).to.include({ code: 1, text: '' });
    expect(missing.stderr).to.contain('cannot read the directory of backups').and.contain('/mistyped');
    const empty = await list('.');
    expect(empty).to.include({ code: 0, stderr: '' });
    expect(empty.text).to.match(/^ID .* STATE\n$/);
  });
});

describe('where members are', () => {
  const member: Member = {
    nodeId: 'kv-1',
    host: 'kv-1',
    clientPort: 50_051,
    peerPort: 50_052,
    httpPort: 9090,
    zone: '',
    state: 'active',
    pod: 'kv-1',
  };

  it('takes the domain of the cluster from the search list of a pod', () => {
    const pod =
      'nameserver 10.0.0.10\nsearch ns.svc.example.org svc.example.org example.org\noptions ndots:5\n';
    expect(clusterDomainOf(pod)).to.equal('example.org');
    expect(clusterDomainOf('nameserver 1.1.1.1\n')).to.equal('cluster.local');
  });

  it('completes the name of a Service', async () => {
    expect(await fullServiceName('kv-headless.ns', 'cluster.local')).to.equal(
      'kv-headless.ns.svc.cluster.local',
    );
    expect(await fullServiceName('kv-headless.ns.svc.example.org')).to.equal(
      'kv-headless.ns.svc.example.org',
    );
    expect(await fullServiceName('kv.example.org.')).to.equal('kv.example.org');
  });

  it('finds a member by its name within the Service, or by the address in the map', () => {
    const service = { kind: 'service' as const, service: 'kv-headless.ns.svc.cluster.local' };
    const list = { kind: 'list' as const, targets: [] };
    expect(targetOf(member, service).address).to.equal('kv-1.kv-headless.ns.svc.cluster.local:50052');
    expect(targetOf({ ...member, host: '127.0.0.1' }, list).address).to.equal('127.0.0.1:50052');
    expect(targetOf({ ...member, host: '::1' }, list).address).to.equal('[::1]:50052');
  });

  it('orders names by their numbers', () => {
    const names = ['kv-10', 'kv-9', 'kv-1-w2', 'kv-1', 'kv-1-w10', 'a'];
    expect(names.toSorted(compareNatural)).to.deep.equal([
      'a',
      'kv-1',
      'kv-1-w2',
      'kv-1-w10',
      'kv-9',
      'kv-10',
    ]);
  });
});
