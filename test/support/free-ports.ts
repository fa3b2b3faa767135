import { createServer } from 'node:net';
import { systemRandom } from '../../common/random.ts';

/** Below the ports that the system gives to outgoing connections: one of those could take a node's while it is down. */
const FIRST = 15_000;
const COUNT = 17_000;
const ATTEMPTS = 100;

/** Ports of 127.0.0.1 that nobody listens on, for processes that are to come back on the same ones. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const found = new Set<number>();
  for (let attempt = 0; found.size < count; attempt += 1) {
    if (attempt === ATTEMPTS + count) throw new Error(`found only ${found.size} of ${count} free ports`);
    const port = FIRST + Math.floor(systemRandom.fraction() * COUNT);
    if (await isFree(port)) found.add(port);
  }
  return [...found];
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
