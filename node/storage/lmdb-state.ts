import { open, type Database, type RootDatabase } from 'lmdb';
import { messageOf } from '../../common/errors.ts';
import { markClosed, markInUse, MAX_FILE_BYTES, prepareLmdbFile } from './lmdb-file.ts';
import {
  rowBytes,
  type IndexedState,
  type StateRow,
  type StateStatistics,
  type StateTransaction,
} from './state.ts';
import type { KeyRange } from './store.ts';
import { StoreCorrupt, StoreUnsupported } from './store-errors.ts';

const PARTITION_BYTES = 2;
const MAX_KEY_BYTES = 1024;

type BinaryDatabase = Database<Buffer, Buffer>;

/**
 * The indexed state in LMDB: database `data` with keys [partition u16][key], and `meta` by name.
 *
 * Facts about lmdb 3.5.6 that this file rests on, each found by experiment:
 * - With the default `overlappingSync` data is visible before it is durable; without it, a commit resolves after
 *   fdatasync and becomes visible then.
 * - Puts issued in one turn of the event loop are one transaction, over several databases, unless a synchronous write
 *   or `openDB` comes in between: there is none after opening.
 * - Values are not copied at `put`. `getBinaryFast` answers one reused buffer: it is copied before anything else runs.
 * - A failed commit rejects with an error whose `commitError` is a promise with the cause, which rejects as well and
 *   would end the process when nobody listens. A transaction that cannot begin never settles: the caller has a watchdog.
 * - `safeRestore`, or a volume restored from a snapshot within one boot of the host is opened at a transaction that was
 *   never flushed.
 */
export class LmdbState implements IndexedState {
  private readonly directory: string;
  private readonly root: RootDatabase<Buffer, Buffer>;
  private readonly data: BinaryDatabase;
  private readonly meta: BinaryDatabase;
  /** Key of a lookup; LMDB copies keys. */
  private readonly scratch = Buffer.alloc(PARTITION_BYTES + MAX_KEY_BYTES);
  private committing: Promise<void> = Promise.resolve();
  private closing: Promise<void> | undefined;
  private statisticsNow: StateStatistics | undefined;

  private constructor(directory: string, root: RootDatabase<Buffer, Buffer>) {
    const options = { encoding: 'binary', keyEncoding: 'binary', cache: false } as const;
    this.directory = directory;
    this.root = root;
    this.data = root.openDB<Buffer, Buffer>({ ...options, name: 'data' });
    this.meta = root.openDB<Buffer, Buffer>({ ...options, name: 'meta' });
  }

  /**
   * Opens the environment in an existing directory, or creates it.
   *
   * @throws StoreCorrupt when the files are damaged; errors of the file system as they come.
   */
  static async open(directory: string): Promise<LmdbState> {
    await prepareLmdbFile(directory);
    await markInUse(directory);
    const root = translated(() => open<Buffer, Buffer>(environmentOptions(directory)));
    try {
      return translated(() => new LmdbState(directory, root));
    } catch (error) {
      await root.close();
      throw error;
    }
  }

  get(partition: number, key: Buffer): Buffer | undefined {
    this.scratch.writeUInt16BE(partition, 0);
    key.copy(this.scratch, PARTITION_BYTES);
    const stateKey = this.scratch.subarray(0, PARTITION_BYTES + key.length);
    const found = translated(() => this.data.getBinaryFast(stateKey));
    return found === undefined ? undefined : copyOf(found);
  }

  scan(partition: number, range: KeyRange): StateRow[] {
    return translated(() => {
      const rows: StateRow[] = [];
      let left = range.maxBytes ?? Infinity;
      for (const { key, value } of this.data.getRange(bounds(partition, range))) {
        const row = { key: asBuffer(key).subarray(PARTITION_BYTES), bytes: copyOf(value) };
        rows.push(row);
        left -= rowBytes(row);
        if (left <= 0) break;
      }
      return rows;
    });
  }

  keys(partition: number, range: KeyRange): Buffer[] {
    return translated(() => {
      const keys: Buffer[] = [];
      for (const key of this.data.getKeys(bounds(partition, range))) {
        keys.push(asBuffer(key).subarray(PARTITION_BYTES));
      }
      return keys;
    });
  }

  readAllMeta(): Map<string, Buffer> {
    return translated(() => {
      const values = new Map<string, Buffer>();
      for (const { key, value } of this.meta.getRange({})) {
        values.set(asBuffer(key).toString('utf8'), copyOf(value));
      }
      return values;
    });
  }

  commit(transaction: StateTransaction): Promise<void> {
    this.committing = this.write(transaction);
    return this.committing;
  }

