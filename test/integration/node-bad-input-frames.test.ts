import { expect } from 'chai';
import { setTimeout as delay } from 'node:timers/promises';
import { mapToProto } from '../../client/cluster-map-codec.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { liveRecord } from '../../node/storage/record.ts';
import { type Entry, PeerFrame, ReadResult_Outcome } from '../../proto/gen/peer.ts';
import { BadInputStand, type RefusalReason } from '../support/bad-input-stand.ts';
import type { FrameBody, RawPeer } from '../support/raw-peer.ts';

const key = Buffer.from('from-a-peer');
const record = liveRecord(key, Buffer.from('v'), { wallMs: 1, counter: 0, writer: 5 }).bytes;
const damagedRecord = Buffer.concat([record.subarray(0, -1), Buffer.from([(record.at(-1) ?? 0) ^ 1])]);
const long = Buffer.alloc(1025, 'k');
const empty = Buffer.alloc(0);
const requestId = { clientId: Buffer.alloc(16), number: 1, clientStartMs: 1, attempt: 0 };
const NO_VERSION_AT_ALL = { wallMs: 2 ** 48, counter: 0, writer: 1 };

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
const put = (change: object): FrameBody => ({
  $case: 'forward',
  value: {
    id: 1,
    timeoutMs: 1000,
    operation: {
      $case: 'put',
      value: {
        key,
        value: empty,
        ttlMs: undefined,
        consistency: 0,
        requestId,
        condition: undefined,
        ...change,
      },
    },
  },
});
const list = (change: object): FrameBody => ({
  $case: 'list',
  value: {
    id: 1,
    prefix: empty,
    startAfter: empty,
    limit: 10,
    maxBytes: 1000,
    partitions: empty,
    withRecords: false,
    from: empty,
    before: empty,
    ...change,
  },
});
const read = (keys: Buffer[]): FrameBody => ({ $case: 'read', value: { id: 1, keys, stored: false } });

