import { expect } from 'chai';
import { sealMap } from '../../../model/cluster-map.ts';
import { DnsDiscovery, type DnsDiscoveryOptions } from '../../../node/dns-discovery.ts';

const member = (nodeId: string, host: string) => ({
  nodeId,
  host,
  clientPort: 50051,
  peerPort: 50052,
  httpPort: 9090,
  zone: '',
  state: 'active' as const,
  pod: nodeId,
});

const map = sealMap({
  clusterId: '0'.repeat(32),
  namespace: 'shop',
  name: 'kv',
  epoch: 1,
  partitions: 1,
  replicationFactor: 3,
  initialised: true,
  members: [member('kv-0', 'kv-0'), member('kv-1', '10.0.0.7')],
  retired: [],
  assignment: [[0, 1]],
});

function discovery(resolve: NonNullable<DnsDiscoveryOptions['resolve']>): DnsDiscovery {
  return new DnsDiscovery({ clusterName: 'kv', namespace: 'shop', clusterDomain: 'example.org', resolve });
}

const failing = (code: string) => (): Promise<never> =>
  Promise.reject(Object.assign(new Error(`querySrv ${code}`), { code }));

describe('DNS discovery', () => {
  it('takes every pod of the headless Service as a candidate while there is no map', async () => {
    const asked: string[] = [];
    const found = await discovery((name) => {
      asked.push(name);
      return Promise.resolve([{ name: 'kv-2.kv-headless.shop.svc.example.org', port: 50052 }]);
    }).locate(undefined);
    expect(asked).to.deep.equal(['_peer._tcp.kv-headless.shop.svc.example.org']);
    expect(found).to.deep.equal([
      { nodeId: 'kv-2', host: 'kv-2.kv-headless.shop.svc.example.org', port: 50052 },
    ]);
  });

  it('finds members of a map by their names in the Service, or by the address the map has', async () => {
    expect(await discovery(failing('ESERVFAIL')).locate(map)).to.deep.equal([
      { nodeId: 'kv-0', host: 'kv-0.kv-headless.shop.svc.example.org', port: 50052 },
      { nodeId: 'kv-1', host: '10.0.0.7', port: 50052 },
    ]);
  });

  for (const code of ['ENOTFOUND', 'ENODATA']) {
    it(`finds nobody, without an error, while the answer is ${code}`, async () => {
      expect(await discovery(failing(code)).locate(undefined)).to.deep.equal([]);
    });
  }

  it('passes on that the resolver fails', async () => {
    const error: unknown = await discovery(failing('ESERVFAIL'))
      .locate(undefined)
      .catch((reason: unknown) => reason);
    expect(error).to.have.property('code', 'ESERVFAIL');
  });
});
