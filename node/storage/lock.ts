import { open, stat, unlink, type FileHandle } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { DirectoryInUse } from './store-errors.ts';

const LOCK_NAME = 'lock';

/** A lock that is held; `release` is idempotent. */
export interface DirectoryLock {
  release(): Promise<void>;
}

/**
 * Locks a data directory against a second process of this host, until `release` or the end of the process, kill -9
 * included. Node has no file locks, but a listening Unix socket is a lock that the kernel takes back:
 *
 * - on Linux an abstract socket named by device and inode of the directory, so that it counts under any path; the
 *   kernel decides who comes first, and nothing stays behind. It counts within one network namespace, so not between
 *   two pods with one volume;
 * - the socket `lock` in the directory itself, which counts between namespaces. One that nobody answers is what a
 *   killed process left, and is replaced. Two that start in the same instant in different namespaces could both come
 *   through; the boot counter fences that (PROTOCOL 28).
 *
 * A volume that cannot hold sockets is used with the first lock only, and a warning.
 *
 * @throws DirectoryInUse when another process has it.
 */
export async function lockDirectory(directory: string, logger: Logger): Promise<DirectoryLock> {
  const held: Server[] = [];
  let handle: FileHandle | undefined;
  const release = async (): Promise<void> => {
    for (const server of held.splice(0).reverse()) await closed(server);
    await handle?.close();
    handle = undefined;
  };
  try {
    if (process.platform === 'linux') held.push(await listen(await abstractName(directory)));
    handle = await open(directory);
    const path = socketPath(directory, handle.fd);
    if (await answers(path)) throw new DirectoryInUse(directory);
    await unlink(path).catch(() => undefined);
    try {
      held.push(await listen(path));
    } catch (error) {
      if (isInUse(error)) throw error;
      logger.warn(
        { error: messageOf(error) },
        'the data volume cannot hold sockets: a second process in another container would not be noticed',
      );
    }
    return { release };
  } catch (error) {
    await release();
    throw isInUse(error) ? new DirectoryInUse(directory) : error;
  }
}

async function abstractName(directory: string): Promise<string> {
  const { dev, ino } = await stat(directory, { bigint: true });
  return `\0kvcluster-data-${dev}-${ino}`;
}

/** Socket paths have at most about 100 bytes; through /proc any directory has a short one. */
function socketPath(directory: string, fd: number): string {
  return process.platform === 'linux' ? `/proc/self/fd/${fd}/${LOCK_NAME}` : join(directory, LOCK_NAME);
}

function listen(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.end();
    });
    server.once('error', reject);
    server.listen({ path, exclusive: true }, () => {
      // The lock must not keep a process alive that has nothing else to do.
      server.unref();
      resolve(server);
    });
  });
}

/** Whether a process listens on the socket. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      resolve(false);
    });
  });
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => {
      resolve();
    });
  });
}

function isInUse(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EADDRINUSE';
}
