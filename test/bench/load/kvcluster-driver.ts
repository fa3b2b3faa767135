import { KvClient } from '../../../client/kv-client.ts';
import type { Driver } from './driver.ts';

const TIMEOUT_MS = 30_000;

/** Our client library, through its public operations only. */
export async function openKvClusterDriver(endpoints: readonly string[]): Promise<Driver> {
  const client = await KvClient.connect({ endpoints, timeoutMs: TIMEOUT_MS });
  // What callers get who ask for nothing: one replica answers, with all that this client has written or read.
  const usual = {};
  const strong = { consistency: 'QUORUM' } as const;
  return {
    put: (key, value) => client.put(key, value),
    get: (key, isStrong) => client.get(key, isStrong ? strong : usual),
    list: async (prefix) => {
      let count = 0;
      for await (const key of client.listKeys({ prefix, consistency: 'ONE' }))
        count += key.length > 0 ? 1 : 0;
      return count;
    },
    close: () => client.close(),
  };
}
