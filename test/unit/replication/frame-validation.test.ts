import { expect } from 'chai';
import type { FrameBody } from '../../../node/replication/peer-link.ts';
import { problemWithFrame, problemWithHeader } from '../../../node/replication/frame-validation.ts';
import { PeerFrame, ReadResult_Outcome, type PeerHeader } from '../../../proto/gen/peer.ts';

type Body = NonNullable<PeerFrame['body']>;
type Case = Body['$case'];
type Value<C extends Case> = Extract<Body, { $case: C }>['value'];

const BOUNDS = { partitions: 16 };
const key = Buffer.from('k');
const record = Buffer.alloc(30);
const version = { wallMs: 2 ** 48 - 1, counter: 65_535, writer: 2 ** 48 - 1 };
const requestId = { clientId: Buffer.alloc(16), number: 1, clientStartMs: 2, attempt: 3 };
const empty = Buffer.alloc(0);

const header: PeerHeader = {
  clusterId: 'a'.repeat(32),
  epoch: 3,
  sender: 'kv-0',
  senderIncarnation: 2 ** 48 - 1,
  recipient: 'kv-1',
};

/** A frame of every kind as a sound peer sends it, with fields at their bounds. */
const SOUND: { readonly [C in Case]: Value<C> } = {
  hello: {
    minProtocol: 1,
    maxProtocol: 1,
    namespace: 'default',
    name: 'kv',
    mapHash: 'b'.repeat(64),
    bootCounter: 1,
    nonce: 0,
    state: 2,
    head: 10,
    logStart: 10,
    applied: [{ incarnation: 1, sequence: 0, bootCounter: 0, durableHead: 0, tailAfter: 0 }],
    ackedByRecipient: 0,
    sequenceCeiling: 10,
    wallMs: 1,
    features: [],
    logBase: 0,
    recoveredHead: 10,
    ackedIncarnation: 0,
    uncleanBoot: 1,
    readable: Buffer.alloc(2),
    replaced: [],
  },
  refusal: { reason: 1, message: 'no', map: undefined },
  entries: {
    after: 4,
    through: 2 ** 48 - 1,
    entries: [
      { sequence: 5, key, record, requestId: undefined },
      { sequence: 2 ** 48 - 1, key: Buffer.alloc(1024), record, requestId },
    ],
    provisional: false,
    durableHead: 0,
  },
  ack: { incarnation: 1, applied: 9, superseded: [{ sequence: 9, version }], provisional: false },
  heartbeat: {
    state: 2,
    head: 7,
    wallMs: 1,
    accepting: true,
    connected: ['kv-1'],
    durableHead: 7,
    lowWaterMs: 0,
    label: empty,
    settled: Buffer.alloc(2),
    readable: Buffer.alloc(2),
  },
  map: {
    map: {
      clusterId: '',
      namespace: '',
      name: '',
      epoch: 0,
      hash: '',
      partitions: 0,
      replicationFactor: 0,
      initialised: false,
      members: [],
      retired: [],
      assignment: [],
      moving: undefined,
    },
  },
  read: { id: 1, keys: [key], stored: false },
  readReply: {
    id: 1,
    results: [{ outcome: ReadResult_Outcome.ABSENT, record: empty, horizonMs: 0, requestId: undefined }],
  },
  repair: {
    id: 1,
    records: [{ key, record, horizonMs: 0 }],
    returned: false,
    finished: undefined,
    forRead: false,
    returnedWrites: [],
  },
  repairReply: { id: 1 },
  list: {
    id: 1,
    prefix: empty,
    startAfter: Buffer.alloc(1024),
    limit: 10_000,
    maxBytes: 3 * 1024 * 1024,
    partitions: Buffer.alloc(2),
    withRecords: false,
    from: Buffer.alloc(1024),
    before: empty,
  },
  listReply: {
    id: 1,
    wrongReplica: false,
    keys: [
      { key: Buffer.from('a'), version, tombstone: false, expiresAtMs: undefined, record: empty },
      { key: Buffer.from('b'), version, tombstone: true, expiresAtMs: 4, record },
    ],
    more: false,
  },
  forward: {
    id: 1,
    timeoutMs: 60_000,
    operation: {
      $case: 'put',
      value: { key, value: empty, ttlMs: 1, consistency: 0, requestId, condition: undefined },
    },
  },
  forwardReply: { id: 1, outcome: { $case: 'delete', value: { existed: true, version } } },
  digest: { id: 1, partitions: [0, 15], withLeaves: true, horizonsMs: [0, 1] },
  digestReply: {
    id: 1,
    durableHead: 0,
    digests: [
      {
        partition: 15,
        root: 0,
        leaves: Buffer.alloc(1536),
        horizonMs: 0,
        readable: true,
        wrongReplica: false,
      },
    ],
  },
  leaf: { id: 1, partition: 15, leaves: Buffer.alloc(32), startAfter: empty, limit: 100 },
  leafReply: { id: 1, items: [{ key, version, checksum: 1 }], through: key, horizonMs: 0 },
  lookup: { id: 1, requestId, key, version },
  lookupReply: { id: 1, found: true, version, record, horizonMs: 0, unknown: false },
};

