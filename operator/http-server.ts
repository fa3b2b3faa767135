import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Answers of the operator's HTTP port. */
export interface HttpContent {
  /** Prometheus text. */
  readonly metrics: () => Promise<string>;
  /** Undefined when the process is well, otherwise what is wrong. */
  readonly unhealthy: () => string | undefined;
  /** Undefined when it is ready, otherwise what it waits for. */
  readonly notReady: () => string | undefined;
}

export interface HttpServer {
  readonly port: number;
  /** Idempotent. */
  close(): Promise<void>;
}

/**
 * Serves /metrics, /healthz and /readyz on every address.
 *
 * @throws when the port is taken.
 */
export async function serveHttp(port: number, content: HttpContent): Promise<HttpServer> {
  const server = createServer((request, response) => {
    const answer = (status: number, body: string, type = 'text/plain; charset=utf-8'): void => {
      response.writeHead(status, { 'content-type': type }).end(body);
    };
    const path = (request.url ?? '').split('?')[0];
    if (path === '/metrics') {
      content.metrics().then(
        (text) => answer(200, text, 'text/plain; version=0.0.4; charset=utf-8'),
        () => answer(500, 'no metrics\n'),
      );
    } else if (path === '/healthz') answerCheck(content.unhealthy(), answer);
    else if (path === '/readyz') answerCheck(content.notReady(), answer);
    else answer(404, 'not found\n');
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, resolve);
  });
  return { port: (server.address() as AddressInfo).port, close: () => closeServer(server) };
}

function answerCheck(problem: string | undefined, answer: (status: number, body: string) => void): void {
  if (problem === undefined) answer(200, 'ok\n');
  else answer(503, `${problem}\n`);
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
