/**
 * How lmdb 3.5.6 lays out its file (version 2 of LMDB's format, little-endian, 64 bit). Every page but the first two and
 * the continuation of an overflow begins with
 *
 *     page number u64 | transaction u64 | pad u16 | flags u16 | lower u16 | upper u16      branch, leaf
 *     page number u64 | transaction u64 | pad u16 | flags u16 | pages u32                  overflow
 *
 * and goes on with offsets u16 of its nodes in the order of their keys; lower, upper and offsets count from the end of
 * this header. A node is
 *
 *     page number u48 | key size u16 | key                     branch; the key of the first node means nothing
 *     size u32 | flags u16 | key size u16 | key | value        leaf
 *
 * where the value is one of: the bytes; `page u64 | transaction u64 | pages u64` of an overflow that has them, right
 * behind the header of its first page; a tree. A tree is
 *
 *     pad u32 | flags u16 | depth u16 | branch pages u64 | leaf pages u64 | overflow pages u64 | entries u64 | root u64
 */
export const PAGE_HEADER_BYTES = 24;
export const NODE_HEADER_BYTES = 8;
export const TREE_BYTES = 48;
const OVERFLOW_BYTES = 24;
const NO_PAGE = 2n ** 64n - 1n;

/** Flags of pages. */
export const BRANCH = 1;
export const LEAF = 2;
export const OVERFLOW = 4;
/** Flags of leaf nodes. */
const IN_OVERFLOW = 1;
const IS_TREE = 2;

/** A tree of pages. */
export interface Tree {
  /** How its keys are ordered, and whether they may repeat. */
  readonly flags: number;
  /** 0: it is empty. */
  readonly depth: number;
  readonly branchPages: number;
  readonly leafPages: number;
  readonly overflowPages: number;
  readonly entries: number;
  readonly root: number;
}

/** What a page must fit. */
export interface PageContext {
  readonly pageBytes: number;
  /** Number of the newest transaction. */
  readonly transaction: number;
  /** Pages there are. */
  readonly pages: number;
}

/** A value of a leaf: bytes, or where they are. */
export type LeafValue =
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | { readonly kind: 'overflow'; readonly page: number; readonly pages: number; readonly sizeBytes: number }
  | { readonly kind: 'tree'; readonly tree: Tree };

/** A page that does not make sense; the message says how. */
export class BadPage extends Error {}

/** Reads a tree's description. */
export function readTree(bytes: Buffer, at: number): Tree {
  const flags = bytes.readUInt16LE(at + 4);
  const depth = bytes.readUInt16LE(at + 6);
  const [branchPages, leafPages, overflowPages, entries] = [8, 16, 24, 32].map((offset) =>
    countAt(bytes, at + offset),
  ) as [number, number, number, number];
  const root = bytes.readBigUInt64LE(at + 40);
  if ((root === NO_PAGE) !== (depth === 0))
    throw new BadPage('a tree has a depth and no root, or a root and no depth');
  return {
    flags,
    depth,
    branchPages,
    leafPages,
    overflowPages,
    entries,
    root: root === NO_PAGE ? 0 : countAt(bytes, at + 40),
  };
}

/** A branch or leaf page, whose header and nodes lie within it. */
export class NodePage {
  readonly nodes: number;
  private readonly bytes: Buffer;
  private readonly kind: number;

  /** @throws BadPage when it is not page `number` of this kind, or not one of this file's transactions. */
  constructor(bytes: Buffer, number: number, kind: typeof BRANCH | typeof LEAF, context: PageContext) {
    checkHeader(bytes, number, kind, context);
    this.bytes = bytes;
    this.kind = kind;
    const room = context.pageBytes - PAGE_HEADER_BYTES;
    const lower = bytes.readUInt16LE(20);
    const upper = bytes.readUInt16LE(22);
    if (lower % 2 !== 0 || lower > upper || upper > room)
      throw new BadPage(`page ${number} has impossible bounds`);
    this.nodes = lower / 2;
    if (this.nodes < (kind === BRANCH ? 2 : 1)) throw new BadPage(`page ${number} has too few nodes`);
    for (let index = 0; index < this.nodes; index += 1) this.checkNode(index, upper, number);
  }

