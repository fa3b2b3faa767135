import { expect } from 'chai';
import { formatVersion, type Version } from '../../../model/version.ts';
import { HybridClock } from '../../../node/replication/hybrid-clock.ts';
import { LogReceiver } from '../../../node/replication/log-receiver.ts';
import { NO_METRICS } from '../../../node/replication/metrics.ts';
import {
  DEFAULT_REQUEST_INDEX_SETTINGS,
  RequestIndex,
} from '../../../node/replication/requests/request-index.ts';
import { SAFETY_RULES } from '../../../node/replication/safety-rules.ts';
import { UnsyncedTail } from '../../../node/replication/unsynced-tail.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import type { RequestId } from '../../../proto/gen/kvstore.ts';
import type { Ack, Entry } from '../../../proto/gen/peer.ts';
import { MemoryMachine } from '../../support/memory-store.ts';

const KEY = Buffer.from('key');
const PEER = 7;
const ELSEWHERE = 8;
const at = (wallMs: number, writer = PEER): Version => ({ wallMs, counter: 0, writer });
const recordAt = (version: Version, key: Buffer = KEY) => liveRecord(key, Buffer.from('value'), version);
const idOf = (number: number): RequestId => ({
  clientId: Buffer.alloc(16, 3),
  number,
  clientStartMs: 5,
  attempt: 0,
});

type Sent = Omit<Entry, 'sequence'>;

/** A write of the peer's log. */
const entry = (version: Version, { id, key = KEY }: { id?: number; key?: Buffer } = {}): Sent => ({
  key,
  record: recordAt(version, key).bytes,
  requestId: id === undefined ? undefined : idOf(id),
});

describe('what a replica answers to the log of a peer', () => {
  let machine: MemoryMachine;
  let store: LogStore;
  let index: RequestIndex;
  let receiver: LogReceiver;
  let acks: Ack[];
  let received: number;
  let collectedBelow: Version | undefined;

  beforeEach(async () => {
    machine = new MemoryMachine();
    store = await machine.open();
    const clock = machine.time.clock();
    index = new RequestIndex(clock, DEFAULT_REQUEST_INDEX_SETTINGS);
    index.complete(-Infinity);
    acks = [];
    received = 0;
    collectedBelow = undefined;
    receiver = new LogReceiver({
      peer: 'kv-1',
      incarnation: PEER,
      cursor: 0,
      store,
      clock: new HybridClock({ clock, store, writer: () => 1, skewBoundMs: 2000, ceilingStepMs: 500 }),
      tail: new UnsyncedTail(),
      holds: () => true,
      isReadable: () => true,
      collected: () => collectedBelow,
      onApplied: () => undefined,
      writes: index,
      rules: SAFETY_RULES,
      scheduler: machine.time.scheduler(),
      metrics: NO_METRICS,
      send: (ack) => void acks.push(ack),
    });
  });

  afterEach(() => machine.kill());

  /** `held`, or the version that has beaten it, of each entry; all of them come in one frame. */
  const answersTo = async (...entries: readonly Sent[]): Promise<string[]> => {
    const after = received;
    received += entries.length;
    receiver.onEntries({
      after,
      through: received,
      entries: entries.map((sent, place) => ({ ...sent, sequence: after + place + 1 })),
      provisional: false,
      durableHead: 0,
    });
    await machine.time.until('they are acknowledged', () => acks.at(-1)?.applied === received);
    const superseded = new Map(
      acks.flatMap((ack) => ack.superseded).map(({ sequence, version }) => [sequence, version]),
    );
    return entries.map((_, place) => {
      const version = superseded.get(after + place + 1);
      return version === undefined ? 'held' : formatVersion(version);
    });
  };
  const answerTo = async (sent: Sent): Promise<string | undefined> => (await answersTo(sent))[0];
  /** Something came from elsewhere, and is not said to be of any write. */
  const storeRecord = (version: Version): Promise<void> =>
    machine.time.run(store.apply([{ key: KEY, record: recordAt(version), own: false }]).durable);
  const stored = (): Version | undefined => store.get(KEY)?.version;

  it('is “held” where nothing newer was here, and SUPERSEDED by what was', async () => {
    expect(await answerTo(entry(at(10)))).to.equal('held');
    await storeRecord(at(30, ELSEWHERE));
    expect(await answerTo(entry(at(20)))).to.equal(formatVersion(at(30, ELSEWHERE)));
    expect(await answerTo(entry(at(40)))).to.equal('held');
    expect(stored()).to.deep.equal(at(40));
  });

  it('is SUPERSEDED for a write that was beaten before a later one of the same writer came', async () => {
    await storeRecord(at(20, ELSEWHERE));
    const beaten = formatVersion(at(20, ELSEWHERE));
    expect(await answersTo(entry(at(10)), entry(at(30)))).to.deep.equal([beaten, 'held']);
    expect(stored()).to.deep.equal(at(30));
  });

  it('lets a write be known by its request id, and one without by its version', async () => {
    await answersTo(entry(at(10), { id: 1 }), entry(at(20)), entry(at(30), { id: 2 }), entry(at(40)));
    expect(index.versionOf(idOf(1), KEY)).to.deep.equal(at(10));
    expect(index.lookup({ requestId: undefined, version: at(20) }, KEY, 0).kind).to.equal('held');
    expect(index.versionOf(idOf(2), KEY), 'not at the later one').to.deep.equal(at(30));
  });

  const known: readonly [how: string, note: () => void, sent: Sent][] = [
    ['by its request id', () => index.note(idOf(1), KEY, at(10)), entry(at(10), { id: 1 })],
    ['by its version', () => index.noteVersion(at(10)), entry(at(10))],
    ['by its version, sent with a request id', () => index.noteVersion(at(10)), entry(at(10), { id: 1 })],
  ];
  for (const [how, note, sent] of known) {
    it(`is “held” for a write that has stood here and was overwritten since, known ${how}`, async () => {
      await storeRecord(at(20, ELSEWHERE));
      note();
      expect(await answerTo(sent)).to.equal('held');
      expect(stored(), 'still').to.deep.equal(at(20, ELSEWHERE));
    });

    it(`is “held” for a write that has stood here and was collected since, known ${how}`, async () => {
      note();
      collectedBelow = at(50, ELSEWHERE);
      expect(await answerTo(sent)).to.equal('held');
      expect(stored(), 'not brought back').to.equal(undefined);
    });
  }

  it('is SUPERSEDED for a write that has stood here at another version only', async () => {
    await storeRecord(at(20, ELSEWHERE));
    index.note(idOf(1), KEY, at(9));
    expect(await answerTo(entry(at(10), { id: 1 }))).to.equal(formatVersion(at(20, ELSEWHERE)));
  });

  it('is SUPERSEDED for a write that never came here and whose key was collected', async () => {
    collectedBelow = at(50, ELSEWHERE);
    expect(await answersTo(entry(at(10)), entry(at(12), { id: 1 }))).to.deep.equal([
      formatVersion(at(50, ELSEWHERE)),
      formatVersion(at(50, ELSEWHERE)),
    ]);
  });
});
