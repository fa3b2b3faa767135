import { KvError } from '../common/errors.ts';

/** Port of the client API where an endpoint names none. */
export const DEFAULT_CLIENT_PORT = 50051;

/**
 * Reads endpoints such as `kv.default.svc:50051` or `127.0.0.1:50051,127.0.0.1:50052`; IPv6 addresses with a port stand
 * in brackets.
 *
 * @throws KvError INVALID_ARGUMENT naming what is wrong.
 */
export function parseEndpoints(text: string | readonly string[]): readonly string[] {
  const entries = (typeof text === 'string' ? text.split(',') : text).map((entry) => entry.trim());
  const endpoints = entries.filter((entry) => entry !== '').map(withPort);
  if (endpoints.length === 0)
    throw new KvError('INVALID_ARGUMENT', 'name at least one endpoint, as host:port');
  return [...new Set(endpoints)];
}

function withPort(endpoint: string): string {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^\s:/[\]]+)(?::(\d{1,5}))?$/.exec(endpoint);
  const port = Number(match?.[2] ?? DEFAULT_CLIENT_PORT);
  if (match === null || port < 1 || port > 65535) {
    throw new KvError('INVALID_ARGUMENT', `endpoint "${endpoint}" is not host:port`);
  }
  return `${match[1] ?? ''}:${port}`;
}
