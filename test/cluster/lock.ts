import { connect, createServer, type Server } from 'node:net';

/**
 * The one lock of the test ground. It is a socket in Linux's abstract namespace: the kernel frees it when its holder
 * ends in whatever way, so that a killed run never blocks the next one. It is scoped to the network namespace, as
 * are the ports and rules that it guards.
 */
const clusterLock = 'kvcluster-kube';
const retryMs = 500;

export interface ClusterLock {
  release(): Promise<void>;
}

export interface LockOptions {
  /** What this process does, shown to whoever waits. */
  purpose: string;
  /** @default 900000 */
  waitMs?: number;
  /** Another lock than the cluster's. @default 'kvcluster-kube' */
  name?: string;
  /** Told once, when somebody else has the lock. */
  log: (line: string) => void;
}

/**
 * Takes the lock, waiting for its holder.
 *
 * @throws Error naming the holder after `waitMs`.
 */
export async function takeLock(options: LockOptions): Promise<ClusterLock> {
  const { purpose, waitMs = 900_000, name = clusterLock, log } = options;
  const address = `\0${name}`;
  const deadline = Date.now() + waitMs;
  for (let told = false; ; told = true) {
    const server = await tryListen(address, `${purpose} (process ${process.pid})`);
    if (server !== undefined) {
      // Held without keeping the process alive: a run that forgets to release it still ends.
      server.unref();
      return { release: () => closed(server) };
    }
    const holder = await holderOfLock(address);
    if (Date.now() > deadline) throw new Error(`the test cluster is in use by ${holder}`);
    if (!told) log(`the test cluster is in use by ${holder}; waiting`);
    await new Promise((resolve) => setTimeout(resolve, retryMs));
  }
}

async function tryListen(address: string, who: string): Promise<Server | undefined> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end(who);
  });
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(undefined);
      else reject(error);
    });
    server.listen({ path: address }, () => {
      resolve(server);
    });
  });
}

async function holderOfLock(address: string): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect({ path: address });
    socket.setEncoding('utf8').setTimeout(2_000, () => socket.destroy());
    socket.on('data', (chunk: string) => (text += chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      resolve(text === '' ? 'another process' : text);
    });
  });
}

async function closed(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    server.close(() => {
      resolve();
    });
  });
}
