import { constants } from 'node:fs';
import { mkdir, open, readdir, rename, stat, statfs, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory } from '../../common/synced-files.ts';
import type { Disk, DiskFile, DiskSpace, FileRange } from './disk.ts';

/** Most buffers given to one system call (IOV_MAX on Linux). */
const MAX_VECTOR = 1024;

/**
 * Each write returns when it is on disk, as a write and an fdatasync after it, in one trip to a thread instead of two: a
 * group of the log is one write. 0 where the system has no such flag.
 */
const SYNCED = (constants as Partial<typeof constants>).O_DSYNC ?? 0;

/** A directory of the file system. */
export class FileDisk implements Disk {
  private readonly directory: string;

  private readonly volumeStores: number;

  private constructor(directory: string, volumeStores: number) {
    this.directory = directory;
    this.volumeStores = volumeStores;
  }

  /**
   * Makes the directory when it is missing.
   *
   * @param volumeStores stores that share the volume: none may count on room that another one fills.
   */
  static async open(directory: string, volumeStores = 1): Promise<FileDisk> {
    await mkdir(directory, { recursive: true });
    await syncDirectory(join(directory, '..'));
    return new FileDisk(directory, volumeStores);
  }

  async list(): Promise<readonly string[]> {
    const entries = await readdir(this.directory, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile())
      .map((entry) => entry.name)
      .sort();
  }

  async create(name: string): Promise<DiskFile> {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | SYNCED;
    return new AppendFile(await open(this.path(name), flags, 0o600), 0);
  }

  async open(name: string): Promise<DiskFile> {
    const handle = await open(this.path(name), constants.O_WRONLY | SYNCED);
    try {
      return new AppendFile(handle, (await handle.stat()).size);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async read(name: string, range?: FileRange): Promise<Buffer> {
    const handle = await open(this.path(name), constants.O_RDONLY);
    try {
      const offset = range?.offset ?? 0;
      const rest = Math.max(0, (await handle.stat()).size - offset);
      const target = Buffer.allocUnsafeSlow(Math.min(rest, range?.length ?? rest));
      let filled = 0;
      while (filled < target.length) {
        const { bytesRead } = await handle.read(target, filled, target.length - filled, offset + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return target.subarray(0, filled);
    } finally {
      await handle.close();
    }
  }

  async size(name: string): Promise<number> {
    return (await stat(this.path(name))).size;
  }

  async rename(from: string, to: string): Promise<void> {
    await rename(this.path(from), this.path(to));
  }

  async remove(name: string): Promise<void> {
    await unlink(this.path(name));
  }

  async syncDir(): Promise<void> {
    await syncDirectory(this.directory);
  }

  async space(): Promise<DiskSpace> {
    const { bavail, blocks, bsize } = await statfs(this.directory);
    const part = bsize / this.volumeStores;
    return { freeBytes: Math.floor(bavail * part), totalBytes: Math.floor(blocks * part) };
  }

  private path(name: string): string {
    return join(this.directory, name);
  }
}

class AppendFile implements DiskFile {
  private readonly handle: FileHandle;
  private position: number;
  private truncated = false;
  private failure: unknown;
  private closing: Promise<void> | undefined;

  constructor(handle: FileHandle, position: number) {
    this.handle = handle;
    this.position = position;
  }

  append(buffers: readonly Buffer[]): Promise<void> {
    return this.failStop(() => this.write(buffers));
  }

  sync(): Promise<void> {
    return SYNCED === 0 ? this.failStop(() => this.handle.datasync()) : this.failStop(() => this.rest());
  }

  /** What was written is on disk already; what else was changed is not. */
  private async rest(): Promise<void> {
    if (!this.truncated) return;
    await this.handle.datasync();
    this.truncated = false;
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.failStop(async () => {
      this.truncated = true;
      await this.handle.truncate(sizeBytes);
      this.position = sizeBytes;
    });
  }

  close(): Promise<void> {
    this.closing ??= this.handle.close();
    return this.closing;
  }

  private async write(buffers: readonly Buffer[]): Promise<void> {
    for (let first = 0; first < buffers.length; first += MAX_VECTOR) {
      let rest = buffers.slice(first, first + MAX_VECTOR);
      while (rest.length > 0) {
        const { bytesWritten } = await this.handle.writev(rest, this.position);
        this.position += bytesWritten;
        rest = withoutFirst(rest, bytesWritten);
      }
    }
  }

  private async failStop(action: () => Promise<void>): Promise<void> {
    if (this.failure !== undefined) {
      throw new Error('file is unusable after an earlier write error', { cause: this.failure });
    }
    try {
      await action();
    } catch (error) {
      this.failure = error;
      throw error;
    }
  }
}

/** What is left of `buffers` after a write took only some of their bytes, as it does on a disk that is getting full. */
function withoutFirst(buffers: readonly Buffer[], bytes: number): Buffer[] {
  let skip = bytes;
  let index = 0;
  for (; index < buffers.length; index += 1) {
    const length = buffers[index]?.length ?? 0;
    if (skip < length) break;
    skip -= length;
  }
  const rest = buffers.slice(index);
  if (skip > 0 && rest[0] !== undefined) rest[0] = rest[0].subarray(skip);
  return rest;
}
