import { open, rm, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory } from '../../common/synced-files.ts';
import { checkLmdbPages, FREE_TREE_FLAGS, type LmdbRoots } from './lmdb-check.ts';
import { StoreCorrupt, StoreUnsupported } from './store-errors.ts';

/** Is there while LMDB has the file open, and after an end that was not clean. */
const IN_USE = 'in-use';
/** A file of at most this size is checked at every start, which takes a second or two. */
const ALWAYS_CHECKED_BYTES = 1024 * 1024 * 1024;

/**
 * Looks at LMDB's file before LMDB does: lmdb 3.5.6 ends the process with a segmentation fault when it is given a file
 * that is not sound at its beginning or whose pages are damaged (lmdb-check.ts), and with a bus error when it reads beyond
 * the end of one that was cut short. All would come again at every start, and no corruption would ever be noticed and set
 * aside. Of a large file the pages are checked only when the last end was not a clean one: LMDB may have been what ended
 * the process.
 *
 * The file begins with two pages that describe the database in turns, little-endian:
 *
 *     page number u64 | transaction u64 | pad u16 | flags u16 = 8 | bounds u32      page header, 24 B
 *     magic u32 | version u32 | address u64 | map size u64                          24..
 *     free pages, a tree 48 B (lmdb-page.ts); its pad is the page size              48..
 *     everything else, a tree 48 B                                                  96..
 *     last page u64 | transaction u64 | boot u64                                   144..
 *
 * A last page beyond the end of the file is no proof of damage, for LMDB does not write pages that it allocated and freed
 * within one transaction. The file is extended instead: pages of zeros are an error where LMDB needs them, not a fault.
 *
 * @throws StoreCorrupt when the beginning is not sound; StoreUnsupported for another version of the file format.
 */
export async function prepareLmdbFile(
  directory: string,
  alwaysCheckedBytes = ALWAYS_CHECKED_BYTES,
): Promise<void> {
  const file = await open(join(directory, 'data.mdb'), 'r+').catch(ignoreMissing);
  if (file === undefined) return;
  try {
    const { size } = await file.stat();
    if (size === 0) return;
    const first = await readDescription(file, 0);
    const second = await readDescription(file, first.pageBytes);
    // Damage is in one of them.
    if (second.pageBytes !== first.pageBytes || second.version !== first.version) throw notSound();
    if (first.version !== VERSION) {
      throw new StoreUnsupported(
        `the state is in version ${first.version} of LMDB's format, this program knows ${VERSION}`,
      );
    }
    const wanted = (Math.max(first.lastPage, second.lastPage) + 1) * first.pageBytes;
    // The one that LMDB goes by.
    const [newest, other] = second.transaction > first.transaction ? [second, first] : [first, second];
    if (size <= alwaysCheckedBytes || (await isMarked(directory))) await checkLmdbPages(file, newest, other);
    if (wanted > size) await file.truncate(wanted);
  } finally {
    await file.close();
  }
}

/** LMDB is about to open the file. */
export async function markInUse(directory: string): Promise<void> {
  await (await open(join(directory, IN_USE), 'w')).close();
  await syncDirectory(directory);
}

/** LMDB has closed the file. */
export async function markClosed(directory: string): Promise<void> {
  await rm(join(directory, IN_USE), { force: true });
}

async function isMarked(directory: string): Promise<boolean> {
  return (await stat(join(directory, IN_USE)).catch(ignoreMissing)) !== undefined;
}

const DESCRIPTION_BYTES = 160;
const META_PAGE_FLAG = 8;
const MAGIC = 0xbeefc0de;
const VERSION = 2;
/** The address space that LMDB is given (lmdb-state.ts). */
export const MAX_FILE_BYTES = 2 ** 40;

async function readDescription(
  file: FileHandle,
  position: number,
): Promise<LmdbRoots & { readonly version: number }> {
  const { buffer, bytesRead } = await file.read(
    Buffer.alloc(DESCRIPTION_BYTES),
    0,
    DESCRIPTION_BYTES,
    position,
  );
  if (bytesRead < DESCRIPTION_BYTES || buffer.readUInt32LE(24) !== MAGIC) throw notSound();
  if (buffer.readUInt16LE(18) !== META_PAGE_FLAG) throw notSound();
  const version = buffer.readUInt32LE(28);
  const free = buffer.subarray(48, 96);
  // Also of the one that does not count: LMDB ends the process for some of them.
  if (version === VERSION && free.readUInt16LE(4) !== FREE_TREE_FLAGS) throw notSound();
  const pageBytes = free.readUInt32LE(0);
  const lastPage = Number(buffer.readBigUInt64LE(144));
  const transaction = Number(buffer.readBigUInt64LE(152));
  if (pageBytes < 512 || pageBytes > 65_536 || (pageBytes & (pageBytes - 1)) !== 0) throw notSound();
  if (lastPage * pageBytes > MAX_FILE_BYTES || !Number.isSafeInteger(transaction)) throw notSound();
  return { version, pageBytes, lastPage, transaction, free, main: buffer.subarray(96, 144) };
}

function notSound(): StoreCorrupt {
  return new StoreCorrupt('the state is damaged: its file does not begin as one of LMDB');
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}
