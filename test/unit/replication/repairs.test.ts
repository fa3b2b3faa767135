import { expect } from 'chai';
import type { Version } from '../../../model/version.ts';
import { Repairs, type RepairReason, type SentRecord } from '../../../node/replication/repairs.ts';
import {
  DEFAULT_REQUEST_INDEX_SETTINGS,
  RequestIndex,
} from '../../../node/replication/requests/request-index.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import type { RequestId } from '../../../proto/gen/kvstore.ts';
import { MemoryMachine } from '../../support/memory-store.ts';

const KEY = Buffer.from('key');
const OTHER_KEY = Buffer.from('other key');
const LOG_BYTES = 1_000_000;
const at = (wallMs: number): Version => ({ wallMs, counter: 0, writer: 1 });
const sent = (wallMs: number, key = KEY, horizonMs = 0): SentRecord => ({
  key,
  record: liveRecord(key, Buffer.from(`v${wallMs}`), at(wallMs)),
  horizonMs,
});
const id: RequestId = { clientId: Buffer.alloc(16, 3), number: 1, clientStartMs: 5, attempt: 1 };
const finished = (wallMs: number, key = KEY) => ({ requestId: id, key, version: at(wallMs) });

describe('repairs', () => {
  let machine: MemoryMachine;
  let store: LogStore;
  let index: RequestIndex;
  let repairs: Repairs;
  let ownHorizonMs: number;

  beforeEach(async () => {
    machine = new MemoryMachine();
    store = await machine.open();
    index = new RequestIndex(machine.time.clock(), DEFAULT_REQUEST_INDEX_SETTINGS);
    index.complete(-Infinity);
    ownHorizonMs = 0;
    repairs = new Repairs({
      store,
      index,
      isReadable: () => true,
      mayApply: (_, { record }, senderHorizonMs) =>
        senderHorizonMs >= ownHorizonMs || record.version.wallMs >= ownHorizonMs,
    });
  });

  afterEach(() => machine.kill());

  const apply = (records: readonly SentRecord[], reason?: RepairReason): Promise<void> =>
    machine.time.run(repairs.apply(records, reason));
  const stored = (key = KEY): number | undefined => store.get(key)?.version.wallMs;
  const kindOf = (wallMs: number): string =>
    index.lookup({ requestId: undefined, version: at(wallMs) }, KEY, 0).kind;
  const logged = async (): Promise<[wallMs: number, number: number | undefined][]> => {
    const { entries } = await machine.time.run(store.readEntries(0, LOG_BYTES));
    return entries.map(({ record, requestId }) => [record.version.wallMs, requestId?.number]);
  };

  it('are done when the records are durable', async () => {
    const done = repairs.apply([sent(10)]);
    expect(stored(), 'not before the sync').to.equal(undefined);
    await machine.time.run(done);
    expect(stored()).to.equal(10);
    expect(store.head, 'not an entry of its own').to.equal(0);
  });

  it('let the versions that they bring be known, and none that was here overwritten already', async () => {
    await apply([sent(20)]);
    await apply([sent(10), sent(5, OTHER_KEY)]);
    expect([stored(), stored(OTHER_KEY)]).to.deep.equal([20, 5]);
    expect(kindOf(20)).to.equal('held');
    expect(kindOf(5)).to.equal('held');
    expect(kindOf(10)).to.equal('not-held');
  });

  it('leave it open whether a write has stood here that a read found elsewhere, below something newer', async () => {
    await apply([sent(20)]);
    await apply([sent(10)], { forRead: true });
    expect(kindOf(10)).to.equal('unknown');
    expect(index.hasStood(undefined, KEY, at(10))).to.equal(false);
  });

  it('log the request of a finished write with its very version', async () => {
    await apply([sent(10)], { finished: finished(10) });
    expect(await logged()).to.deep.equal([[10, 1]]);
    expect(index.versionOf(id, KEY)).to.deep.equal(at(10));
    expect(kindOf(10)).to.equal('held');
  });

  it('log no request with what has overwritten the finished write, and let the write be known', async () => {
    await apply([sent(20)], { finished: finished(10) });
    expect(await logged()).to.deep.equal([[20, undefined]]);
    expect(index.versionOf(id, KEY)).to.deep.equal(at(10));
    expect(kindOf(10)).to.equal('held');
    expect(kindOf(20), 'brought here as well').to.equal('held');
  });

  it('log no request with a record of another key', async () => {
    await apply([sent(10, OTHER_KEY), sent(10)], { finished: finished(10) });
    expect(await logged()).to.deep.equal([
      [10, undefined],
      [10, 1],
    ]);
  });

  it('let a finished write be known where something newer has been before', async () => {
    await apply([sent(20)]);
    await apply([sent(10)], { finished: finished(10) });
    expect(stored()).to.equal(20);
    expect(index.versionOf(id, KEY)).to.deep.equal(at(10));
    expect(index.hasStood(undefined, KEY, at(10))).to.equal(true);
  });

  it('apply and note nothing that is refused by the horizon of its sender', async () => {
    ownHorizonMs = 15;
    await apply([sent(10), sent(20, OTHER_KEY)]);
    expect([stored(), stored(OTHER_KEY)]).to.deep.equal([undefined, 20]);
    expect(kindOf(10)).to.equal('not-held');
    expect(kindOf(20)).to.equal('held');
    await apply([sent(10, KEY, 15)]);
    expect(stored(), 'from a sender that is as far').to.equal(10);
  });
});
