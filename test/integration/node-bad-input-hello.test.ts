import { expect } from 'chai';
import { mapToProto } from '../../client/cluster-map-codec.ts';
import { liveRecord } from '../../node/storage/record.ts';
import { type Entry, type Hello, PeerFrame, type PeerHeader, Refusal_Reason } from '../../proto/gen/peer.ts';
import { BadInputStand, type RefusalReason, RETIRED_INCARNATION } from '../support/bad-input-stand.ts';
import type { FrameBody, RawPeer } from '../support/raw-peer.ts';

const NOBODY = 'nobody';
const key = Buffer.from('from-a-peer');
const record = liveRecord(key, Buffer.from('v'), { wallMs: 1, counter: 0, writer: 5 }).bytes;
const empty = Buffer.alloc(0);

const repair = (change: object): FrameBody => ({
  $case: 'repair',
  value: {
    id: 1,
    records: [{ key, record, horizonMs: 0, ...change }],
    returned: false,
    finished: undefined,
    forRead: false,
    returnedWrites: [],
  },
});
const entry = (change: Partial<Entry> = {}): Entry => ({
  sequence: 1,
  key,
  record,
  requestId: undefined,
  ...change,
});
const entries = (list: Entry[], range: { after?: number; through?: number } = {}): FrameBody => ({
  $case: 'entries',
  value: { after: 0, through: 1, entries: list, provisional: false, durableHead: 0, ...range },
});
describe('a peer that cannot be let in', () => {
  let stand: BadInputStand;
  before(async () => {
    stand = await BadInputStand.open();
  });
  after(() => stand[Symbol.asyncDispose]());

  it('is told from good input: a sound repair is applied, and the comparison sees it', async () => {
    const earlier = await stand.fingerprint();
    using peer = await stand.stranger();
    await peer.join();
    peer.send(repair({}));
    await peer.next('repairReply');
    expect((await stand.fingerprint()).records).to.not.equal(earlier.records);
  });

  describe('before the handshake is refused', () => {
    const hellos: readonly {
      what: string;
      hello?: Partial<Hello>;
      header?: Partial<PeerHeader>;
      reason: RefusalReason;
      words: RegExp;
    }[] = [
      {
        what: 'another cluster id',
        header: { clusterId: 'f'.repeat(32) },
        reason: 'WRONG_CLUSTER',
        words: /belongs to cluster [0-9a-f]{32}/,
      },
      {
        what: 'another namespace',
        hello: { namespace: 'other' },
        reason: 'WRONG_CLUSTER',
        words: /default\/sample/,
      },
      { what: 'another name', hello: { name: 'other' }, reason: 'WRONG_CLUSTER', words: /default\/sample/ },
      {
        what: 'another recipient',
        header: { recipient: 'sample-2' },
        reason: 'WRONG_RECIPIENT',
        words: /this is sample-0, not sample-2/,
      },
      {
        what: 'a name that the map does not list',
        header: { sender: NOBODY },
        reason: 'NOT_A_MEMBER',
        words: /does not list nobody/,
      },
      { what: 'an old epoch', header: { epoch: 1 }, reason: 'STALE_EPOCH', words: /epoch 1.*epoch 2|newer/s },
      {
        what: 'no map',
        header: { epoch: 0 },
        hello: { mapHash: '' },
        reason: 'STALE_EPOCH',
        words: /here is the cluster map/,
      },
      {
        what: 'the same epoch with another hash',
        hello: { mapHash: 'e'.repeat(64) },
        reason: 'MAP_CONFLICT',
        words: /epoch 2 has hash/,
      },
      {
        what: 'a retired incarnation',
        header: { senderIncarnation: RETIRED_INCARNATION },
        reason: 'RETIRED_INCARNATION',
        words: /retired/,
      },
      {
        what: 'a protocol of the future',
        hello: { minProtocol: 2, maxProtocol: 9 },
        reason: 'UNSUPPORTED_PROTOCOL',
        words: /2 to 9/,
      },
      {
        what: 'no protocol',
        hello: { minProtocol: 0, maxProtocol: 0 },
        reason: 'UNSUPPORTED_PROTOCOL',
        words: /0 to 0/,
      },
      {
        what: 'no incarnation',
        header: { senderIncarnation: 0 },
        reason: 'BAD_FRAME',
        words: /incarnation 0/,
      },
      {
        what: 'an incarnation beyond 48 bits',
        header: { senderIncarnation: 2 ** 48 },
        reason: 'BAD_FRAME',
        words: /incarnation/,
      },
      { what: 'no boot counter', hello: { bootCounter: 0 }, reason: 'BAD_FRAME', words: /boot counter/ },
      {
        what: 'a head above its ceiling',
        hello: { head: 2, sequenceCeiling: 1 },
        reason: 'BAD_FRAME',
        words: /head 2/,
      },
      {
        what: 'cursors beyond 48 bits',
        hello: {
          applied: [{ incarnation: 1, sequence: 2 ** 48, bootCounter: 0, durableHead: 0, tailAfter: 0 }],
        },
        reason: 'BAD_FRAME',
        words: /cursor/,
      },
      {
        what: 'bits for partitions that are not there',
        hello: { readable: Buffer.alloc(3) },
        reason: 'BAD_FRAME',
        words: /16 partitions/,
      },
    ];
    for (const { what, hello, header, ...expected } of hellos) {
      it(`a Hello with ${what}`, () => stand.refuses(expected, (peer) => peer.sayHello(hello, header)));
    }

    it('a Hello of an earlier start, and of another process in the same one', async () => {
      using known = await stand.stranger();
      await known.join({ bootCounter: 5 });
      known[Symbol.dispose]();
      await stand.refuses({ reason: 'ROLLED_BACK', words: /start 4.*start 5/ }, (peer) =>
        peer.sayHello({ bootCounter: 4 }),
      );
      await stand.refuses({ reason: 'COPIED_VOLUME', words: /another process/ }, (peer) =>
        peer.sayHello({ bootCounter: 5, nonce: 8 }),
      );
    });

    const firstFrames: readonly [string, (peer: RawPeer) => void, RegExp][] = [
      ['a heartbeat', (peer) => peer.beat(), /begins with a Hello/],
      ['entries', (peer) => peer.send(entries([entry()])), /begins with a Hello/],
      ['a repair', (peer) => peer.send(repair({})), /begins with a Hello/],
      [
        'a map',
        (peer) => peer.send({ $case: 'map', value: { map: mapToProto(stand.mapWith({})) } }),
        /begins with a Hello/,
      ],
      [
        'a refusal that would end the node',
        (peer) =>
          peer.send({
            $case: 'refusal',
            value: { reason: Refusal_Reason.RETIRED_INCARNATION, message: 'go', map: undefined },
          }),
        /begins with a Hello/,
      ],
      [
        'a frame without a header',
        (peer) => peer.sendBytes(PeerFrame.encode({ header: undefined, body: repair({}) }).finish()),
        /header/,
      ],
      [
        'a frame without a body',
        (peer) => peer.sendBytes(PeerFrame.encode({ header: peer.header(), body: undefined }).finish()),
        /body that this version knows/,
      ],
      ['an empty frame', (peer) => peer.sendBytes(empty), /header/],
    ];
    for (const [what, act, words] of firstFrames) {
      it(`${what} in place of a Hello`, () => stand.refuses({ reason: 'BAD_FRAME', words }, act));
    }

    it('a peer that never says Hello, and one that says it under a map of the future and never sends that', async () => {
      const counted = await stand.refusals('bad-frame');
      await stand.unchanged(async () => {
        using silent = await stand.stranger();
        using early = await stand.stranger();
        early.sayHello({}, { epoch: 3 });
        await early.next('hello');
        early.send(entries([entry()]), { epoch: 3 });
        early.send(repair({}), { epoch: 3 });
        for (const peer of [silent, early]) {
          const { refusal } = await peer.ended();
          expect(refusal).to.include({ reason: Refusal_Reason.BAD_FRAME, message: 'no handshake in time' });
        }
      });
      expect(await stand.refusals('bad-frame')).to.equal(counted + 2);
    });
  });
});