  key(index: number): Buffer {
    const at = this.at(index);
    const start = at + NODE_HEADER_BYTES;
    return this.bytes.subarray(start, start + this.bytes.readUInt16LE(at + 6));
  }

  /** Of a branch. */
  child(index: number): number {
    return this.bytes.readUIntLE(this.at(index), 6);
  }

  /** Of a leaf. */
  value(index: number, { pageBytes }: PageContext): LeafValue {
    const at = this.at(index);
    const flags = this.bytes.readUInt16LE(at + 4);
    const sizeBytes = this.bytes.readUInt32LE(at);
    const start = at + NODE_HEADER_BYTES + this.bytes.readUInt16LE(at + 6);
    if (flags === IN_OVERFLOW) {
      const page = countAt(this.bytes, start);
      const pages = countAt(this.bytes, start + 16);
      if (pages !== Math.ceil((PAGE_HEADER_BYTES + sizeBytes) / pageBytes))
        throw new BadPage(`a value of ${sizeBytes} bytes is said to be in ${pages} pages`);
      return { kind: 'overflow', page, pages, sizeBytes };
    }
    if (flags === IS_TREE) {
      if (sizeBytes !== TREE_BYTES) throw new BadPage(`the description of a tree has ${sizeBytes} bytes`);
      return { kind: 'tree', tree: readTree(this.bytes, start) };
    }
    if (flags !== 0) throw new BadPage(`a node has flags ${flags}`);
    return { kind: 'bytes', bytes: this.bytes.subarray(start, start + sizeBytes) };
  }

  private checkNode(index: number, upper: number, number: number): void {
    const at = this.at(index);
    const first = upper + PAGE_HEADER_BYTES;
    const last = this.bytes.length - NODE_HEADER_BYTES;
    if (at < first || at > last || at % 2 !== 0) throw new BadPage(`page ${number} has a node outside of it`);
    const end = at + NODE_HEADER_BYTES + this.bytes.readUInt16LE(at + 6) + this.valueBytes(at);
    if (end > this.bytes.length) throw new BadPage(`page ${number} has a node that reaches beyond it`);
  }

  /** What the value takes within the page. */
  private valueBytes(at: number): number {
    if (this.kind === BRANCH) return 0;
    return this.bytes.readUInt16LE(at + 4) === IN_OVERFLOW ? OVERFLOW_BYTES : this.bytes.readUInt32LE(at);
  }

  private at(index: number): number {
    return this.bytes.readUInt16LE(PAGE_HEADER_BYTES + 2 * index) + PAGE_HEADER_BYTES;
  }
}

/** @throws BadPage when it is not the first page of this overflow. */
export function checkOverflow(bytes: Buffer, number: number, pages: number, context: PageContext): void {
  checkHeader(bytes, number, OVERFLOW, context);
  if (bytes.readUInt32LE(20) !== pages)
    throw new BadPage(`page ${number} begins an overflow of another size`);
}

function checkHeader(bytes: Buffer, number: number, kind: number, { transaction }: PageContext): void {
  if (countAt(bytes, 0) !== number) throw new BadPage(`page ${number} says that it is another one`);
  if (countAt(bytes, 8) > transaction) throw new BadPage(`page ${number} is of a transaction that never was`);
  if (bytes.readUInt16LE(18) !== kind) throw new BadPage(`page ${number} is of another kind`);
}

/** A number that counts something in a file: far below 2^53. */
function countAt(bytes: Buffer, at: number): number {
  const low = bytes.readUInt32LE(at);
  const high = bytes.readUInt32LE(at + 4);
  if (high > 0xf_ffff) throw new BadPage('a count is impossibly large');
  return high * 2 ** 32 + low;
}
