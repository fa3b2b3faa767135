import type { AddressInfo, Server, Socket } from 'node:net';
import { createServer } from 'node:net';
import { KvError } from '../../common/errors.ts';
import { hostPort } from '../rpc/host-port.ts';
import { servingWorkers, type SeenWorker } from './readiness.ts';

/** Who takes clients. */
export interface ClientTaker extends SeenWorker {
  /** The connection is the taker's from then on. */
  hand(connection: Socket): void;
}

/**
 * The pod's port for clients that do not route by key: each connection is accepted here and handed, as a file descriptor,
 * to the next worker in turn. What flows on it never passes through this process.
 */
export class ClientPort {
  private readonly server: Server;
  private turn = 0;

  constructor(workers: readonly ClientTaker[]) {
    // Nothing may be read here: it would be missing there.
    this.server = createServer({ pauseOnConnect: true, noDelay: true }, (connection) => {
      connection.on('error', () => connection.destroy());
      const serving = servingWorkers(workers);
      const worker = serving[this.turn % serving.length];
      this.turn += 1;
      if (worker === undefined) connection.destroy();
      else worker.hand(connection);
    });
  }

  /**
   * Listens; the result is the port that was bound.
   *
   * @throws KvError FAILED_PRECONDITION naming the address when it cannot be had.
   */
  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.server.once('error', (error: NodeJS.ErrnoException) => {
        const words = error.code === 'EADDRINUSE' ? 'the port is in use by another process' : error.message;
        reject(new KvError('FAILED_PRECONDITION', `cannot listen on ${hostPort(host, port)}: ${words}`));
      });
      this.server.listen(port, host, () => resolve((this.server.address() as AddressInfo).port));
    });
  }

  /** Accepts no connection any more; those that were handed on stay. Idempotent. */
  close(): void {
    this.server.close();
  }
}
