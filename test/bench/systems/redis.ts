import { existsSync, mkdirSync } from 'node:fs';
import { createConnection } from 'node:net';
import { valuesOf } from '../load/run-work.ts';
import { freePorts } from '../../support/free-ports.ts';
import { ServerProcess } from './server-process.ts';

const SERVER = '/usr/bin/redis-server';

/** Whether Debian's package is there. */
export const redisInstalled = (): boolean => existsSync(SERVER);

/** One Redis server whose append-only file is synced before a write is acknowledged. */
export class Redis implements AsyncDisposable {
  readonly port: number;
  private readonly process: ServerProcess;

  private constructor(port: number, directory: string) {
    this.port = port;
    mkdirSync(directory, { recursive: true });
    const flags = { bind: '127.0.0.1', port, dir: directory, appendonly: 'yes', appendfsync: 'always' };
    // Snapshots beside the append-only file would only cost time.
    const parameters = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
    this.process = new ServerProcess('redis', [SERVER, ...parameters, '--save', '']);
  }

  static async start(directory: string): Promise<Redis> {
    const [port = 0] = await freePorts(1);
    const redis = new Redis(port, directory);
    await redis.process.until(() => answers(port));
    return redis;
  }

  get pids(): readonly number[] {
    return [this.process.pid];
  }

  /** Sets every key that its own tool may ask for. */
  fill(keys: number, valueBytes: number): Promise<void> {
    const [value = Buffer.alloc(0)] = valuesOf(valueBytes);
    return new Promise((resolve, reject) => {
      const socket = createConnection({ host: '127.0.0.1', port: this.port });
      let answers = 0;
      socket.once('error', reject);
      // Each is answered by the five bytes of +OK.
      socket.on('data', ({ length }) => {
        answers += length / 5;
        if (answers >= keys) socket.end(resolve);
      });
      for (let index = 0; index < keys; index += 1) {
        const key = `key:${String(index).padStart(12, '0')}`;
        socket.write(`*3\r\n$3\r\nSET\r\n$${key.length}\r\n${key}\r\n$${valueBytes}\r\n`);
        socket.write(value);
        socket.write('\r\n');
      }
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.process.end('SIGKILL');
  }
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port });
    socket.once('error', () => resolve(false));
    socket.once('data', (data) => {
      socket.destroy();
      resolve(data.toString().startsWith('+PONG'));
    });
    socket.once('connect', () => socket.write('PING\r\n'));
  });
}
