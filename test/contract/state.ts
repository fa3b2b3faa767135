import { expect } from 'chai';
import fc from 'fast-check';
import { isFullPage, type IndexedState, type StateRecord } from '../../node/storage/state.ts';
import type { KeyRange } from '../../node/storage/store.ts';

/** A kind of state, and what it is kept in over the lives of a process. */
export interface StateGround {
  open(): Promise<IndexedState>;
  /** Power is lost: the next `open` finds what was durable. */
  crash(): Promise<void>;
  dispose(): Promise<void>;
}

const record = (
  partition: number,
  key: string | Buffer,
  value: string | Buffer,
): StateRecord & { bytes: Buffer } => ({
  partition,
  key: Buffer.from(key),
  bytes: Buffer.from(value),
});
const removal = (partition: number, key: string): StateRecord => ({
  partition,
  key: Buffer.from(key),
  bytes: undefined,
});
const NO_META: ReadonlyMap<string, Buffer> = new Map();
const ALL: KeyRange = { limit: 10_000 };

/** What every `IndexedState` must do; node/storage/state.ts says it in words. */
export function describeStateContract(name: string, makeGround: () => Promise<StateGround>): void {
  describe(`the contract of the indexed state, kept by ${name}`, () => {
    let ground: StateGround;
    let state: IndexedState;

    beforeEach(async () => {
      ground = await makeGround();
      state = await ground.open();
    });

    afterEach(async () => {
      await state.close();
      await ground.dispose();
    });

    const keysOf = (partition: number, range: KeyRange): string[] => {
      const keys = state.scan(partition, range).map(({ key }) => key.toString('latin1'));
      if (range.maxBytes === undefined) {
        expect(state.keys(partition, range).map((key) => key.toString('latin1'))).to.deep.equal(keys);
      }
      return keys;
    };

    it('is blank at first', () => {
      expect(state.get(0, Buffer.from('k'))).to.equal(undefined);
      expect(state.scan(0, ALL)).to.deep.equal([]);
      expect(state.readAllMeta().size).to.equal(0);
      expect(state.statistics().records).to.equal(0);
    });

    it('answers what was committed, replaced by what was committed later', async () => {
      await state.commit({
        records: [record(1, 'a', 'one'), record(2, 'a', 'two')],
        meta: new Map([['m', Buffer.from('x')]]),
      });
      await state.commit({ records: [record(1, 'a', 'newer')], meta: new Map([['n', Buffer.from('y')]]) });
      expect(state.get(1, Buffer.from('a'))?.toString()).to.equal('newer');
      expect(state.get(2, Buffer.from('a'))?.toString()).to.equal('two');
      expect([...state.readAllMeta()].map(([key, value]) => [key, value.toString()])).to.deep.equal([
        ['m', 'x'],
        ['n', 'y'],
      ]);
      expect(state.statistics().records).to.equal(2);
    });

    it('shows a transaction in the moment it resolves, to a reader who looked just before', async () => {
      for (let round = 0; round < 20; round += 1) {
        state.get(0, Buffer.from('k'));
        await state.commit({ records: [record(0, 'k', String(round))], meta: NO_META });
        expect(state.get(0, Buffer.from('k'))?.toString()).to.equal(String(round));
        expect(state.scan(0, ALL)[0]?.bytes.toString()).to.equal(String(round));
      }
    });

    it('gives copies that nobody else changes', async () => {
      await state.commit({ records: [record(0, 'a', 'first'), record(0, 'b', 'second')], meta: NO_META });
      const first = state.get(0, Buffer.from('a'));
      const second = state.get(0, Buffer.from('b'));
      const rows = state.scan(0, ALL);
      expect(first?.toString()).to.equal('first');
      second?.fill('x');
      rows[0]?.bytes.fill('x');
      rows[0]?.key.fill('x');
      expect(state.get(0, Buffer.from('b'))?.toString()).to.equal('second');
      expect(state.get(0, Buffer.from('a'))?.toString()).to.equal('first');
      expect(rows[1]?.bytes.toString()).to.equal('second');
    });

    it('keeps the longest keys, the last partition and values of many sizes', async () => {
      const longest = Buffer.alloc(1024, 0xff);
      const sizes = [1, 31, 4095, 4096, 70_000, 1024 * 1024];
      const records = sizes.map((size) => record(0xffff, `size-${size}`, Buffer.alloc(size, size % 251)));
      await state.commit({ records: [...records, record(0xffff, longest, 'longest')], meta: NO_META });
      for (const { key, bytes } of records) expect(state.get(0xffff, key)?.equals(bytes)).to.equal(true);
      expect(state.get(0xffff, longest)?.toString()).to.equal('longest');
      expect(state.scan(0xffff, ALL).at(-1)?.key.equals(longest)).to.equal(true);
      expect(state.scan(0xfffe, ALL)).to.deep.equal([]);
    });

    it('removes records, also ones it does not have, together with what it writes', async () => {
      await state.commit({
        records: [record(1, 'a', 'v'), record(1, 'b', 'v'), record(2, 'a', 'v')],
        meta: NO_META,
      });
      await state.commit({
        records: [removal(1, 'a'), removal(1, 'none'), record(1, 'c', 'v')],
        meta: new Map([['m', Buffer.from('x')]]),
      });
      expect(state.get(1, Buffer.from('a'))).to.equal(undefined);
      expect(keysOf(1, ALL)).to.deep.equal(['b', 'c']);
      expect(keysOf(2, ALL)).to.deep.equal(['a']);
      expect(state.readAllMeta().get('m')?.toString()).to.equal('x');
      expect(state.statistics().records).to.equal(3);
      await state.commit({ records: [record(1, 'a', 'again')], meta: NO_META });
      expect(state.get(1, Buffer.from('a'))?.toString()).to.equal('again');
    });

    it('scans within its bounds', async () => {
      const records = ['a', 'aa', 'b', 'c', 'd\xff', 'e'].map((key) =>
        record(7, Buffer.from(key, 'latin1'), 'v'),
      );
      await state.commit({ records: [record(6, 'z', 'v'), ...records, record(8, 'a', 'v')], meta: NO_META });
      const b = Buffer.from('b');
      expect(keysOf(7, ALL)).to.deep.equal(['a', 'aa', 'b', 'c', 'd\xff', 'e']);
      expect(keysOf(7, { after: b, limit: 10 })).to.deep.equal(['c', 'd\xff', 'e']);
      expect(keysOf(7, { from: b, limit: 10 })).to.deep.equal(['b', 'c', 'd\xff', 'e']);
      expect(keysOf(7, { from: b, after: b, limit: 10 })).to.deep.equal(['c', 'd\xff', 'e']);
      expect(keysOf(7, { after: Buffer.from('a'), from: b, limit: 10 })).to.deep.equal([
        'b',
        'c',
        'd\xff',
        'e',
      ]);
      expect(keysOf(7, { before: b, limit: 10 })).to.deep.equal(['a', 'aa']);
      expect(keysOf(7, { from: Buffer.from('aa'), before: Buffer.from('e'), limit: 2 })).to.deep.equal([
        'aa',
        'b',
      ]);
      expect(keysOf(7, { after: Buffer.from('x'), limit: 10 })).to.deep.equal([]);
      expect(keysOf(7, { after: b, before: b, limit: 10 })).to.deep.equal([]);
      expect(keysOf(7, { limit: 0 })).to.deep.equal([]);
    });

    it('ends a scan with the row that reaches the bound in bytes', async () => {
      const records = ['a', 'b', 'c', 'd'].map((key) => record(1, key, Buffer.alloc(99)));
      await state.commit({ records, meta: NO_META });
      for (const [maxBytes, count] of [
        [1, 1],
        [100, 1],
        [101, 2],
        [200, 2],
        [399, 4],
        [400, 4],
        [10_000, 4],
      ] as const) {
        const rows = state.scan(1, { limit: 10, maxBytes });
        expect(rows.length, `${maxBytes} bytes`).to.equal(count);
        expect(isFullPage(rows, { limit: 10, maxBytes })).to.equal(maxBytes <= 400);
      }
      expect(keysOf(1, { limit: 2, maxBytes: 1000 })).to.deep.equal(['a', 'b']);
      // Another scan is not disturbed by one that was ended.
      expect(keysOf(1, ALL)).to.deep.equal(['a', 'b', 'c', 'd']);
    });

    it('scans any keys in byte order', async () => {
      const bytes = fc.uint8Array({ minLength: 1, maxLength: 4 }).map((array) => Buffer.from(array));
      const bound = fc.option(bytes, { nil: undefined });
      let partition = 0;
      await fc.assert(
        fc.asyncProperty(
          fc.array(bytes, { maxLength: 30 }),
          bound,
          bound,
          bound,
          fc.nat(20),
          async (keys, after, from, before, limit) => {
            partition += 1;
            const unique = [...new Map(keys.map((key) => [key.toString('latin1'), key])).values()];
            await state.commit({ records: unique.map((key) => record(partition, key, 'v')), meta: NO_META });
            const expected = unique
              .sort((a, b) => Buffer.compare(a, b))
              .filter((key) => after === undefined || Buffer.compare(key, after) > 0)
              .filter((key) => from === undefined || Buffer.compare(key, from) >= 0)
              .filter((key) => before === undefined || Buffer.compare(key, before) < 0)
              .slice(0, limit)
              .map((key) => key.toString('latin1'));
            expect(keysOf(partition, { after, from, before, limit })).to.deep.equal(expected);
          },
        ),
        { numRuns: 60 },
      );
    });

    it('keeps everything over closing and opening, and closes twice', async () => {
      await state.commit({ records: [record(3, 'k', 'v')], meta: new Map([['m', Buffer.from('x')]]) });
      await state.close();
      await state.close();
      state = await ground.open();
      expect(state.get(3, Buffer.from('k'))?.toString()).to.equal('v');
      expect(state.readAllMeta().get('m')?.toString()).to.equal('x');
    });

    it('finds every resolved transaction after a crash, and the one under way whole or not at all', async () => {
      for (let round = 1; round <= 6; round += 1) {
        // As many names as a transaction of records in as many partitions has.
        const names = Array.from({ length: 700 }, (_, index) => `digest/${index}`);
        const transaction = (value: number): Parameters<IndexedState['commit']>[0] => ({
          records: Array.from({ length: 1000 }, (_, index) =>
            index % 10 === value % 2
              ? removal(index % 256, `key-${index}`)
              : record(index % 256, `key-${index}`, `value-${value}`),
          ),
          meta: new Map(['applied', ...names].map((name) => [name, Buffer.alloc(500, String(value))])),
        });
        await state.commit(transaction(round * 2));
        const underWay = state.commit(transaction(round * 2 + 1)).catch(() => undefined);
        await new Promise((resolve) => setTimeout(resolve, round));
        await ground.crash();
        await Promise.race([underWay, state.close().catch(() => undefined)]);
        state = await ground.open();
        const meta = state.readAllMeta();
        const value = [round * 2, round * 2 + 1].find((number) =>
          meta.get('applied')?.equals(Buffer.alloc(500, String(number))),
        );
        expect(value).not.to.equal(undefined);
        for (const name of names) expect(meta.get(name)?.equals(meta.get('applied')!), name).to.equal(true);
        for (let index = 0; index < 1000; index += 1) {
          const found = state.get(index % 256, Buffer.from(`key-${index}`))?.toString();
          expect(found).to.equal(index % 10 === value! % 2 ? undefined : `value-${value}`);
        }
      }
    });
  });
}
