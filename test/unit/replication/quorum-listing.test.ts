import { expect } from 'chai';
import fc from 'fast-check';
import type { ListedPage, ListedRecord } from '../../../node/replication/local-listing.ts';
import { MergeHeap } from '../../../node/replication/merge-heap.ts';
import { mergePages } from '../../../node/replication/quorum-listing.ts';

/** What one replica holds: by key number, the version and whether it is a tombstone. */
type Holding = ReadonlyMap<number, { wallMs: number; tombstone: boolean }>;

const nameOf = (key: number): Buffer => Buffer.from(`key-${String(key).padStart(3, '0')}`);

function pageOf(holding: Holding, after: Buffer | undefined, limit: number): ListedPage {
  const all = [...holding]
    .map(([key, { wallMs, tombstone }]): ListedRecord => ({
      key: nameOf(key),
      version: { wallMs, counter: 0, writer: 1 },
      tombstone,
      expiresAtMs: undefined,
      record: undefined,
    }))
    .filter(({ key }) => after === undefined || Buffer.compare(key, after) > 0)
    .sort((a, b) => Buffer.compare(a.key, b.key));
  return { keys: all.slice(0, limit), more: all.length > limit };
}

const holding = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 1, max: 9 }), fc.boolean()), {
    maxLength: 30,
  })
  .map((rows): Holding => new Map(rows.map(([key, wallMs, tombstone]) => [key, { wallMs, tombstone }])));

describe('pages of several replicas', () => {
  it('give, page after page, the newest record of every key exactly once', () => {
    const property = fc.property(
      fc.array(holding, { minLength: 1, maxLength: 3 }),
      fc.integer({ min: 1, max: 6 }),
      (holdings, limit) => {
        const found: string[] = [];
        for (let after: Buffer | undefined; ;) {
          const start = after;
          const { keys, through } = mergePages(holdings.map((one) => pageOf(one, start, limit)));
          found.push(...keys.map(({ key, version }) => `${key.toString()}@${version.wallMs}`));
          if (through === undefined) break;
          after = through;
        }
        const newest = new Map<string, number>();
        for (const one of holdings) {
          for (const [key, { wallMs }] of one) {
            const name = nameOf(key).toString();
            newest.set(name, Math.max(newest.get(name) ?? 0, wallMs));
          }
        }
        expect(found).to.deep.equal([...newest].map(([key, wallMs]) => `${key}@${wallMs}`).sort());
      },
    );
    fc.assert(property);
  });
});

describe('the heap of a merge', () => {
  it('gives items back in order', () => {
    fc.assert(
      fc.property(fc.array(fc.integer()), (numbers) => {
        const heap = new MergeHeap<number>((a, b) => a - b);
        for (const number of numbers) heap.push(number);
        const sorted = numbers.map(() => heap.pop());
        expect(sorted).to.deep.equal([...numbers].sort((a, b) => a - b));
        expect(heap.pop()).to.equal(undefined);
      }),
    );
  });
});
