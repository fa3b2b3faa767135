import { expect } from 'chai';
import { sealMap } from '../../../model/cluster-map.ts';
import { Refusal_Reason, type Hello, type PeerHeader } from '../../../proto/gen/peer.ts';
import { judgeHello } from '../../../node/cluster/handshake.ts';
import { judgeOwnPast } from '../../../node/cluster/own-past.ts';
import { rebuildSources, requiredReplicas } from '../../../node/replication/quorum.ts';
import { UnsyncedTail } from '../../../node/replication/unsynced-tail.ts';

describe('how many replicas take part', () => {
  const cases = [
    { replicas: 1, quorum: 1, sources: 1 },
    { replicas: 2, quorum: 2, sources: 1 },
    { replicas: 3, quorum: 2, sources: 2 },
    { replicas: 4, quorum: 3, sources: 2 },
    { replicas: 5, quorum: 3, sources: 3 },
  ];
  for (const { replicas, quorum, sources } of cases) {
    it(`of ${replicas}: ${quorum} at QUORUM, ${sources} to rebuild from`, () => {
      expect(requiredReplicas('ONE', replicas)).to.equal(1);
      expect(requiredReplicas('QUORUM', replicas)).to.equal(quorum);
      expect(requiredReplicas('ALL', replicas)).to.equal(replicas);
      expect(rebuildSources(replicas)).to.equal(sources);
    });
  }
});

describe('what a node concludes from what a peer remembers of it', () => {
  const own = { bootCounter: 5, recoveredHead: 100, sequenceCeiling: 4096, appliedOfPeer: 70 };
  const cursor = { incarnation: 1, sequence: 100, bootCounter: 4, durableHead: 90, tailAfter: 100 };
  const cases = [
    { name: 'nothing is known', cursor: undefined, acknowledged: 0, past: 'intact' },
    { name: 'the peer holds what it has itself', cursor, acknowledged: 70, past: 'intact' },
    { name: 'it has acknowledged what it does not have', cursor, acknowledged: 71, past: 'rolled-back' },
    {
      name: 'a later start is known',
      cursor: { ...cursor, bootCounter: 6 },
      acknowledged: 0,
      past: 'rolled-back',
    },
    {
      name: 'a sequence above its ceiling is known',
      cursor: { ...cursor, sequence: 4097, bootCounter: 5 },
      acknowledged: 0,
      past: 'rolled-back',
    },
    {
      name: 'entries of this very start are known',
      cursor: { ...cursor, sequence: 150, bootCounter: 5 },
      acknowledged: 0,
      past: 'intact',
    },
    {
      name: 'entries are missing that it had announced as synced',
      cursor: { ...cursor, sequence: 150, durableHead: 140, tailAfter: 0 },
      acknowledged: 0,
      past: 'rolled-back',
    },
    {
      name: 'entries are missing that it had not synced, and the peer has them',
      cursor: { ...cursor, sequence: 150, durableHead: 100, tailAfter: 100 },
      acknowledged: 0,
      past: 'tail-lost',
    },
    {
      name: 'entries are missing, and the peer no longer knows which',
      cursor: { ...cursor, sequence: 150, durableHead: 100, tailAfter: 150 },
      acknowledged: 0,
      past: 'unclear',
    },
  ];
  for (const { name, cursor: remembered, acknowledged, past } of cases) {
    it(`is "${past}" when ${name}`, () => {
      const memory = { cursor: remembered, acknowledged, isReplaced: false };
      expect(judgeOwnPast(own, memory)).to.equal(past);
    });
  }

  it('is "replaced" when another incarnation has taken its place, whatever else the peer remembers', () => {
    for (const remembered of [undefined, { ...cursor, sequence: 150, durableHead: 100, tailAfter: 150 }]) {
      const memory = { cursor: remembered, acknowledged: 0, isReplaced: true };
      expect(judgeOwnPast(own, memory)).to.equal('replaced');
    }
  });
});

