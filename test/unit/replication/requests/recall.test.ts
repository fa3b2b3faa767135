import { expect } from 'chai';
import { KvError } from '../../../../common/errors.ts';
import { recallRequests } from '../../../../node/replication/requests/recall.ts';
import {
  DEFAULT_REQUEST_INDEX_SETTINGS,
  RequestIndex,
} from '../../../../node/replication/requests/request-index.ts';
import { liveRecord } from '../../../../node/storage/record.ts';
import type { LogStore } from '../../../../node/storage/log-store.ts';
import type { RequestId } from '../../../../proto/gen/kvstore.ts';
import { MemoryMachine } from '../../../support/memory-store.ts';

const SECOND = 1000;
const id = (number: number): RequestId => ({
  clientId: Buffer.alloc(16, 9),
  number,
  clientStartMs: 5,
  attempt: 0,
});

describe('after a start', () => {
  let machine: MemoryMachine;
  let store: LogStore;
  let written: number;

  const keyOf = (number: number): Buffer => Buffer.from(`key-${number}`);
  const write = async (count: number, gapMs: number): Promise<void> => {
    for (let end = written + count; written < end; written += 1) {
      const key = keyOf(written);
      const version = { wallMs: machine.time.clock().wallMs(), counter: written, writer: 7 };
      const record = liveRecord(key, Buffer.alloc(20), version);
      const { durable } = store.apply([{ key, record, own: written % 2 === 0, requestId: id(written) }]);
      await machine.time.run(durable);
      await machine.time.advance(gapMs);
    }
  };
  const restart = async (): Promise<void> => {
    machine.kill();
    store = await machine.open();
  };
  const recalled = async (
    from: Parameters<typeof recallRequests>[0]['store'] = store,
  ): Promise<RequestIndex> => {
    const index = new RequestIndex(machine.time.clock(), DEFAULT_REQUEST_INDEX_SETTINGS);
    const clock = machine.time.clock();
    const { signal } = new AbortController();
    await machine.time.run(
      recallRequests({ index, store: from, clock, scheduler: machine.time.scheduler(), signal }),
    );
    return index;
  };
  const kindOf = (index: RequestIndex, number: number): string =>
    index.lookup({ requestId: id(number), version: undefined }, keyOf(number), 0).kind;

  beforeEach(async () => {
    written = 0;
    machine = new MemoryMachine();
    store = await machine.open();
  });

  afterEach(() => machine.kill());

  it('the requests of the last minute are known again, own ones and those of peers', async () => {
    await write(200, 500);
    await restart();
    const index = await recalled();
    for (let number = 80; number < 200; number += 1) expect(kindOf(index, number)).to.equal('held');
    expect(kindOf(index, 200), 'never came').to.equal('not-held');
  });

  it('nothing is known of what a trimmed log no longer has, until a window has passed', async () => {
    await write(150, 10);
    store.trimLog(store.head);
    await restart();
    // A log that begins within the window.
    const index = await recalled({
      sequenceSince: () => store.logStart,
      readEntries: (after, maxBytes) => store.readEntries(after, maxBytes),
      syncedThrough: store.syncedThrough,
      logStart: Math.max(1, store.logStart),
    });
    expect(kindOf(index, 149)).to.equal('held');
    expect(kindOf(index, 999)).to.equal('unknown');
    await machine.time.advance(60 * SECOND);
    expect(kindOf(index, 999)).to.equal('not-held');
  });

  it('nothing is known when the log is trimmed while it is read, until a window has passed', async () => {
    await write(20, 10);
    const index = await recalled({
      sequenceSince: () => 0,
      readEntries: () => Promise.reject(new KvError('OUT_OF_RANGE', 'trimmed')),
      syncedThrough: store.syncedThrough,
      logStart: 0,
    });
    expect(kindOf(index, 999)).to.equal('unknown');
    await machine.time.advance(60 * SECOND);
    expect(kindOf(index, 999)).to.equal('not-held');
  });

  it('an empty store knows that there was nothing', async () => {
    expect(kindOf(await recalled(), 1)).to.equal('not-held');
  });
});
