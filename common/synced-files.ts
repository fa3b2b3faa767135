import { open } from 'node:fs/promises';

export interface WriteSyncedOptions {
  /** @default 'w', which replaces what is there; 'wx' refuses to */
  readonly flags?: 'w' | 'wx';
  /** Permissions of a new file. @default 0o666, less the process's umask */
  readonly mode?: number;
}

/** Writes a file whole; resolves when its bytes are on disk. Its name is durable once the directory is synced too. */
export async function writeSynced(
  path: string,
  bytes: Buffer | string,
  { flags = 'w', mode }: WriteSyncedOptions = {},
): Promise<void> {
  const file = await open(path, flags, mode);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
