import type { KeyValueStoreClient, PutResponse } from '../../proto/gen/kvstore.ts';
import { Metadata, type StatusObject } from '../../node/rpc/grpc.ts';

/** An error of a call as it came over the wire. */
export type WireError = Error & Pick<StatusObject, 'code' | 'details' | 'metadata'>;

type Done<Response> = (error: WireError | null, response: Response) => void;

/** A unary call of a generated client as a promise; rejects with the WireError. */
export function unary<Response>(
  start: (metadata: Metadata, options: { deadline: number }, done: Done<Response>) => unknown,
  timeoutMs = 10_000,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    start(new Metadata(), { deadline: Date.now() + timeoutMs }, (error, response) => {
      if (error === null) resolve(response);
      else reject(error);
    });
  });
}

/** The plainest requests of the public API. */
export class PlainClient implements Disposable {
  readonly stub: KeyValueStoreClient;

  constructor(stub: KeyValueStoreClient) {
    this.stub = stub;
  }

  /** Stores a value. */
  async put(
    key: string,
    value: string | Buffer,
    more: { ttlMs?: number; consistency?: 0 | 1 | 2 | 3 } = {},
  ): Promise<PutResponse> {
    const request = {
      key: Buffer.from(key),
      value: Buffer.from(value),
      ttlMs: more.ttlMs,
      consistency: more.consistency ?? 0,
      requestId: undefined,
      condition: undefined,
    };
    return unary<PutResponse>((metadata, options, done) => this.stub.put(request, metadata, options, done));
  }

  /** The value as text, undefined when there is none. */
  async get(key: string, consistency: 0 | 1 | 2 | 3 = 0): Promise<string | undefined> {
    const request = { key: Buffer.from(key), consistency, minVersion: undefined };
    const { found, value } = await unary<{ found: boolean; value: Buffer }>((metadata, options, done) =>
      this.stub.get(request, metadata, options, done),
    );
    return found ? value.toString() : undefined;
  }

  async delete(key: string): Promise<boolean> {
    const request = {
      key: Buffer.from(key),
      consistency: 0 as const,
      requestId: undefined,
      condition: undefined,
    };
    const { existed } = await unary<{ existed: boolean }>((metadata, options, done) =>
      this.stub.delete(request, metadata, options, done),
    );
    return existed;
  }

  async list(more: { prefix?: string; startAfter?: string; pageSize?: number; pageToken?: Buffer } = {}) {
    const request = {
      prefix: Buffer.from(more.prefix ?? ''),
      startAfter: Buffer.from(more.startAfter ?? ''),
      pageSize: more.pageSize ?? 0,
      pageToken: more.pageToken ?? Buffer.alloc(0),
      consistency: 0 as const,
    };
    const { keys, nextPageToken } = await unary<{ keys: Buffer[]; nextPageToken: Buffer }>(
      (metadata, options, done) => this.stub.listKeys(request, metadata, options, done),
    );
    return { keys: keys.map(String), nextPageToken };
  }

  [Symbol.dispose](): void {
    this.stub.close();
  }
}
