import { expect } from 'chai';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { markInUse, prepareLmdbFile } from '../../../node/storage/lmdb-file.ts';
import { BRANCH, LEAF, NodePage, readTree, type Tree } from '../../../node/storage/lmdb-page.ts';
import { LmdbState } from '../../../node/storage/lmdb-state.ts';
import type { StateRecord } from '../../../node/storage/state.ts';
import { StoreCorrupt, StoreUnsupported } from '../../../node/storage/store-errors.ts';
import { seededRandom } from '../../support/seeded-random.ts';

const PAGE = 4096;
const KEYS = 3000;

/** A file of LMDB in memory, and where things are in it. */
class LmdbImage {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  /** Where the newer of both descriptions is. */
  get description(): number {
    return this.bytes.readBigUInt64LE(152) >= this.bytes.readBigUInt64LE(PAGE + 152) ? 0 : PAGE;
  }

  get otherDescription(): number {
    return PAGE - this.description;
  }

  get main(): Tree {
    return readTree(this.bytes, this.description + 96);
  }

  get free(): Tree {
    return readTree(this.bytes, this.description + 48);
  }

  /** Where the description of the tree of records is. */
  get dataAt(): number {
    return this.nodeAt(this.main.root, 0) + 8 + 'data\0'.length;
  }

  get data(): Tree {
    return readTree(this.bytes, this.dataAt);
  }

  /** Pages of the tree of records at a depth, 1 being the top. */
  pagesAt(depth: number): readonly number[] {
    let pages = [this.data.root];
    for (let level = 1; level < depth; level += 1) {
      pages = pages.flatMap((number) => {
        const page = new NodePage(this.page(number), number, BRANCH, this.context);
        return Array.from({ length: page.nodes }, (_, index) => page.child(index));
      });
    }
    return pages;
  }

  get leaf(): number {
    return this.pagesAt(this.data.depth)[1]!;
  }

  get branch(): number {
    return this.pagesAt(this.data.depth - 1)[0]!;
  }

  /** Where the first node with a value on pages of its own is. */
  get bigNodeAt(): number {
    for (const number of this.pagesAt(this.data.depth)) {
      const page = new NodePage(this.page(number), number, LEAF, this.context);
      for (let index = 0; index < page.nodes; index += 1)
        if (page.value(index, this.context).kind === 'overflow') return this.nodeAt(number, index);
    }
    throw new Error('no value is large');
  }

  offsetAt(page: number, index: number): number {
    return page * PAGE + 24 + 2 * index;
  }

  nodeAt(page: number, index: number): number {
    return page * PAGE + 24 + this.bytes.readUInt16LE(this.offsetAt(page, index));
  }

  flip(at: number, bit = 0): void {
    this.bytes[at] = this.bytes[at]! ^ (1 << bit);
  }

  private page(number: number): Buffer {
    return this.bytes.subarray(number * PAGE, (number + 1) * PAGE);
  }

  private get context() {
    return { pageBytes: PAGE, transaction: Number.MAX_SAFE_INTEGER, pages: this.bytes.length / PAGE };
  }
}

const key = (index: number): Buffer => Buffer.from(`key/${String(index).padStart(8, '0')}`);

/** Records of many sizes, written over and removed in several transactions, so that there are free pages. */
async function fill(state: LmdbState, random = seededRandom(7)): Promise<void> {
  for (let round = 0; round < 8; round += 1) {
    const chosen = new Map<number, StateRecord>();
    for (let index = 0; index < 900; index += 1) {
      const number = Math.floor(random.fraction() * KEYS);
      const size = random.fraction() < 0.01 ? 9000 : Math.floor(random.fraction() * 250);
      const bytes = round > 3 && random.fraction() < 0.3 ? undefined : Buffer.alloc(size, round);
      chosen.set(number, { partition: number % 4, key: key(number), bytes });
    }
    await state.commit({ records: [...chosen.values()], meta: new Map([['user/n', Buffer.alloc(round)]]) });
  }
}

