import { expect } from 'chai';
import { sealMap, type ClusterMap } from '../../../model/cluster-map.ts';
import { place } from '../../../model/placement.ts';
import { StaticDiscovery } from '../../../node/discovery.ts';

function mapOf(...hosts: readonly string[]): ClusterMap {
  const members = hosts.map((host, index) => ({
    nodeId: `sample-${index}`,
    host,
    clientPort: 50_051,
    peerPort: 50_052,
    httpPort: 9090,
    zone: '',
    state: 'active' as const,
    pod: host,
  }));
  return sealMap({
    clusterId: '0'.repeat(32),
    namespace: 'prod',
    name: 'sample',
    epoch: 1,
    partitions: 1,
    replicationFactor: 3,
    initialised: true,
    members,
    retired: [],
    assignment: place({ members, partitions: 1, replicationFactor: 3 }),
  });
}

describe('static discovery', () => {
  const listed = { nodeId: 'sample-0', host: '127.0.0.1', port: 51_052 };

  it('gives the list while there is no map', async () => {
    expect(await new StaticDiscovery([listed]).locate(undefined)).to.deep.equal([listed]);
  });

  it('gives the members of the map, at the listed address or else where the map says', async () => {
    expect(await new StaticDiscovery([listed]).locate(mapOf('10.0.0.1', '10.0.0.2'))).to.deep.equal([
      listed,
      { nodeId: 'sample-1', host: '10.0.0.2', port: 50_052 },
    ]);
  });
});