const body = <C extends Case>($case: C, change: Partial<Value<C>> = {}): Body =>
  ({ $case, value: { ...SOUND[$case], ...change } }) as unknown as Body;

const entry = SOUND.entries.entries[0]!;
const listed = SOUND.listReply.keys[0]!;
const digest = SOUND.digestReply.digests[0]!;
const long = Buffer.alloc(1025);
const late = { ...version, wallMs: 2 ** 48 };
const noTime = { ...requestId, clientStartMs: 2 ** 48 };
const put = (change: object): Value<'forward'>['operation'] => ({
  $case: 'put',
  value: {
    key,
    value: empty,
    ttlMs: undefined,
    consistency: 0,
    requestId: undefined,
    condition: undefined,
    ...change,
  },
});

const BAD: readonly [what: string, frame: Body, problem: RegExp][] = [
  ['an empty range of protocols', body('hello', { minProtocol: 2 }), /range of protocols/],
  ['no namespace', body('hello', { namespace: '' }), /namespace has 0 bytes/],
  ['a name of a kilobyte', body('hello', { name: 'n'.repeat(1000) }), /name has 1000 bytes/],
  ['a hash that is none', body('hello', { mapHash: 'x' }), /map_hash/],
  ['no boot counter', body('hello', { bootCounter: 0 }), /boot counter 0/],
  ['an unclean boot of the future', body('hello', { uncleanBoot: 2 }), /unclean boot 2/],
  ['a nonce beyond 48 bits', body('hello', { nonce: 2 ** 48 }), /nonce/],
  ['a head above its ceiling', body('hello', { head: 11 }), /head 11 is not from 0 to 10/],
  ['a recovered head above the ceiling', body('hello', { recoveredHead: 11 }), /recovered head 11/],
  ['a log that begins above the ceiling', body('hello', { logStart: 11 }), /log start 11/],
  ['a base above the ceiling', body('hello', { logBase: 11 }), /log base 11/],
  ['a ceiling beyond 48 bits', body('hello', { sequenceCeiling: 2 ** 48 }), /sequence ceiling/],
  [
    'a cursor beyond 48 bits',
    body('hello', { applied: [{ ...SOUND.hello.applied[0]!, sequence: 2 ** 48 }] }),
    /cursor's sequence/,
  ],
  [
    'a cursor of no incarnation',
    body('hello', { applied: [{ ...SOUND.hello.applied[0]!, incarnation: 0 }] }),
    /cursor's incarnation 0/,
  ],
  ['a time beyond 48 bits', body('hello', { wallMs: 2 ** 48 }), /time/],
  ['a nameless feature', body('hello', { features: [''] }), /a feature has 0 bytes/],
  [
    'readable partitions that are not there',
    body('hello', { readable: Buffer.alloc(3) }),
    /readable has 3 bytes/,
  ],
  ['a refusal like a book', body('refusal', { message: 'x'.repeat(70_000) }), /message of a refusal/],
  [
    'entries that end before they begin',
    body('entries', { through: 3 }),
    /entries after 4 is not from 0 to 3/,
  ],
  ['entries beyond 48 bits', body('entries', { through: 2 ** 48 }), /entries through/],
  [
    'an entry before the range',
    body('entries', { entries: [{ ...entry, sequence: 4 }] }),
    /sequence 4 is not from 5/,
  ],
  [
    'an entry behind the range',
    body('entries', { through: 9, entries: [{ ...entry, sequence: 10 }] }),
    /sequence 10 is not from 5 to 9/,
  ],
  ['an entry twice', body('entries', { entries: [entry, entry] }), /sequence 5 is not from 6/],
  ['an entry without a key', body('entries', { entries: [{ ...entry, key: empty }] }), /a key has 0 bytes/],
  [
    'an entry with a long key',
    body('entries', { entries: [{ ...entry, key: long }] }),
    /a key has 1025 bytes/,
  ],
  [
    'an entry without a record',
    body('entries', { entries: [{ ...entry, record: empty }] }),
    /a record has 0 bytes/,
  ],
  [
    'an entry of a client without a start',
    body('entries', { entries: [{ ...entry, requestId: noTime }] }),
    /client start/,
  ],
  [
    'an entry of no client',
    body('entries', { entries: [{ ...entry, requestId: { ...requestId, clientId: empty } }] }),
    /client id has 0 bytes/,
  ],
  ['a durable head beyond 48 bits', body('entries', { durableHead: 2 ** 48 }), /durable head/],
  ['an acknowledgement of nobody', body('ack', { incarnation: 0 }), /incarnation 0/],
  ['an acknowledgement beyond 48 bits', body('ack', { applied: 2 ** 48 }), /acknowledged sequence/],
  [
    'an entry superseded and not acknowledged',
    body('ack', { superseded: [{ sequence: 10, version }] }),
    /superseded sequence 10/,
  ],
  [
    'superseded by no version',
    body('ack', { superseded: [{ sequence: 9, version: undefined }] }),
    /a version is missing/,
  ],
  [
    'superseded beyond 48 bits',
    body('ack', { superseded: [{ sequence: 9, version: late }] }),
    /is no version/,
  ],
  [
    'superseded at a counter beyond 16 bits',
    body('ack', { superseded: [{ sequence: 9, version: { ...version, counter: 65_536 } }] }),
    /is no version/,
  ],
  ['more synced than appended', body('heartbeat', { durableHead: 8 }), /durable head 8 is not from 0 to 7/],
  [
    'bits of partitions that are not there',
    body('heartbeat', { readable: Buffer.alloc(3) }),
    /readable has 3 bytes for 16 partitions/,
  ],
  [
    'settled partitions that are not there',
    body('heartbeat', { settled: Buffer.alloc(3) }),
    /settled has 3 bytes/,
  ],
  ['a label without end', body('heartbeat', { label: Buffer.alloc(65) }), /a label/],
  ['a low water beyond 48 bits', body('heartbeat', { lowWaterMs: 2 ** 48 }), /low water/],
  ['a nameless peer', body('heartbeat', { connected: [''] }), /a peer has 0 bytes/],
  ['an update without a map', body('map', { map: undefined }), /a map is missing/],
  ['a read of no key', body('read', { keys: [empty] }), /a key has 0 bytes/],
  ['a read of a long key', body('read', { keys: [long] }), /a key has 1025 bytes/],
  [
    'a read of very many keys',
    body('read', { keys: Array.from({ length: 65_537 }, () => key) }),
    /65537 keys are more/,
  ],
  [
    'a horizon beyond 48 bits',
    body('readReply', { results: [{ ...SOUND.readReply.results[0]!, horizonMs: 2 ** 48 }] }),
    /horizon/,
  ],
  [
    'a repair without a record',
    body('repair', { records: [{ key, record: empty, horizonMs: 0 }] }),
    /a record has 0 bytes/,
  ],
  [
    'a repair of a long key',
    body('repair', { records: [{ key: long, record, horizonMs: 0 }] }),
    /a key has 1025 bytes/,
  ],
  [
    'a repair with a horizon beyond 48 bits',
    body('repair', { records: [{ key, record, horizonMs: 2 ** 48 }] }),
    /horizon/,
  ],
  ['a long prefix', body('list', { prefix: long }), /prefix has 1025 bytes/],
  ['a long start', body('list', { startAfter: long }), /start_after has 1025 bytes/],
  ['a long lower bound', body('list', { from: long }), /from has 1025 bytes/],
  ['a long upper bound', body('list', { before: long }), /before has 1025 bytes/],
  ['a page of everything', body('list', { limit: 2 ** 32 - 1 }), /limit/],
  ['a page of gigabytes', body('list', { maxBytes: 2 ** 32 - 1 }), /bytes of a page/],
  [
    'a listing of partitions that are not there',
    body('list', { partitions: Buffer.alloc(3) }),
    /partitions has 3 bytes/,
  ],
  ['a page out of order', body('listReply', { keys: [...SOUND.listReply.keys].reverse() }), /not in order/],
  ['a page with a key twice', body('listReply', { keys: [listed, listed] }), /not in order/],
  [
    'a listed key without a version',
    body('listReply', { keys: [{ ...listed, version: undefined }] }),
    /a version is missing/,
  ],
  ['nothing to forward', body('forward', { operation: undefined }), /the operation is missing/],
  ['a forwarded wait of days', body('forward', { timeoutMs: 2 ** 32 - 1 }), /timeout/],
  ['a forwarded write of no key', body('forward', { operation: put({ key: empty }) }), /a key has 0 bytes/],
  [
    'a forwarded condition',
    body('forward', { operation: put({ condition: {} }) }),
    /conditions are not supported/,
  ],
  ['a forwarded life of no time', body('forward', { operation: put({ ttlMs: 0 }) }), /ttl 0/],
  ['a forwarded life beyond all clocks', body('forward', { operation: put({ ttlMs: 2 ** 48 }) }), /ttl/],
  [
    'a forwarded write of no client',
    body('forward', { operation: put({ requestId: noTime }) }),
    /client start/,
  ],
  [
    'a forwarded read at no version',
    body('forward', { operation: { $case: 'get', value: { key, consistency: 0, minVersion: late } } }),
    /is no version/,
  ],
  ['no outcome', body('forwardReply', { outcome: undefined }), /the outcome is missing/],
  [
    'an outcome without a version',
    body('forwardReply', { outcome: { $case: 'delete', value: { existed: true, version: undefined } } }),
    /a version is missing/,
  ],
  [
    'a digest of a partition that is not there',
    body('digest', { partitions: [16] }),
    /no partition 16 of 16/,
  ],
  [
    'digests of very many partitions',
    body('digest', { partitions: Array.from({ length: 17 }, () => 0) }),
    /17 partitions are more/,
  ],
  ['a digest at a horizon beyond 48 bits', body('digest', { horizonsMs: [2 ** 48] }), /horizon/],
  [
    'a digest for a partition that is not there',
    body('digestReply', { digests: [{ ...digest, partition: 16 }] }),
    /no partition 16/,
  ],
  [
    'half a digest',
    body('digestReply', { digests: [{ ...digest, leaves: Buffer.alloc(1535) }] }),
    /leaves have 1535 bytes/,
  ],
  ['leaves of a partition that is not there', body('leaf', { partition: 16 }), /no partition 16/],
  ['a choice of too few leaves', body('leaf', { leaves: Buffer.alloc(31) }), /choice of leaves has 31 bytes/],
  ['leaves after a long key', body('leaf', { startAfter: long }), /start_after has 1025 bytes/],
  [
    'a leaf with a long key',
    body('leafReply', { items: [{ key: long, version, checksum: 1 }] }),
    /a key has 1025 bytes/,
  ],
  ['leaves through a long key', body('leafReply', { through: long }), /through has 1025 bytes/],
  [
    'a search for no write',
    body('lookup', { requestId: undefined, version: undefined }),
    /the request id and the version are missing/,
  ],
  [
    'a repair that finishes no write',
    body('repair', { finished: { requestId: undefined, key, version } }),
    /the request id is missing/,
  ],
  ['a search for no key', body('lookup', { key: empty }), /a key has 0 bytes/],
  ['a find without a version', body('lookupReply', { version: undefined }), /a version is missing/],
];