describe("the check of LMDB's file", () => {
  let directory: string;
  let sound: Buffer;

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'kvcluster-lmdb-'));
    mkdirSync(join(directory, 'state'));
    const state = await LmdbState.open(join(directory, 'state'));
    await fill(state);
    await state.close();
    sound = readFileSync(join(directory, 'state/data.mdb'));
  });

  after(() => rmSync(directory, { recursive: true, force: true }));

  /** What the check says of these bytes. */
  async function judge(bytes: Buffer, mark = false, alwaysCheckedBytes?: number): Promise<unknown> {
    const copy = mkdtempSync(join(directory, 'copy-'));
    writeFileSync(join(copy, 'data.mdb'), bytes);
    if (mark) await markInUse(copy);
    try {
      await prepareLmdbFile(copy, alwaysCheckedBytes);
      return undefined;
    } catch (error) {
      return error;
    } finally {
      rmSync(copy, { recursive: true });
    }
  }

  const image = (): LmdbImage => new LmdbImage(Buffer.from(sound));

  it('accepts every state that LMDB leaves, from the blank one on', async () => {
    const live = join(directory, 'live');
    mkdirSync(live);
    const state = await LmdbState.open(live);
    const random = seededRandom(3);
    for (let round = 0; round < 30; round += 1) {
      const copy = join(directory, `live-${round}`);
      await cp(live, copy, { recursive: true });
      await prepareLmdbFile(copy);
      const records = Array.from({ length: 1 + Math.floor(random.fraction() * 400) }, (_, index) => {
        const bytes =
          random.fraction() < 0.4 ? undefined : Buffer.alloc(Math.floor(random.fraction() ** 8 * 60_000));
        return { partition: round % 3, key: key(index * 7 + (round % 7)), bytes };
      });
      await state.commit({ records, meta: new Map() });
    }
    await state.close();
  });

  it('does not look at values: records have checksums of their own', async () => {
    const damaged = image();
    damaged.flip(damaged.nodeAt(damaged.leaf, 3) + 8 + 2 + key(0).length + 1);
    expect(await judge(damaged.bytes)).to.equal(undefined);
  });

  const damages: readonly { name: string; damage: (file: LmdbImage) => void; message: RegExp }[] = [
    {
      name: 'a page says that it is another one',
      damage: (file) => file.flip(file.leaf * PAGE),
      message: /says that it is another one/,
    },
    {
      name: 'a page is of a transaction to come',
      damage: (file) => file.flip(file.leaf * PAGE + 8 + 3),
      message: /of a transaction that never was/,
    },
    {
      name: 'a leaf is said to be a branch',
      damage: (file) => file.bytes.writeUInt16LE(BRANCH, file.leaf * PAGE + 18),
      message: /of another kind/,
    },
    {
      name: 'a page has lost its last node',
      damage: (file) => {
        const at = file.leaf * PAGE + 20;
        file.bytes.writeUInt16LE(file.bytes.readUInt16LE(at) - 2, at);
      },
      message: /a tree has \d+ entries, and says \d+/,
    },
    {
      name: 'a page has more nodes than fit',
      damage: (file) => file.flip(file.leaf * PAGE + 21, 7),
      message: /impossible bounds/,
    },
    {
      name: 'a node begins before its page',
      damage: (file) => file.bytes.writeUInt16LE(0, file.offsetAt(file.leaf, 2)),
      message: /a node outside of it/,
    },
    {
      name: 'a node begins behind its page',
      damage: (file) => file.flip(file.offsetAt(file.leaf, 2) + 1, 7),
      message: /a node outside of it/,
    },
    {
      name: 'a key is longer than its page',
      damage: (file) => file.flip(file.nodeAt(file.leaf, 2) + 7, 5),
      message: /reaches beyond it/,
    },
    {
      name: 'a value is longer than its page',
      damage: (file) => file.flip(file.nodeAt(file.leaf, 2) + 2, 4),
      message: /reaches beyond it/,
    },
    {
      name: 'a value is said to be what it cannot be',
      damage: (file) => file.flip(file.nodeAt(file.leaf, 2) + 4, 2),
      message: /flags/,
    },
    {
      name: 'a value on pages of its own has another number of them',
      damage: (file) => file.flip(file.bigNodeAt + 8 + 2 + key(0).length + 16, 1),
      message: /is said to be in/,
    },
    {
      name: 'two keys are not in order',
      damage: (file) => {
        const [a, b] = [file.offsetAt(file.leaf, 1), file.offsetAt(file.leaf, 2)];
        const first = file.bytes.readUInt16LE(a);
        file.bytes.writeUInt16LE(file.bytes.readUInt16LE(b), a);
        file.bytes.writeUInt16LE(first, b);
      },
      message: /not in order/,
    },
    {
      name: 'a key leads to a page that does not have it',
      damage: (file) => file.flip(file.nodeAt(file.branch, 2) + 8, 0),
      message: /belongs elsewhere/,
    },
    {
      name: 'a branch leads to a page twice',
      damage: (file) => {
        const [from, to] = [file.nodeAt(file.branch, 1), file.nodeAt(file.branch, 2)];
        file.bytes.copyWithin(to, from, from + 6);
      },
      message: /used twice/,
    },
    {
      name: 'a branch leads out of the file',
      damage: (file) => file.flip(file.nodeAt(file.branch, 1) + 3),
      message: /there is no page/,
    },
    {
      name: 'the tree of records counts wrong',
      damage: (file) => file.flip(file.dataAt + 32),
      message: /entries, and says/,
    },
    {
      name: 'the tree of records has another name',
      damage: (file) => file.flip(file.nodeAt(file.main.root, 0) + 8),
      message: /another name/,
    },
    {
      name: 'the tree of records is of another kind',
      damage: (file) => file.flip(file.dataAt + 4, 2),
      message: /of another kind/,
    },
    {
      name: 'a page in use is free as well',
      damage: (file) => {
        // The last list; its value begins with a count.
        const nodes = file.bytes.readUInt16LE(file.free.root * PAGE + 20) / 2;
        const list = file.nodeAt(file.free.root, nodes - 1) + 8 + 8;
        file.bytes.writeBigUInt64LE(1n, list);
        file.bytes.writeBigUInt64LE(BigInt(file.leaf), list + 8);
      },
      message: /used twice/,
    },
    {
      name: 'the newest transaction is not the newest',
      damage: (file) => file.flip(file.description + 152, 1),
      message: /of another one/,
    },
    {
      name: 'the one before is newer than the newest',
      damage: (file) => file.flip(file.otherDescription + 152, 6),
      message: /of another one/,
    },
    {
      name: 'there are far more pages than are used',
      damage: (file) => file.flip(file.description + 146),
      message: /neither used nor free/,
    },
    {
      name: 'one description is of another version',
      damage: (file) => file.flip(file.otherDescription + 28, 3),
      message: /does not begin as one of LMDB/,
    },
    {
      name: 'one description has another flag',
      damage: (file) => file.flip(file.otherDescription + 53, 5),
      message: /does not begin as one of LMDB/,
    },
  ];
  for (const { name, damage, message } of damages) {
    it(`refuses it when ${name}`, async () => {
      const damaged = image();
      damage(damaged);
      expect(await judge(damaged.bytes))
        .to.be.instanceOf(StoreCorrupt)
        .with.property('message')
        .that.matches(message);
    });
  }

  it('does not throw away what another version of LMDB wrote', async () => {
    const other = image();
    for (const at of [0, PAGE]) other.bytes.writeUInt32LE(3, at + 28);
    expect(await judge(other.bytes)).to.be.instanceOf(StoreUnsupported);
  });

  it('looks at a large file only after an end that was not clean', async () => {
    const damaged = image();
    damaged.flip(damaged.leaf * PAGE);
    expect(await judge(damaged.bytes, false, 0)).to.equal(undefined);
    expect(await judge(damaged.bytes, true, 0)).to.be.instanceOf(StoreCorrupt);
  });

  it('finds the mark of use after an end without closing, and none after closing', async () => {
    const marked = join(directory, 'marked');
    mkdirSync(marked);
    const state = await LmdbState.open(marked);
    await fill(state);
    const damaged = new LmdbImage(readFileSync(join(marked, 'data.mdb')));
    damaged.flip(damaged.leaf * PAGE);
    const copy = join(directory, 'marked-copy');
    await cp(marked, copy, { recursive: true });
    writeFileSync(join(copy, 'data.mdb'), damaged.bytes);
    const refused = await prepareLmdbFile(copy, 0).catch((error: unknown) => error);
    expect(refused).to.be.instanceOf(StoreCorrupt);
    await state.close();
    writeFileSync(join(marked, 'data.mdb'), damaged.bytes);
    await prepareLmdbFile(marked, 0);
  });
});
