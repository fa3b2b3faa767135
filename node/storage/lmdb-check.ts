import { readSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import {
  BadPage,
  BRANCH,
  checkOverflow,
  LEAF,
  type LeafValue,
  NodePage,
  PAGE_HEADER_BYTES,
  readTree,
  type Tree,
} from './lmdb-page.ts';
import { StoreCorrupt } from './store-errors.ts';

/** What one of the file's first two pages says. */
export interface LmdbRoots {
  readonly pageBytes: number;
  readonly transaction: number;
  readonly lastPage: number;
  /** Descriptions of both trees, as they are in the file: the free pages, and everything else. */
  readonly free: Buffer;
  readonly main: Buffer;
}

const META_PAGES = 2;
const READ_AHEAD_BYTES = 4 * 1024 * 1024;
/** Keys of a tree lie between these. */
interface Bounds {
  readonly from: Buffer | undefined;
  readonly before: Buffer | undefined;
}
const UNBOUNDED: Bounds = { from: undefined, before: undefined };

/** What was counted of a tree, to be compared with what it says of itself. */
interface Counts {
  branchPages: number;
  leafPages: number;
  overflowPages: number;
  entries: number;
}

/** What trees there are, and how LMDB keeps their names. */
const NAMES = ['data\0', 'meta\0'];

/** A way of ordering keys. */
interface Order {
  /** Of a tree with this order; with those of the whole file in the tree of free pages. */
  readonly flags: number;
  readonly keyBytes: number | undefined;
  readonly compare: (a: Buffer, b: Buffer) => number;
}
const PLAIN: Order = { flags: 0, keyBytes: undefined, compare: (a, b) => Buffer.compare(a, b) };
/** That keys are numbers, and that `safeRestore` was asked for (lmdb-state.ts): the flags of the whole file are kept here. */
export const FREE_TREE_FLAGS = 0x808;
/** Keys are numbers of transactions. */
const FREE: Order = {
  flags: FREE_TREE_FLAGS,
  keyBytes: 8,
  compare: (a, b) => Number(a.readBigUInt64LE() - b.readBigUInt64LE()),
};

/** A tree that is being followed. */
interface Walk {
  readonly counts: Counts;
  readonly order: Order;
  readonly onEntry: (key: Buffer, value: LeafValue) => void | Promise<void>;
}

/**
 * Follows every page of an LMDB file from its roots, before LMDB does. LMDB trusts its pages: one damaged bit in a page's
 * header, an offset or a page number ends the process, at this start and at every one after it, and one in a key makes
 * keys unfindable. Here it is an error: the store is set aside, and the records come back from the peers.
 *
 * Checked is everything that LMDB relies on: each page is what and where it says, its nodes lie within it, keys are in
 * order and within the bounds that lead to them, each page is used once, the counts are right, and no page is in use and
 * free. Values are not looked at: records carry checksums of their own.
 *
 * @param newest - what LMDB goes by; the other one is of the transaction before.
 * @throws StoreCorrupt
 */
export async function checkLmdbPages(file: FileHandle, newest: LmdbRoots, other: LmdbRoots): Promise<void> {
  try {
    await checkTransaction(file, newest);
    await checkTransaction(file, other);
    await new PageWalk(file, newest).run();
  } catch (error) {
    if (error instanceof BadPage) throw new StoreCorrupt(`the state is damaged: ${error.message}`, error);
    throw error;
  }
}

/**
 * Every transaction changes the top of the main tree, and the pages of the last two are both there. Or the number of one
 * of them is damaged, and it is not known which one is the newest.
 */
async function checkTransaction(
  file: FileHandle,
  { main, pageBytes, transaction }: LmdbRoots,
): Promise<void> {
  const { depth, root } = readTree(main, 0);
  if (depth === 0) return;
  const { buffer } = await file.read(Buffer.alloc(16), 0, 16, root * pageBytes);
  if (Number(buffer.readBigUInt64LE(8)) !== transaction)
    throw new BadPage(`the top of transaction ${transaction} is of another one`);
}

class PageWalk {
  private readonly file: FileHandle;
  private readonly roots: LmdbRoots;
  private readonly pages: number;
  private readonly seen: Uint8Array;
  private seenCount = 0;
  private readonly context;

  constructor(file: FileHandle, roots: LmdbRoots) {
    this.file = file;
    this.roots = roots;
    this.pages = roots.lastPage + 1;
    this.context = { pageBytes: roots.pageBytes, transaction: roots.transaction, pages: this.pages };
    this.seen = new Uint8Array(Math.ceil(this.pages / 8));
  }

  async run(): Promise<void> {
    await this.readAhead();
    await this.walk(readTree(this.roots.main, 0), PLAIN, async (name, value) => {
      if (value.kind !== 'tree' || !NAMES.includes(name.toString('latin1')))
        throw new BadPage('there is a tree of another name than it can have');
      await this.walk(value.tree, PLAIN, (_key, inner) => {
        if (inner.kind === 'tree') throw new BadPage('there is a tree within a tree');
      });
    });
    await this.walk(readTree(this.roots.free, 0), FREE, (_key, value) => this.markFree(value));
    // All of them, but for a few that LMDB may have lost; of a last page that is damaged, not nearly.
    if (2 * (this.seenCount + META_PAGES) < this.pages)
      throw new BadPage('most pages are neither used nor free');
  }

  /** In the order of the file, which a disk is best at; following the trees then finds the pages in memory. */
  private async readAhead(): Promise<void> {
    const target = Buffer.allocUnsafe(READ_AHEAD_BYTES);
    const { size } = await this.file.stat();
    for (let at = 0; at < size; at += target.length) await this.file.read(target, 0, target.length, at);
  }

  private async walk(tree: Tree, order: Order, onEntry: Walk['onEntry']): Promise<void> {
    if (tree.flags !== order.flags) throw new BadPage('a tree is of another kind');
    const counts: Counts = { branchPages: 0, leafPages: 0, overflowPages: 0, entries: 0 };
    if (tree.depth > 0) await this.follow(tree.root, tree.depth, UNBOUNDED, { counts, order, onEntry });
    for (const name of ['branchPages', 'leafPages', 'overflowPages', 'entries'] as const) {
      if (counts[name] !== tree[name])
        throw new BadPage(`a tree has ${counts[name]} ${name}, and says ${tree[name]}`);
    }
  }

  /** The page at the top of a tree of this depth, and all below it. */
  private async follow(number: number, depth: number, bounds: Bounds, walk: Walk): Promise<void> {
    this.mark(number);
    if (depth === 1) {
      await this.followLeaf(number, bounds, walk);
      return;
    }
    walk.counts.branchPages += 1;
    // Where others get their turn: below it everything is read at once.
    const page = new NodePage(await this.read(number), number, BRANCH, this.context);
    for (let index = 0; index < page.nodes; index += 1) {
      const from = index === 0 ? bounds.from : page.key(index);
      const before = index + 1 < page.nodes ? page.key(index + 1) : bounds.before;
      if (index > 0) checkBounds(page.key(index), bounds, walk, number);
      await this.follow(page.child(index), depth - 1, { from, before }, walk);
    }
  }

  private async followLeaf(number: number, bounds: Bounds, walk: Walk): Promise<void> {
    const { counts, order, onEntry } = walk;
    counts.leafPages += 1;
    const page = new NodePage(this.readNow(number), number, LEAF, this.context);
    counts.entries += page.nodes;
    let previous: Buffer | undefined;
    for (let index = 0; index < page.nodes; index += 1) {
      const key = page.key(index);
      if (order.keyBytes !== undefined && key.length !== order.keyBytes)
        throw new BadPage(`page ${number} has a key of impossible length`);
      // Within the page each key is above the one before: only the first and the last one can be out of bounds.
      if (previous === undefined || index === page.nodes - 1) checkBounds(key, bounds, walk, number);
      if (previous !== undefined && order.compare(previous, key) >= 0)
        throw new BadPage(`page ${number} has keys that are not in order`);
      previous = key;
      const value = page.value(index, this.context);
      if (value.kind === 'overflow') this.followOverflow(value.page, value.pages, counts);
      const done = onEntry(key, value);
      if (done !== undefined) await done;
    }
  }

  private followOverflow(number: number, pages: number, counts: Counts): void {
    for (let offset = 0; offset < pages; offset += 1) this.mark(number + offset);
    counts.overflowPages += pages;
    checkOverflow(this.readNow(number), number, pages, this.context);
  }

  /** A list of free pages: count u64, then page numbers; 0 is a gap, and -n goes before the first of n pages. */
  private markFree(value: LeafValue): void {
    const list = this.bytesOf(value);
    const count = list.length < 8 ? -1 : Number(list.readBigUInt64LE(0));
    if (count < 0 || list.length < 8 * (count + 1))
      throw new BadPage('a list of free pages is longer than it is');
    for (let index = 1; index <= count; index += 1) {
      let entry = list.readBigInt64LE(8 * index);
      if (entry === 0n) continue;
      let length = 1;
      if (entry < 0n) {
        index += 1;
        if (index > count || -entry > this.pages)
          throw new BadPage('a list of free pages has a block of impossible length');
        length = Number(-entry);
        entry = list.readBigInt64LE(8 * index);
      }
      for (let offset = 0; offset < length; offset += 1) this.mark(Number(entry) + offset);
    }
  }

  private bytesOf(value: LeafValue): Buffer {
    if (value.kind === 'bytes') return value.bytes;
    if (value.kind === 'tree') throw new BadPage('a list of free pages is a tree');
    const { pageBytes } = this.roots;
    const bytes = Buffer.alloc(value.pages * pageBytes);
    readSync(this.file.fd, bytes, 0, bytes.length, value.page * pageBytes);
    return bytes.subarray(PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + value.sizeBytes);
  }

  private mark(number: number): void {
    if (number < META_PAGES || number >= this.pages) throw new BadPage(`there is no page ${number}`);
    const bit = 1 << (number & 7);
    const byte = this.seen[number >> 3] ?? 0;
    if ((byte & bit) !== 0) throw new BadPage(`page ${number} is used twice`);
    this.seen[number >> 3] = byte | bit;
    this.seenCount += 1;
  }

  private async read(number: number): Promise<Buffer> {
    const { pageBytes } = this.roots;
    const { buffer } = await this.file.read(Buffer.alloc(pageBytes), 0, pageBytes, number * pageBytes);
    return buffer;
  }

  private readNow(number: number): Buffer {
    const { pageBytes } = this.roots;
    const page = Buffer.alloc(pageBytes);
    readSync(this.file.fd, page, 0, pageBytes, number * pageBytes);
    return page;
  }
}

function checkBounds(key: Buffer, { from, before }: Bounds, { order }: Walk, number: number): void {
  const low = from !== undefined && order.compare(key, from) < 0;
  const high = before !== undefined && order.compare(key, before) >= 0;
  if (low || high) throw new BadPage(`page ${number} has a key that belongs elsewhere`);
}