describe('the bounds of frames', () => {
  for (const name of Object.keys(SOUND) as Case[]) {
    it(`let a sound ${name} pass, also after the wire`, () => {
      expect(problemWithFrame(body(name), BOUNDS)).to.equal(undefined);
      const wire = PeerFrame.decode(PeerFrame.encode({ header, body: body(name) }).finish());
      expect(wire.body === undefined ? 'no body' : problemWithFrame(wire.body, BOUNDS)).to.equal(undefined);
    });
  }

  for (const [what, frame, problem] of BAD) {
    it(`refuse ${what}`, () => {
      expect(problemWithFrame(frame, BOUNDS)).to.match(problem);
    });
  }

  it('have a bad case for every kind that can be bad', () => {
    const covered = new Set(BAD.map(([, frame]) => frame.$case));
    const harmless: FrameBody['$case'][] = ['repairReply'];
    expect(Object.keys(SOUND).filter((name) => !covered.has(name as Case))).to.deep.equal(harmless);
  });

  const headers: readonly [string, Partial<PeerHeader>, RegExp][] = [
    ['a cluster id that is none', { clusterId: 'cluster' }, /cluster_id/],
    ['an epoch beyond 48 bits', { epoch: 2 ** 48 }, /epoch/],
    ['no sender', { sender: '' }, /sender has 0 bytes/],
    ['a sender like a book', { sender: 's'.repeat(254) }, /sender has 254 bytes/],
    ['no incarnation', { senderIncarnation: 0 }, /incarnation 0/],
    ['an incarnation beyond 48 bits', { senderIncarnation: 2 ** 48 }, /incarnation/],
    ['a recipient like a book', { recipient: 'r'.repeat(254) }, /recipient has 254 bytes/],
  ];
  it('let a sound header pass, also of a node without a cluster', () => {
    expect(problemWithHeader(header)).to.equal(undefined);
    expect(problemWithHeader({ ...header, clusterId: '', epoch: 0, recipient: '' })).to.equal(undefined);
  });
  for (const [what, change, problem] of headers) {
    it(`refuse ${what}`, () => {
      expect(problemWithHeader({ ...header, ...change })).to.match(problem);
    });
  }
});