describe('a Hello', () => {
  const member = (nodeId: string) => ({
    nodeId,
    host: nodeId,
    clientPort: 1,
    peerPort: 2,
    httpPort: 3,
    zone: '',
    state: 'active' as const,
    pod: nodeId,
  });
  const map = sealMap({
    clusterId: 'c1',
    namespace: 'ns',
    name: 'kv',
    epoch: 3,
    partitions: 1,
    replicationFactor: 3,
    initialised: true,
    members: [member('a'), member('b')],
    retired: [{ nodeId: 'b', incarnation: 66 }],
    assignment: [[0, 1]],
  });
  const self = { nodeId: 'a', clusterId: 'c1', namespace: 'ns', name: 'kv', map };
  const header: PeerHeader = { clusterId: 'c1', epoch: 3, sender: 'b', senderIncarnation: 7, recipient: 'a' };
  const hello: Hello = {
    minProtocol: 1,
    maxProtocol: 1,
    namespace: 'ns',
    name: 'kv',
    mapHash: map.hash,
    bootCounter: 4,
    nonce: 11,
    state: 2,
    head: 0,
    logStart: 0,
    applied: [],
    ackedByRecipient: 0,
    ackedIncarnation: 0,
    sequenceCeiling: 0,
    wallMs: 0,
    features: [],
    logBase: 0,
    recoveredHead: 0,
    uncleanBoot: 0,
    readable: Buffer.alloc(0),
    replaced: [],
  };
  const memory = {
    incarnation: 7,
    bootCounter: 4,
    nonce: 11,
    cursorBoot: 4,
    durableHead: 0,
    acknowledged: 0,
    replaced: [5],
  };
  const mapless = { clusterId: '', epoch: 0 };

  it('of a member with the same map is accepted, known or not', () => {
    expect(judgeHello(self, header, hello, memory).kind).to.equal('accept');
    expect(judgeHello(self, header, hello, undefined).kind).to.equal('accept');
    expect(judgeHello(self, header, { ...hello, bootCounter: 5, nonce: 12 }, memory).kind).to.equal('accept');
    expect(judgeHello(self, { ...header, senderIncarnation: 8 }, hello, memory).kind).to.equal('accept');
  });

  it('waits for the map when the sender has a newer one that may name it, or the recipient has none', () => {
    const stranger = { ...header, sender: 'z', epoch: 4 };
    expect(judgeHello(self, stranger, { ...hello, mapHash: 'x' }, undefined).kind).to.equal('await-map');
    expect(judgeHello({ ...self, clusterId: '', map: undefined }, header, hello, undefined).kind).to.equal(
      'await-map',
    );
  });

  const refusals: {
    name: string;
    header?: Partial<PeerHeader>;
    hello?: Partial<Hello>;
    reason: Refusal_Reason;
    withMap?: boolean;
  }[] = [
    { name: 'for another node', header: { recipient: 'b' }, reason: Refusal_Reason.WRONG_RECIPIENT },
    { name: 'of another cluster', header: { clusterId: 'c2' }, reason: Refusal_Reason.WRONG_CLUSTER },
    { name: 'of another name', hello: { name: 'other' }, reason: Refusal_Reason.WRONG_CLUSTER },
    { name: 'of another namespace', hello: { namespace: 'other' }, reason: Refusal_Reason.WRONG_CLUSTER },
    {
      name: 'of a later protocol',
      hello: { minProtocol: 2, maxProtocol: 9 },
      reason: Refusal_Reason.UNSUPPORTED_PROTOCOL,
    },
    { name: 'with another map of the epoch', hello: { mapHash: 'x' }, reason: Refusal_Reason.MAP_CONFLICT },
    { name: 'of a stranger', header: { sender: 'z' }, reason: Refusal_Reason.NOT_A_MEMBER },
    {
      name: 'of a former member',
      header: { sender: 'z', epoch: 2 },
      hello: { mapHash: 'x' },
      reason: Refusal_Reason.STALE_EPOCH,
      withMap: true,
    },
    {
      name: 'of a member without a map',
      header: mapless,
      hello: { mapHash: '' },
      reason: Refusal_Reason.STALE_EPOCH,
      withMap: true,
    },
    {
      name: 'of a stranger without a map',
      header: { ...mapless, sender: 'z' },
      hello: { mapHash: '' },
      reason: Refusal_Reason.NOT_A_MEMBER,
    },
    {
      name: 'of a retired incarnation',
      header: { senderIncarnation: 66 },
      reason: Refusal_Reason.RETIRED_INCARNATION,
      withMap: true,
    },
    {
      name: 'of a replaced incarnation',
      header: { senderIncarnation: 5 },
      reason: Refusal_Reason.RETIRED_INCARNATION,
    },
    { name: 'of an earlier start', hello: { bootCounter: 3 }, reason: Refusal_Reason.ROLLED_BACK },
    { name: 'of another process of that start', hello: { nonce: 12 }, reason: Refusal_Reason.COPIED_VOLUME },
  ];
  for (const { name, header: otherHeader, hello: otherHello, reason, withMap = false } of refusals) {
    it(`${name} is refused`, () => {
      const verdict = judgeHello(self, { ...header, ...otherHeader }, { ...hello, ...otherHello }, memory);
      expect(verdict).to.include({ kind: 'refuse', reason, withMap });
    });
  }
});

describe('the unsynced tail of a peer', () => {
  const entry = (sequence: number) => ({
    sequence,
    key: Buffer.from(`k${sequence}`),
    version: { wallMs: sequence, counter: 0, writer: 1 },
    requestId: undefined,
  });
  const start = { incarnation: 1, bootCounter: 1, recoveredHead: 0, cursor: 0 };

  it('gives back what a new start of the same volume has lost, and only that', () => {
    const tail = new UnsyncedTail();
    tail.begin(start);
    for (const sequence of [1, 2, 3, 4, 5]) tail.note(entry(sequence));
    tail.synced(2);
    expect(tail.afterOf(1)).to.equal(2);
    tail.begin({ ...start, bootCounter: 2, recoveredHead: 3, cursor: 5 });
    expect(tail.toReturn.map(({ sequence }) => sequence)).to.deep.equal([4, 5]);
    // What the new start announces is not about the entries of the old one.
    tail.note(entry(9));
    tail.synced(9);
    expect(tail.toReturn).to.have.length(2);
    tail.returned();
    expect(tail.toReturn).to.deep.equal([]);
  });

  it('keeps nothing of a volume that was replaced', () => {
    const tail = new UnsyncedTail();
    tail.begin(start);
    tail.note(entry(1));
    tail.begin({ ...start, incarnation: 2 });
    expect(tail.toReturn).to.deep.equal([]);
    expect(tail.afterOf(1)).to.equal(undefined);
  });
});
