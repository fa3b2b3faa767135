import { expect } from 'chai';
import fc from 'fast-check';
import { PartitionSet } from '../../../node/cluster/partition-set.ts';
import { readJsonMeta, writeJsonMeta } from '../../../node/cluster/json-meta.ts';
import {
  cursorName,
  decodeApplied,
  decodeCursor,
  decodeDigest,
  decodeIdentity,
  digestName,
  encodeApplied,
  encodeCursor,
  encodeDigest,
  encodeIdentity,
  nameOfUser,
  sealMeta,
  unsealMeta,
  userName,
} from '../../../node/storage/state-meta.ts';
import type { Store } from '../../../node/storage/store.ts';
import { anyBytes, attempt, bytes, damaged, RUNS, uint48 } from './hostile.ts';

/** StoreCorrupt and StoreUnsupported. */
const CODES = ['DATA_LOSS', 'FAILED_PRECONDITION'] as const;

const names = fc.string({ minLength: 1, maxLength: 60 });
const identities = fc.record({ storeId: bytes(16, 16), partitions: fc.integer({ min: 1, max: 65_536 }) });
const appliedValues = fc.record({
  sequence: uint48(),
  head: uint48(),
  ceilings: fc.record({ sequence: uint48(), clockMs: uint48() }),
});
const cursors = fc.record({ origin: names, incarnation: uint48(1), sequence: uint48() });
const digests = fc.record({
  leaves: fc.array(uint48(), { minLength: 256, maxLength: 256 }),
  unsure: fc.boolean(),
});

/** A kind of value: how it is made, and how it is read and made again. */
interface Kind {
  readonly name: string;
  readonly encoded: fc.Arbitrary<Buffer>;
  readonly again: (encoded: Buffer) => Buffer | undefined;
}

const kinds: readonly Kind[] = [
  {
    name: 'the identity',
    encoded: identities.map(encodeIdentity),
    again: (encoded) => encodeIdentity(decodeIdentity(encoded)),
  },
  {
    name: 'how far the state is',
    encoded: appliedValues.map(encodeApplied),
    again: (encoded) => encodeApplied(decodeApplied(encoded)),
  },
  {
    name: 'a cursor',
    encoded: cursors.map(encodeCursor),
    again: (encoded) => {
      const cursor = decodeCursor(cursorName({ origin: 'kv-1', incarnation: 7 }), encoded);
      return cursor && encodeCursor(cursor);
    },
  },
  {
    name: 'a digest',
    encoded: digests.map(({ leaves, unsure }) => encodeDigest({ leaves: Float64Array.from(leaves), unsure })),
    again: (encoded) => {
      const digest = decodeDigest(digestName(9), encoded);
      return digest && encodeDigest(digest);
    },
  },
];

describe('fuzzed values of the state', () => {
  for (const { name, encoded, again } of kinds) {
    it(`give ${name} back as it was written`, () => {
      fc.assert(
        fc.property(encoded, (value) => void expect(again(value)).to.deep.equal(value)),
        { numRuns: RUNS / 4 },
      );
    });

    it(`are an error or can be written again when it is damaged: ${name}`, () => {
      fc.assert(
        fc.property(fc.oneof(damaged(encoded), anyBytes), (value) => {
          const outcome = attempt(CODES, () => again(value));
          if ('error' in outcome) return;
          // The one byte that stands for yes or no: anything but 0 is yes.
          const plain = Buffer.from(value);
          if (name === 'a digest') plain[1] = plain[1] === 0 ? 0 : 1;
          expect(outcome.value).to.deep.equal(plain);
        }),
        { numRuns: RUNS },
      );
    });
  }

  it('keep cursors apart by origin and incarnation', () => {
    fc.assert(
      fc.property(cursors, (cursor) => {
        expect(decodeCursor(cursorName(cursor), encodeCursor(cursor))).to.deep.equal(cursor);
      }),
      { numRuns: RUNS },
    );
  });

  it('keep the names of callers apart from the store its own', () => {
    fc.assert(
      fc.property(names, (name) => {
        expect(nameOfUser(userName(name))).to.equal(name);
        expect(decodeCursor(userName(name), Buffer.alloc(7))).to.equal(undefined);
        expect(decodeDigest(userName(name), Buffer.alloc(7))).to.equal(undefined);
      }),
      { numRuns: RUNS / 2 },
    );
  });

  it('are sealed: damage, and another name, are corruption', () => {
    fc.assert(
      fc.property(names, bytes(100), names, (name, value, other) => {
        const sealed = sealMeta(name, value);
        expect(unsealMeta(name, sealed)).to.deep.equal(value);
        if (other !== name) expect(attempt(CODES, () => unsealMeta(other, sealed))).to.have.property('error');
      }),
      { numRuns: RUNS / 2 },
    );
    fc.assert(
      fc.property(
        names,
        fc.oneof(anyBytes, damaged(bytes(100).map((value) => sealMeta('name', value)))),
        (name, sealed) => {
          expect(attempt(CODES, () => unsealMeta(name, sealed))).to.have.property('error');
        },
      ),
      { numRuns: RUNS },
    );
  });
});

describe('fuzzed JSON values', () => {
  const storeWith = (value: Buffer | undefined): Store => ({ readMeta: () => value }) as unknown as Store;

  it('come back as they were written', async () => {
    await fc.assert(
      fc.asyncProperty(fc.dictionary(fc.string(), fc.jsonValue()), async (content) => {
        let stored: Buffer | undefined;
        const store = {
          readMeta: () => stored,
          writeMeta: (_name: string, value: Buffer) => Promise.resolve(void (stored = value)),
        } as unknown as Store;
        delete content['format'];
        await writeJsonMeta(store, 'name', 3, content);
        const expected = JSON.parse(JSON.stringify({ format: 3, ...content })) as unknown;
        expect(readJsonMeta(store, 'name', 3)).to.deep.equal(expected);
      }),
      { numRuns: RUNS / 2 },
    );
  });

  it('are an error unless they are of the format that is asked for', () => {
    const texts = fc.oneof(
      fc.json().map((json) => Buffer.from(json)),
      anyBytes,
      damaged(fc.constant(Buffer.from('{"format":1,"a":[1,{"b":null}]}'))),
    );
    fc.assert(
      fc.property(texts, (text) => {
        const outcome = attempt(CODES, () => readJsonMeta(storeWith(text), 'name', 1));
        if ('value' in outcome) expect(outcome.value).to.have.property('format', 1);
      }),
      { numRuns: RUNS },
    );
  });
});

describe('fuzzed sets of partitions', () => {
  it('come back as they were sent, and never hold a partition that is not there', () => {
    const sizes = fc.integer({ min: 1, max: 300 });
    fc.assert(
      fc.property(sizes, fc.array(fc.nat(299)), (count, chosen) => {
        const partitions = [...new Set(chosen.filter((partition) => partition < count))].sort(
          (a, b) => a - b,
        );
        const set = PartitionSet.of(partitions, count);
        expect([...PartitionSet.fromBytes(set.toBytes(), count)]).to.deep.equal(partitions);
      }),
      { numRuns: RUNS },
    );
    fc.assert(
      fc.property(sizes, bytes(60), (count, sent) => {
        const set = PartitionSet.fromBytes(sent, count);
        const partitions = [...set];
        expect(partitions.every((partition) => partition < count)).to.equal(true);
        expect(set.size).to.equal(partitions.length);
        expect([...PartitionSet.fromBytes(set.toBytes(), count)]).to.deep.equal(partitions);
      }),
      { numRuns: RUNS },
    );
  });
});
