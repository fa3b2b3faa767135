import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { StoreCorrupt, StoreUnsupported } from './store-errors.ts';

/**
 * Looks at LMDB's file before LMDB does: lmdb 3.5.6 ends the process with a segmentation fault when it is given a file
 * that is not sound at its beginning, and with a bus error when it reads beyond the end of one that was cut short.
 * Both would come again at every start, and no corruption would ever be noticed and set aside.
 *
 * The file begins with two pages that describe the database in turns, little-endian:
 *
 *     page number u64 | transaction u64 | pad u16 | flags u16 = 8 | bounds u32      page header, 24 B
 *     magic u32 | version u32 | address u64 | map size u64 | page size u32 | ...    24..
 *     last page u64                                                                144..
 *
 * A last page beyond the end of the file is no proof of damage, for LMDB does not write pages that it allocated and freed
 * within one transaction. The file is extended instead: pages of zeros are an error where LMDB needs them, not a fault.
 *
 * @throws StoreCorrupt when the beginning is not sound; StoreUnsupported for another version of the file format.
 */
export async function prepareLmdbFile(directory: string): Promise<void> {
  const file = await open(join(directory, 'data.mdb'), 'r+').catch(ignoreMissing);
  if (file === undefined) return;
  try {
    const { size } = await file.stat();
    if (size === 0) return;
    const first = await readDescription(file, 0);
    const second = await readDescription(file, first.pageBytes);
    if (second.pageBytes !== first.pageBytes) throw notSound();
    const wanted = (Math.max(first.lastPage, second.lastPage) + 1) * first.pageBytes;
    if (wanted > size) await file.truncate(wanted);
  } finally {
    await file.close();
  }
}

const DESCRIPTION_BYTES = 152;
const META_PAGE_FLAG = 8;
const MAGIC = 0xbeefc0de;
const VERSION = 2;

async function readDescription(
  file: FileHandle,
  position: number,
): Promise<{ pageBytes: number; lastPage: number }> {
  const { buffer, bytesRead } = await file.read(
    Buffer.alloc(DESCRIPTION_BYTES),
    0,
    DESCRIPTION_BYTES,
    position,
  );
  if (bytesRead < DESCRIPTION_BYTES || buffer.readUInt32LE(24) !== MAGIC) throw notSound();
  if ((buffer.readUInt16LE(18) & META_PAGE_FLAG) === 0) throw notSound();
  const version = buffer.readUInt32LE(28);
  if (version !== VERSION) {
    throw new StoreUnsupported(
      `the state is in version ${version} of LMDB's format, this program knows ${VERSION}`,
    );
  }
  const pageBytes = buffer.readUInt32LE(48);
  const lastPage = Number(buffer.readBigUInt64LE(144));
  if (pageBytes < 512 || pageBytes > 65_536 || (pageBytes & (pageBytes - 1)) !== 0) throw notSound();
  if (!Number.isSafeInteger(lastPage * pageBytes)) throw notSound();
  return { pageBytes, lastPage };
}

function notSound(): StoreCorrupt {
  return new StoreCorrupt('the state is damaged: its file does not begin as one of LMDB');
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}
