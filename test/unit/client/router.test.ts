import { expect } from 'chai';
import type { Endpoint } from '../../../client/endpoint.ts';
import { memberAddress } from '../../../client/member-address.ts';
import { Router } from '../../../client/router.ts';
import { type ClusterMap, type Member, sealMap } from '../../../model/cluster-map.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import { ManualTime } from '../../support/manual-time.ts';

const member = (nodeId: string): Member => ({
  nodeId,
  host: '127.0.0.1',
  clientPort: Number(nodeId.slice(3)) + 1,
  peerPort: 100,
  httpPort: 200,
  zone: '',
  state: 'active',
  pod: nodeId,
});
const mapOf = (
  epoch: number,
  names: readonly string[],
  assignment: number[][],
  clusterId = 'c',
): ClusterMap =>
  sealMap({
    clusterId,
    namespace: 'ns',
    name: 'kv',
    epoch,
    partitions: assignment.length,
    replicationFactor: 2,
    initialised: true,
    members: names.map(member),
    retired: [],
    assignment,
  });

/** What the router sees of an endpoint. */
class FakeEndpoint {
  readonly address: string;
  isConnected = true;
  load = 0;
  dialed = 0;
  closed = false;

  constructor(address: string) {
    this.address = address;
  }

  dial(): void {
    this.dialed += 1;
  }

  close(): void {
    this.closed = true;
  }
}

describe('routing', () => {
  const endpoints = new Map<string, FakeEndpoint>();
  let time: ManualTime;
  let map: ClusterMap | undefined;
  let fetched = 0;
  let router: Router;

  const endpoint = (address: string): FakeEndpoint => {
    let known = endpoints.get(address);
    if (known === undefined) endpoints.set(address, (known = new FakeEndpoint(address)));
    return known;
  };
  const open = (address: string): Endpoint => endpoint(address) as unknown as Endpoint;
  const chosen = (key: string, isRead = false, tried: readonly string[] = []): string | undefined =>
    router.choose({ key: Buffer.from(key), isRead }, new Set(tried.map(open)))?.address;

  beforeEach(() => {
    endpoints.clear();
    time = new ManualTime();
    fetched = 0;
    map = mapOf(
      3,
      ['kv-0', 'kv-1', 'kv-2'],
      [
        [0, 1],
        [1, 2],
        [2, 0],
      ],
    );
    router = new Router({
      seeds: [open('seed:1'), open('seed:2')],
      firstSeed: 0,
      openEndpoint: open,
      addressOf: ({ clientPort }) => `member:${clientPort}`,
      fetchMap: () => {
        fetched += 1;
        return map === undefined ? Promise.reject(new Error('no')) : Promise.resolve(map);
      },
      clock: time.clock(),
      scheduler: time.scheduler(),
    });
  });

  /** A key of the partition. */
  const keyIn = (partition: number): string => {
    for (let index = 0; ; index += 1) {
      if (partitionOf(Buffer.from(`key-${index}`), 3) === partition) return `key-${index}`;
    }
  };
  const follow = async (): Promise<void> => {
    router.follow();
    await time.advance(1);
  };

  it('takes the first seed until it knows the map', () => {
    expect(chosen(keyIn(0))).to.equal('seed:1');
    expect(fetched).to.equal(0);
  });

  it('takes the preferred replica of the key, another replica when that one was tried, then any node', async () => {
    await follow();
    expect([0, 1, 2].map((partition) => chosen(keyIn(partition)))).to.deep.equal([
      'member:1',
      'member:2',
      'member:3',
    ]);
    expect(chosen(keyIn(0), false, ['member:1'])).to.equal('member:2');
    expect(chosen(keyIn(0), false, ['member:1', 'member:2'])).to.equal('seed:1');
    expect(chosen(keyIn(0), false, ['member:1', 'member:2', 'seed:1', 'seed:2'])).to.equal('member:3');
    const all = ['member:1', 'member:2', 'member:3', 'seed:1', 'seed:2'];
    expect(chosen(keyIn(0), false, all)).to.equal(undefined);
  });

  it('waits for no member: seeds serve while none is connected', async () => {
    await follow();
    for (const address of ['member:1', 'member:2', 'member:3']) endpoint(address).isConnected = false;
    expect(chosen(keyIn(0))).to.equal('seed:1');
    expect(chosen(keyIn(0), false, ['seed:1', 'seed:2'])).to.equal(undefined);
    await time.advance(10_001);
    expect(endpoint('member:1').dialed).to.equal(2);
  });

  it('leaves a node alone for a second after it failed', async () => {
    await follow();
    router.avoid(open('member:1'));
    router.avoid(open('seed:1'));
    expect(chosen(keyIn(0))).to.equal('member:2');
    expect(router.choose(undefined, new Set())?.address).to.equal('seed:2');
    await time.advance(1001);
    expect(chosen(keyIn(0))).to.equal('member:1');
  });

  it('reads from a replica that has far less to do, and writes by the preferred one all the same', async () => {
    await follow();
    endpoint('member:1').load = 1000;
    expect(chosen(keyIn(0), true)).to.equal('member:2');
    expect(chosen(keyIn(0), false)).to.equal('member:1');
    endpoint('member:2').load = 900;
    expect(chosen(keyIn(0), true)).to.equal('member:1');
  });

  it('fetches the map when a node has a newer one, and closes what is no member any more', async () => {
    await follow();
    router.noteEpoch(3);
    await time.advance(1);
    expect(fetched).to.equal(1);
    map = mapOf(
      4,
      ['kv-1', 'kv-2'],
      [
        [0, 1],
        [1, 0],
        [1, 0],
      ],
    );
    router.noteEpoch(4);
    await time.advance(1);
    expect(fetched).to.equal(2);
    expect(chosen(keyIn(0))).to.equal('member:2');
    expect([endpoint('member:1').closed, endpoint('member:2').closed]).to.deep.equal([true, false]);
  });

  it('keeps its map when a node that is behind answers, and takes that of another cluster', async () => {
    await follow();
    const replicas = [
      [1, 0],
      [1, 0],
      [1, 0],
    ];
    map = mapOf(2, ['kv-0', 'kv-1', 'kv-2'], replicas);
    await time.advance(10_001);
    expect(chosen(keyIn(0))).to.equal('member:1');
    map = mapOf(1, ['kv-0', 'kv-1', 'kv-2'], replicas, 'another');
    await time.advance(10_001);
    expect(chosen(keyIn(0))).to.equal('member:2');
  });

  it('goes on without a map that nobody gives', async () => {
    map = undefined;
    await follow();
    expect(chosen(keyIn(0))).to.equal('seed:1');
    await time.advance(10_001);
    expect(fetched).to.equal(2);
  });

  it('closes everything it opened, once', async () => {
    await follow();
    router.close();
    router.close();
    expect([...endpoints.values()].every(({ closed }) => closed)).to.equal(true);
    await time.advance(60_000);
    expect(fetched).to.equal(1);
  });
});

describe('where a member is', () => {
  const map = mapOf(1, ['kv-0'], [[0]]);
  for (const [host, address] of [
    ['10.0.0.7', '10.0.0.7:1'],
    ['fd00::7', '[fd00::7]:1'],
    ['kv-0', 'kv-0.kv-headless.ns.svc:1'],
  ] as const) {
    it(`is ${address} for ${host}`, () => {
      expect(memberAddress({ ...member('kv-0'), host }, map)).to.equal(address);
    });
  }
});