  private async write({ records, meta }: StateTransaction): Promise<void> {
    const writes = new Set<Promise<boolean>>();
    for (const { partition, key, bytes } of records) {
      const stateKey = dataKey(partition, key);
      writes.add(bytes === undefined ? this.data.remove(stateKey) : this.data.put(stateKey, bytes));
    }
    for (const [name, value] of meta) writes.add(this.meta.put(Buffer.from(name, 'utf8'), value));
    try {
      await Promise.all(writes);
    } catch (error) {
      throw await causeOf(error);
    }
    this.statisticsNow = undefined;
  }

  statistics(): StateStatistics {
    // Once for each transaction is enough.
    this.statisticsNow ??= translated(() => readStatistics(this.data, this.meta));
    return this.statisticsNow;
  }

  close(): Promise<void> {
    this.closing ??= this.committing.then(
      async () => {
        await this.root.close();
        await markClosed(this.directory);
      },
      // After a failed commit LMDB's own close may wait for ever.
      () => undefined,
    );
    return this.closing;
  }
}

function environmentOptions(directory: string): Parameters<typeof open<Buffer, Buffer>>[0] {
  return {
    path: directory,
    // Or a directory whose name has a dot would be taken for a file.
    noSubdir: false,
    encoding: 'binary',
    keyEncoding: 'binary',
    cache: false,
    overlappingSync: false,
    mapSize: MAX_FILE_BYTES,
    safeRestore: true,
  } as Parameters<typeof open<Buffer, Buffer>>[0];
}

const MDB_VERSION_MISMATCH = -30_794;
/** MDB_PAGE_NOTFOUND, MDB_CORRUPTED, MDB_PANIC, MDB_INVALID. */
const DAMAGE = new Set<unknown>([-30_797, -30_796, -30_795, -30_793]);

/** Runs `action`; LMDB's word for damage becomes ours. */
function translated<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (DAMAGE.has(code)) throw new StoreCorrupt(`the state is damaged: ${messageOf(error)}`, error);
    if (code === MDB_VERSION_MISMATCH)
      throw new StoreUnsupported(`the state was written by another version of LMDB`);
    throw error;
  }
}

function dataKey(partition: number, key: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(PARTITION_BYTES + key.length);
  bytes.writeUInt16BE(partition, 0);
  key.copy(bytes, PARTITION_BYTES);
  return bytes;
}

function bounds(partition: number, range: KeyRange): object {
  const start = range.after === undefined ? range.from : later(range.after, range.from);
  return {
    start: dataKey(partition, start ?? Buffer.alloc(0)),
    end: range.before === undefined ? partitionEnd(partition) : dataKey(partition, range.before),
    limit: range.limit,
    exclusiveStart: range.after !== undefined && start === range.after,
  };
}

/** The stricter lower bound; the exclusive one when both are the same key. */
function later(after: Buffer, from: Buffer | undefined): Buffer {
  return from !== undefined && Buffer.compare(from, after) > 0 ? from : after;
}

function partitionEnd(partition: number): Buffer | undefined {
  const bytes = Buffer.alloc(PARTITION_BYTES + 1);
  if (partition === 0xffff) return undefined;
  bytes.writeUInt16BE(partition + 1, 0);
  return bytes.subarray(0, PARTITION_BYTES);
}

function copyOf(bytes: Uint8Array): Buffer {
  // The shared buffer of getBinaryFast overrides `length` with the value's; typed array methods do not look at it.
  const copy = Buffer.allocUnsafe(bytes.length);
  copy.set(bytes.subarray(0, bytes.length));
  return copy;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

async function causeOf(error: unknown): Promise<unknown> {
  const commitError = (error as { commitError?: Promise<unknown> }).commitError;
  if (commitError === undefined) return error;
  try {
    await commitError;
    return error;
  } catch (cause) {
    return cause;
  }
}

/** What LMDB tells of a tree of pages. */
interface TreeStatistics {
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

interface DatabaseStatistics extends TreeStatistics {
  readonly entryCount: number;
  readonly pageSize: number;
  readonly lastPageNumber: number;
  /** The tree of databases, and that of free pages. */
  readonly root: TreeStatistics;
  readonly free: TreeStatistics;
}

/** Pages before the first tree. */
const HEAD_PAGES = 2;

function readStatistics(data: BinaryDatabase, meta: BinaryDatabase): StateStatistics {
  const ofData = data.getStats() as DatabaseStatistics;
  const ofMeta = meta.getStats() as DatabaseStatistics;
  const { entryCount, pageSize, lastPageNumber, root, free } = ofData;
  const livePages = [ofData, ofMeta, root, free].reduce((sum, tree) => sum + pagesOf(tree), HEAD_PAGES);
  return { records: entryCount, bytes: (lastPageNumber + 1) * pageSize, liveBytes: livePages * pageSize };
}

function pagesOf(tree: TreeStatistics): number {
  return tree.treeBranchPageCount + tree.treeLeafPageCount + tree.overflowPages;
}
