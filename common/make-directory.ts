import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { KvError, messageOf } from './errors.ts';

/**
 * Makes a directory with its parents; those that were missing come back, the outermost first.
 *
 * Not `mkdir` with `recursive`: that never returns where a file system answers ENOENT below a directory that exists, as
 * /proc does.
 *
 * @param mode of the directories made. @default 0o777, less the process's umask
 * @throws KvError FAILED_PRECONDITION naming the directory.
 */
export async function makeDirectory(path: string, mode?: number): Promise<readonly string[]> {
  try {
    return await makeMissing(path, mode);
  } catch (error) {
    throw new KvError('FAILED_PRECONDITION', `cannot make the directory ${path}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

async function makeMissing(path: string, mode: number | undefined): Promise<readonly string[]> {
  try {
    await mkdir(path, { mode });
    return [path];
  } catch (error) {
    if (hasCode(error, 'EEXIST') && (await stat(path)).isDirectory()) return [];
    if (!hasCode(error, 'ENOENT') || dirname(path) === path) throw error;
    const parents = await makeMissing(dirname(path), mode);
    if (parents.length === 0) throw error;
    await mkdir(path, { mode });
    return [...parents, path];
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
