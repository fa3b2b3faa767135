import { expect } from 'chai';
import { parseEndpoints } from '../../../client/endpoint-list.ts';
import { parseDurationMs } from '../../../client/kvctl/duration.ts';
import { formatBytes, jsonBytes } from '../../../client/kvctl/output.ts';
import { clusterDomainOf, fullServiceName, targetOf } from '../../../client/members.ts';
import type { Member } from '../../../model/cluster-map.ts';
import { compareNatural } from '../../../model/natural-order.ts';

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
