import { expect } from 'chai';
import fc from 'fast-check';
import { partitionOf } from '../../../model/key-hash.ts';
import { liveRecord, tombstoneRecord } from '../../../node/storage/record.ts';
import { MemoryMachine, SMALL_LIMITS } from '../../support/memory-store.ts';

const PARTITIONS = 2;
const name = fc.nat(40).map((number) => Buffer.from(`key-${String(number).padStart(2, '0')}`));
const bound = fc.option(name, { nil: undefined });

describe('the keys of a partition', () => {
  it('are those of its records, wherever these are on their way into the state', async () => {
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ kind: fc.constantFrom('put' as const, 'delete' as const), key: name }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove' as const), key: name }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('wait' as const), key: name }) },
    );
    const property = fc.asyncProperty(
      fc.array(step, { maxLength: 60 }),
      fc.array(
        fc.record({ after: bound, from: bound, before: bound, limit: fc.integer({ min: 1, max: 50 }) }),
        { minLength: 5 },
      ),
      async (steps, ranges) => {
        const machine = new MemoryMachine();
        const store = await machine.open(
          { ...SMALL_LIMITS, checkpointMs: 50, checkpointRecords: 5, transactionRecords: 5 },
          PARTITIONS,
        );
        const removals: Promise<number>[] = [];
        for (const [index, { kind, key }] of steps.entries()) {
          const version = { wallMs: index + 1, counter: 0, writer: 1 };
          if (kind === 'wait') await machine.time.advance(60);
          else if (kind === 'remove') {
            const partition = partitionOf(key, PARTITIONS);
            removals.push(store.removeWhere(partition, (found) => found.equals(key)));
          } else {
            const record =
              kind === 'put' ? liveRecord(key, Buffer.from('v'), version) : tombstoneRecord(key, version);
            await machine.time.run(store.apply([{ key, record, own: true }]).durable);
          }
        }
        for (const range of ranges) {
          for (let partition = 0; partition < PARTITIONS; partition += 1) {
            const records = await machine.time.run(store.scan(partition, range));
            const keys = await machine.time.run(store.scanKeys(partition, range));
            expect(keys.map(String)).to.deep.equal(records.map(({ key }) => key.toString()));
          }
        }
        await machine.time.run(Promise.all(removals));
        await machine.time.run(store.close());
      },
    );
    await fc.assert(property, { numRuns: 60 });
  });
});
