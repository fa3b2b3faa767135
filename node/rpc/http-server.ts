import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Clock, Scheduler, Timer } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import { hostPort } from './host-port.ts';

export interface HttpServerOptions {
  /** Prometheus text and its content type. */
  readonly metrics: { readonly contentType: string; readonly metrics: () => Promise<string> };
  /** Why the process should be restarted; undefined when it is alive. */
  readonly unhealthyReason: () => string | undefined;
  /** Why clients should be sent elsewhere; undefined when ready. */
  readonly notReadyReason: () => string | undefined;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
}

/**
 * An import statement would read every export of the module, and with it load Node's WebSocket client: 14 MB of memory
 * and a tenth of the time a node takes to start, for nothing.
 */
const { createServer } = process.getBuiltinModule('node:http');

/** The event loop must have turned within this time for /healthz, milliseconds. */
const MAX_STALL_MS = 10_000;
const BEAT_MS = 1000;
/** Nobody who scrapes or probes takes longer to ask, milliseconds. */
const REQUEST_TIMEOUT_MS = 10_000;

/** /metrics, /healthz and /readyz; the answers to the probes say why not. */
export class HttpServer {
  private readonly options: HttpServerOptions;
  private readonly server: Server;
  private beat: Timer | undefined;
  private lastTurnMs: number;

  constructor(options: HttpServerOptions) {
    this.options = options;
    this.lastTurnMs = options.clock.monotonicMs();
    this.server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
      this.answer(request, response).catch((error: unknown) => {
        send(response, 500, messageOf(error));
      });
    });
  }

  /**
   * Listens; the result is the port that was bound.
   *
   * @throws KvError FAILED_PRECONDITION naming the address when it cannot be had.
   */
  listen(host: string, port: number): Promise<number> {
    this.keepBeating();
    return new Promise((resolve, reject) => {
      this.server.once('error', (error: NodeJS.ErrnoException) => {
        const words = error.code === 'EADDRINUSE' ? 'the port is in use by another process' : error.message;
        reject(new KvError('FAILED_PRECONDITION', `cannot listen on ${hostPort(host, port)}: ${words}`));
      });
      this.server.listen(port, host, () => resolve((this.server.address() as AddressInfo).port));
    });
  }

  /** Stops listening and cuts what is open. Idempotent. */
  async close(): Promise<void> {
    this.beat?.cancel();
    this.beat = undefined;
    if (!this.server.listening) return;
    await new Promise<void>((resolve) => {
      this.server.close(() => resolve());
      this.server.closeAllConnections();
    });
  }

  private keepBeating(): void {
    this.lastTurnMs = this.options.clock.monotonicMs();
    this.beat = this.options.scheduler.after(BEAT_MS, () => this.keepBeating());
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      send(response, 405, 'only GET and HEAD');
      return;
    }
    const path = (request.url ?? '').split('?')[0] ?? '';
    switch (path) {
      case '/metrics': {
        const { contentType, metrics } = this.options.metrics;
        send(response, 200, await metrics(), contentType);
        return;
      }
      case '/healthz':
        probe(response, this.stallReason() ?? this.options.unhealthyReason());
        return;
      case '/readyz':
        probe(response, this.options.notReadyReason());
        return;
      default:
        send(response, 404, 'try /metrics, /healthz or /readyz');
    }
  }

  private stallReason(): string | undefined {
    const stalledMs = this.options.clock.monotonicMs() - this.lastTurnMs;
    return stalledMs > MAX_STALL_MS
      ? `the event loop has not turned for ${Math.round(stalledMs)} ms`
      : undefined;
  }
}

function probe(response: ServerResponse, problem: string | undefined): void {
  send(response, problem === undefined ? 200 : 503, problem ?? 'ok');
}

function send(
  response: ServerResponse,
  status: number,
  body: string,
  contentType = 'text/plain; charset=utf-8',
): void {
  if (response.headersSent) return;
  response.writeHead(status, { 'content-type': contentType });
  response.end(body.endsWith('\n') ? body : `${body}\n`);
}