describe('bad input from a peer that was let in', () => {
  let stand: BadInputStand;
  before(async () => {
    stand = await BadInputStand.open();
  });
  after(() => stand[Symbol.asyncDispose]());

  describe('after the handshake is refused', () => {
    const later: readonly [string, (peer: RawPeer) => void, RefusalReason, RegExp][] = [
      ['a second Hello', (peer) => peer.sayHello(), 'BAD_FRAME', /one Hello/],
      [
        'a frame for another node',
        (peer) => peer.send(repair({}), { recipient: 'sample-2' }),
        'WRONG_RECIPIENT',
        /this is sample-0/,
      ],
      [
        'a frame for nobody',
        (peer) => peer.send(repair({}), { recipient: '' }),
        'WRONG_RECIPIENT',
        /this is sample-0/,
      ],
      [
        'a frame of another cluster',
        (peer) => peer.send(repair({}), { clusterId: 'f'.repeat(32) }),
        'WRONG_CLUSTER',
        /belongs to cluster/,
      ],
      [
        'a frame of no cluster',
        (peer) => peer.send(repair({}), { clusterId: '' }),
        'WRONG_CLUSTER',
        /belongs to cluster/,
      ],
      [
        'a frame of another sender',
        (peer) => peer.send(repair({}), { sender: 'sample-2' }),
        'BAD_FRAME',
        /not the one of the Hello/,
      ],
      [
        'a frame of another incarnation',
        (peer) => peer.send(repair({}), { senderIncarnation: 6 }),
        'BAD_FRAME',
        /not the one of the Hello/,
      ],
      [
        'a frame of a kind that is not known',
        (peer) => {
          const head = PeerFrame.encode({ header: peer.header(), body: undefined }).finish();
          // Field 60, of no bytes.
          peer.sendBytes(Buffer.concat([head, Buffer.from([0xe2, 0x03, 0x00])]));
        },
        'BAD_FRAME',
        /body that this version knows/,
      ],
      [
        'entries with a gap',
        (peer) => peer.send(entries([entry({ sequence: 9 })], { after: 8, through: 9 })),
        'BAD_FRAME',
        /gap/,
      ],
      [
        'entries that end before they begin',
        (peer) => peer.send(entries([], { after: 2, through: 1 })),
        'BAD_FRAME',
        /entries after 2/,
      ],
      [
        'entries beyond 48 bits',
        (peer) => peer.send(entries([], { through: 2 ** 48 })),
        'BAD_FRAME',
        /entries through/,
      ],
      [
        'entries out of order',
        (peer) => peer.send(entries([entry({ sequence: 2 }), entry()], { through: 2 })),
        'BAD_FRAME',
        /sequence 1/,
      ],
      [
        'entries beyond their range',
        (peer) => peer.send(entries([entry({ sequence: 7 })])),
        'BAD_FRAME',
        /sequence 7/,
      ],
      [
        'an entry with a bad checksum',
        (peer) => peer.send(entries([entry({ record: damagedRecord })])),
        'BAD_FRAME',
        /checksum/,
      ],
      [
        'an entry under another key',
        (peer) => peer.send(entries([entry({ key: Buffer.from('x') })])),
        'BAD_FRAME',
        /checksum/,
      ],
      [
        'sound entries before one with a bad checksum',
        (peer) =>
          peer.send(entries([entry({}), entry({ sequence: 2, record: damagedRecord })], { through: 2 })),
        'BAD_FRAME',
        /checksum/,
      ],
      [
        'an entry without a key',
        (peer) => peer.send(entries([entry({ key: empty })])),
        'BAD_FRAME',
        /a key has 0 bytes/,
      ],
      [
        'an entry with a long key',
        (peer) => peer.send(entries([entry({ key: long })])),
        'BAD_FRAME',
        /a key has 1025 bytes/,
      ],
      [
        'an entry without a record',
        (peer) => peer.send(entries([entry({ record: empty })])),
        'BAD_FRAME',
        /a record has 0 bytes/,
      ],
      [
        'an entry whose request id the log cannot hold',
        (peer) => peer.send(entries([entry({ requestId: { ...requestId, clientStartMs: 2 ** 48 } })])),
        'BAD_FRAME',
        /client start/,
      ],
      [
        'an acknowledgement of what was never sent',
        (peer) => {
          const incarnation = peer.frames[0]?.header?.senderIncarnation ?? 0;
          peer.send({
            $case: 'ack',
            value: { incarnation, applied: 2 ** 40, superseded: [], provisional: false },
          });
        },
        'BAD_FRAME',
        /acknowledged/,
      ],
      [
        'an acknowledgement of a version that is none',
        (peer) =>
          peer.send({
            $case: 'ack',
            value: {
              incarnation: 1,
              applied: 1,
              superseded: [{ sequence: 1, version: NO_VERSION_AT_ALL }],
              provisional: false,
            },
          }),
        'BAD_FRAME',
        /is no version/,
      ],
      [
        'a repair with a bad checksum',
        (peer) => peer.send(repair({ record: damagedRecord })),
        'BAD_FRAME',
        /checksum/,
      ],
      [
        'a repair without a key',
        (peer) => peer.send(repair({ key: empty })),
        'BAD_FRAME',
        /a key has 0 bytes/,
      ],
      [
        'a repair of a long key',
        (peer) => peer.send(repair({ key: long })),
        'BAD_FRAME',
        /a key has 1025 bytes/,
      ],
      [
        'a repair with a horizon beyond 48 bits',
        (peer) => peer.send(repair({ horizonMs: 2 ** 48 })),
        'BAD_FRAME',
        /horizon/,
      ],
      ['a read of no key', (peer) => peer.send(read([empty])), 'BAD_FRAME', /a key has 0 bytes/],
      ['a read of a long key', (peer) => peer.send(read([long])), 'BAD_FRAME', /a key has 1025 bytes/],
      [
        'a read of very many keys',
        (peer) => peer.send(read(Array.from({ length: 70_000 }, () => key))),
        'BAD_FRAME',
        /70000 keys/,
      ],
      [
        'a listing of a long prefix',
        (peer) => peer.send(list({ prefix: Buffer.alloc(6000) })),
        'BAD_FRAME',
        /prefix has 6000 bytes/,
      ],
      [
        'a listing after a long key',
        (peer) => peer.send(list({ startAfter: Buffer.alloc(6000) })),
        'BAD_FRAME',
        /start_after has 6000 bytes/,
      ],
      ['a listing of everything', (peer) => peer.send(list({ limit: 2 ** 32 - 1 })), 'BAD_FRAME', /limit/],
      [
        'a listing of partitions that are not there',
        (peer) => peer.send(list({ partitions: Buffer.alloc(3, 0xff) })),
        'BAD_FRAME',
        /16 partitions/,
      ],
      [
        'a digest of a partition that is not there',
        (peer) =>
          peer.send({
            $case: 'digest',
            value: { id: 1, partitions: [16], withLeaves: true, horizonsMs: [] },
          }),
        'BAD_FRAME',
        /no partition 16/,
      ],
      [
        'leaves of a partition that is not there',
        (peer) =>
          peer.send({
            $case: 'leaf',
            value: { id: 1, partition: 16, leaves: Buffer.alloc(32, 0xff), startAfter: empty, limit: 10 },
          }),
        'BAD_FRAME',
        /no partition 16/,
      ],
      ['an operation on no key', (peer) => peer.send(put({ key: empty })), 'BAD_FRAME', /a key has 0 bytes/],
      [
        'an operation with a condition',
        (peer) => peer.send(put({ condition: {} })),
        'BAD_FRAME',
        /conditions are not supported/,
      ],
      [
        'an operation with a life beyond all clocks',
        (peer) => peer.send(put({ ttlMs: 2 ** 48 })),
        'BAD_FRAME',
        /ttl/,
      ],
      [
        'an operation that is none',
        (peer) => peer.send({ $case: 'forward', value: { id: 1, timeoutMs: 1, operation: undefined } }),
        'BAD_FRAME',
        /operation/,
      ],
      [
        'a search for no write',
        (peer) =>
          peer.send({ $case: 'lookup', value: { id: 1, requestId: undefined, version: undefined, key } }),
        'BAD_FRAME',
        /request id and the version/,
      ],
    ];
    for (const [what, act, reason, words] of later) {
      it(what, () =>
        stand.refuses({ reason, words }, async (peer) => {
          await peer.join({ bootCounter: 5 });
          act(peer);
        }),
      );
    }

    it('a frame whose sender has never been counted among bad ones: the node says so in its log', async () => {
      const counted = await stand.metric('kv_replication_bad_frames_total');
      using peer = await stand.stranger();
      await peer.join({ bootCounter: 5 });
      peer.send(read([long]));
      await peer.ended();
      expect(await stand.metric('kv_replication_bad_frames_total')).to.equal(counted + 1);
      expect(
        stand.node.log.some(({ peer: name, problem }) => name === 'sample-1' && problem !== undefined),
      ).to.equal(true);
    });
  });

  describe('maps', () => {
    const wire = (map: ClusterMap) => ({ $case: 'map' as const, value: { map: mapToProto(map) } });
    const wrong: readonly [string, () => FrameBody, RefusalReason, RegExp][] = [
      [
        'with a replica that is no member',
        () => wire(stand.mapWith({ assignment: stand.map.assignment.map(() => [7]) })),
        'BAD_FRAME',
        /names a member that is not there/,
      ],
      [
        'with partitions of nobody',
        () => wire(stand.mapWith({ assignment: stand.map.assignment.map(() => []) })),
        'BAD_FRAME',
        /no replicas/,
      ],
      [
        'with a hash of something else',
        () => wire({ ...stand.mapWith({}), hash: 'd'.repeat(64) }),
        'BAD_FRAME',
        /hash/,
      ],
      [
        'of the same epoch with another hash',
        () => wire(stand.mapWith({ epoch: 2, replicationFactor: 2 })),
        'MAP_CONFLICT',
        /epoch 2/,
      ],
      [
        'with another number of partitions',
        () => wire(stand.mapWith({ partitions: 8, assignment: stand.map.assignment.slice(0, 8) })),
        'BAD_FRAME',
        /8 partitions/,
      ],
      [
        'of another cluster id',
        () => wire(stand.mapWith({ clusterId: 'c'.repeat(32) })),
        'BAD_FRAME',
        /cluster c{32}/,
      ],
      ['of another name', () => wire(stand.mapWith({ name: 'other' })), 'BAD_FRAME', /default\/other/],
      [
        'with a phase that is not known',
        () => wire(stand.mapWith({ moving: { phase: 3, partitions: [] } })),
        'BAD_FRAME',
        /unknown phase 3/,
      ],
      [
        'that are missing',
        () => ({ $case: 'map', value: { map: undefined } }),
        'BAD_FRAME',
        /map is missing/,
      ],
    ];
    for (const [what, frame, reason, words] of wrong) {
      it(`${what} are refused`, () =>
        stand.refuses({ reason, words }, async (peer) => {
          await peer.join({ bootCounter: 5 });
          peer.send(frame());
        }));
    }

    it('of a lower epoch are not taken, and the stream goes on: the sender gets the newer one', () =>
      stand.unchanged(async () => {
        using peer = await stand.stranger();
        await peer.join({ bootCounter: 5 });
        peer.send(wire(stand.mapWith({ epoch: 1 })));
        peer.send(read([key]));
        await peer.next('readReply');
        expect(peer.isOpen).to.equal(true);
      }));
  });

  describe('is ignored where it has no meaning', () => {
    it('answers to questions that nobody asked', () =>
      stand.unchanged(async () => {
        using peer = await stand.stranger();
        await peer.join({ bootCounter: 5 });
        const results = [{ outcome: ReadResult_Outcome.RECORD, record, horizonMs: 0, requestId: undefined }];
        peer.send({ $case: 'readReply', value: { id: 12_345, results } });
        peer.send({ $case: 'repairReply', value: { id: 12_346 } });
        peer.send(read([Buffer.from('before-1')]));
        await peer.next('readReply');
        expect(peer.isOpen).to.equal(true);
      }));

    it('what a peer says under a map of the future waits for that map', () =>
      stand.unchanged(async () => {
        using peer = await stand.stranger();
        await peer.join({ bootCounter: 5 });
        peer.send(repair({ key: Buffer.from('future') }), { epoch: 3 });
        peer.send(read([key]), { epoch: 3 });
        await delay(500);
        const answers = peer.frames.filter(
          ({ body }) => body?.$case === 'repairReply' || body?.$case === 'readReply',
        );
        expect(answers).to.deep.equal([]);
      }));
  });

  it('cannot fill memory with what has to wait: the stream ends', () =>
    stand.refuses({ reason: 'BAD_FRAME', words: /too much was sent/ }, async (peer) => {
      await peer.join({ bootCounter: 5 });
      const value = {
        id: 1,
        results: [{ outcome: 1, record: Buffer.alloc(8 * 1024 * 1024), horizonMs: 0, requestId: undefined }],
      } as const;
      for (let sent = 0; sent < 8 && peer.isOpen; sent += 1) {
        peer.send({ $case: 'readReply', value: { ...value, results: [...value.results] } }, { epoch: 3 });
      }
    }));

  it('has not filled the memory of the node', () => {
    expect(stand.grownMib, 'MiB').to.be.below(150);
  });
});
