import { readFileSync } from 'node:fs';
import { Agent, request as httpsRequest } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import { pki } from './certificates.ts';
import { ports } from './layout.ts';

export class ApiError extends Error {
  readonly status: number;

  constructor(method: string, path: string, status: number, body: string) {
    super(`${method} ${path}: ${status} ${body.slice(0, 500)}`);
    this.name = 'ApiError';
    this.status = status;
  }
}

/** Talks to the cluster's API server as one of its identities, over kept connections and without a kubectl process. */
export class ApiClient {
  readonly #agent: Agent;

  constructor(identity: string) {
    this.#agent = new Agent({
      keepAlive: true,
      ca: readFileSync(pki.ca),
      cert: readFileSync(pki.certificate(identity)),
      key: readFileSync(pki.key(identity)),
    });
  }

  /**
   * @returns the body as text.
   * @throws ApiError for a status of 400 and above.
   */
  async request(method: string, path: string, body?: unknown): Promise<string> {
    return new Promise((resolve, reject) => {
      const request = this.#open(method, path);
      request.setTimeout(10_000, () =>
        request.destroy(new Error(`${method} ${path}: no answer within 10 s`)),
      );
      request.on('error', reject);
      request.on('response', (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        response.on('error', reject).on('end', () => {
          const status = response.statusCode ?? 0;
          if (status < 400) resolve(text);
          else reject(new ApiError(method, path, status, text));
        });
      });
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  async list<T>(path: string): Promise<T[]> {
    return (JSON.parse(await this.request('GET', path)) as { items: T[] }).items;
  }

  /** Calls `changed` for whatever happens to the objects under `path`, for ever: a watch that ends is begun anew. */
  async watch(path: string, changed: () => void): Promise<never> {
    for (;;) {
      await new Promise<void>((resolve) => {
        const request = this.#open('GET', `${path}?watch=1&timeoutSeconds=240`);
        request.setTimeout(300_000, () => request.destroy());
        request.on('response', (response) => {
          response.on('data', changed);
          response.on('error', () => undefined);
        });
        request.on('error', () => undefined).on('close', resolve);
        request.end();
      });
      await delay(500);
      changed();
    }
  }

  #open(method: string, path: string): ReturnType<typeof httpsRequest> {
    return httpsRequest({
      method,
      path,
      host: '127.0.0.1',
      port: ports['kube-apiserver'],
      agent: this.#agent,
      headers: { accept: 'application/json', 'content-type': 'application/json' },
    });
  }
}
