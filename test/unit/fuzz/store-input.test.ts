import { expect } from 'chai';
import fc from 'fast-check';
import { compareVersions } from '../../../model/version.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import type { LogCursor, Mutation, Store } from '../../../node/storage/store.ts';
import { MemoryMachine } from '../../support/memory-store.ts';
import { attempt, bytes, keys, RUNS, uint48, versions } from './hostile.ts';

/** Numbers as a message can carry them, whatever their field in the log can hold. */
const wireNumber = fc.oneof(uint48(), fc.maxSafeNat(), fc.constantFrom(2 ** 48, 2 ** 53 - 1, -1, 0.5, NaN));

const mutations: fc.Arbitrary<Mutation> = fc
  .record({
    key: fc.oneof(
      keys,
      fc.constantFrom(Buffer.alloc(0), Buffer.alloc(1025), Buffer.from('a'), Buffer.from('b')),
    ),
    value: bytes(20),
    version: versions,
    own: fc.boolean(),
    requestId: fc.option(
      fc.record({ clientId: bytes(300), number: wireNumber, clientStartMs: wireNumber, attempt: wireNumber }),
      { nil: undefined },
    ),
  })
  .map(({ key, value, version, own, requestId }) => ({
    key,
    record: liveRecord(key, value, version),
    own,
    ...(requestId === undefined ? {} : { requestId }),
  }));

const cursors: fc.Arbitrary<LogCursor> = fc.record({
  origin: fc.oneof(fc.constantFrom('kv-1', ''), fc.string({ maxLength: 500 })),
  incarnation: wireNumber,
  sequence: wireNumber,
});

interface Call {
  readonly mutations: readonly Mutation[];
  readonly cursor: LogCursor | undefined;
}

const calls: fc.Arbitrary<Call> = fc.record({
  mutations: fc.array(mutations, { maxLength: 3 }),
  cursor: fc.option(cursors, { nil: undefined }),
});

const nameOf = ({ origin, incarnation }: LogCursor): string => `${origin}@${incarnation}`;

/** What a store must hold after the calls that it took. */
class Expected {
  readonly records = new Map<string, Mutation>();
  readonly cursors = new Map<string, number>();

  take({ mutations: list, cursor }: Call): void {
    for (const mutation of list) {
      const name = mutation.key.toString('latin1');
      const held = this.records.get(name);
      const order = held === undefined ? 1 : compareVersions(mutation.record.version, held.record.version);
      if (order > 0) this.records.set(name, mutation);
      else if (order === 0 && held !== undefined && mutation.record.checksum > held.record.checksum) {
        this.records.set(name, mutation);
      }
    }
    if (cursor === undefined) return;
    const name = nameOf(cursor);
    this.cursors.set(name, Math.max(this.cursors.get(name) ?? 0, cursor.sequence));
  }

  check(store: Store): void {
    for (const { key, record } of this.records.values()) {
      expect(store.get(key)?.bytes, key.toString('latin1')).to.deep.equal(record.bytes);
    }
    const held = new Map(store.cursors().map((cursor) => [nameOf(cursor), cursor.sequence]));
    expect(held).to.deep.equal(this.cursors);
  }
}

describe('fuzzed calls of a store', () => {
  it('are refused whole or kept whole, and spoil nothing that comes before or after them', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(calls, { maxLength: 8 }), fc.boolean(), async (list, clean) => {
        const machine = new MemoryMachine();
        const expected = new Expected();
        const store = await machine.open();
        const durable: Promise<void>[] = [];
        for (const call of list) {
          const outcome = attempt(['INVALID_ARGUMENT'], () => store.apply(call.mutations, call.cursor));
          if ('error' in outcome) continue;
          durable.push(outcome.value.durable);
          expected.take(call);
        }
        await machine.time.run(Promise.all(durable));
        expected.check(store);
        if (clean) await machine.time.run(store.close());
        machine.kill();
        const again = await machine.open();
        expected.check(again);
        machine.kill();
      }),
      { numRuns: RUNS },
    );
  });

  it('that look for what no key can be are INVALID_ARGUMENT, and the store goes on', async () => {
    const machine = new MemoryMachine();
    const store = await machine.open();
    const long = Buffer.alloc(6000, 'k');
    for (const look of [() => store.get(long), () => store.latest(long), () => store.get(Buffer.alloc(0))]) {
      expect(attempt(['INVALID_ARGUMENT'], look)).to.have.property('error');
    }
    for (const range of [{ after: long }, { from: long }, { before: long }]) {
      const scan = machine.time.run(store.scan(0, { ...range, limit: 10 })).catch((error: unknown) => error);
      expect(await scan).to.include({ code: 'INVALID_ARGUMENT' });
    }
    expect(await machine.time.run(store.scan(0, { limit: 10 }))).to.deep.equal([]);
    machine.kill();
  });
});
