import { open } from 'lmdb';
import type { Driver } from './driver.ts';

/** npm lmdb by itself, with the options that node/storage/lmdb-state.ts uses: a put resolves once it is synced. */
export function openLmdbDriver(directory: string): Driver {
  const options = { encoding: 'binary', keyEncoding: 'binary', cache: false } as const;
  const root = open<Buffer, Buffer>({
    ...options,
    path: directory,
    noSubdir: false,
    overlappingSync: false,
    mapSize: 64 * 1024 ** 3,
    safeRestore: true,
  } as Parameters<typeof open<Buffer, Buffer>>[0]);
  const data = root.openDB<Buffer, Buffer>({ ...options, name: 'data' });
  return {
    put: (key, value) => data.put(key, value),
    get: (key) => {
      const value = data.getBinaryFast(key);
      return Promise.resolve(value === undefined ? undefined : { value });
    },
    list: (prefix) => {
      const end = Buffer.from(prefix);
      end[end.length - 1] = (end[end.length - 1] ?? 0) + 1;
      return Promise.resolve([...data.getKeys({ start: Buffer.from(prefix), end })].length);
    },
    close: () => root.close(),
  };
}
