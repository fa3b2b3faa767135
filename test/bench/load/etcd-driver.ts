import type { Driver } from './driver.ts';
import { serviceOf, UnaryClient } from './unary-client.ts';

interface RangeResponse {
  readonly kvs: readonly { readonly value: Buffer }[];
  readonly count: number;
}

/** etcd's gRPC API from Node: the same language and gRPC library as ours, so that neither side has the faster runtime. */
export function openEtcdDriver(endpoints: readonly string[]): Driver {
  const client = new UnaryClient(endpoints, serviceOf('etcd.proto', 'etcdserverpb.KV'));
  return {
    put: (key, value) => client.call('Put', { key, value }),
    get: async (key, strong) => {
      const { kvs } = await client.call<RangeResponse>('Range', { key, serializable: !strong });
      return kvs[0];
    },
    list: async (prefix) => {
      const key = Buffer.from(prefix);
      const end = Buffer.from(prefix);
      end[end.length - 1] = (end[end.length - 1] ?? 0) + 1;
      const request = { key, range_end: end, keys_only: true, serializable: true };
      return (await client.call<RangeResponse>('Range', request)).kvs.length;
    },
    close: () => client.close(),
  };
}
