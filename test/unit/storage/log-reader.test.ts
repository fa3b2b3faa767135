import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import { MemoryMachine } from '../../support/memory-store.ts';

const ALL_BYTES = 1_000_000;

describe('a log that is trimmed while it is read', () => {
  let machine: MemoryMachine;
  let store: LogStore;

  beforeEach(async () => {
    machine = new MemoryMachine();
    store = await machine.open();
    for (let counter = 0; counter < 120; counter += 1) {
      const version = { wallMs: machine.time.clock().wallMs(), counter, writer: 7 };
      const record = liveRecord(Buffer.from(`key-${counter}`), Buffer.alloc(200), version);
      const { durable } = store.apply([{ key: Buffer.from(`key-${counter}`), record, own: true }]);
      await machine.time.run(durable);
      await machine.time.advance(20);
    }
  });

  afterEach(() => machine.kill());

  it('passes over nothing: what was read is whole, and the next reader is told', async () => {
    const after = store.logStart;
    const reading = store.readEntries(after, ALL_BYTES);
    store.trimLog(store.head);
    expect(store.logStart, 'segments were dropped').to.be.greaterThan(after + 20);
    const { through, entries } = await machine.time.run(reading);
    expect(entries.map(({ sequence }) => sequence)).to.deep.equal(
      Array.from({ length: through - after }, (_, index) => after + 1 + index),
    );
    expect(through).to.be.lessThan(store.logStart);
    let told: unknown;
    await machine.time.run(
      store.readEntries(through, ALL_BYTES).catch((error: unknown) => {
        told = error;
      }),
    );
    expect(told).to.be.instanceOf(KvError).with.property('code', 'OUT_OF_RANGE');
  });
});
