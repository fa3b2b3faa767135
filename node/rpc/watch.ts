import {
  type WatchEvent,
  WatchEvent_Kind,
  type WatchRequest,
  type WatchResponse,
} from '../../proto/gen/kvstore.ts';
import type { KeyValueEngine, WatchedChange } from '../replication/engine.ts';
import type { CallContext } from './handlers.ts';
import { checkKeyLength } from './kv-requests.ts';

const NOTHING = Buffer.alloc(0);

/** Changes under a prefix until the caller ends it; read on as the caller takes them. */
export async function* watch(
  engine: Pick<KeyValueEngine, 'watch'>,
  { prefix, token }: WatchRequest,
  { signal }: Pick<CallContext, 'signal'>,
): AsyncGenerator<WatchResponse, void, undefined> {
  checkKeyLength('prefix', prefix);
  const resumed = token.length === 0 ? undefined : token;
  for await (const batch of engine.watch({ prefix, token: resumed, signal })) {
    yield { events: batch.changes.map(eventOf), token: batch.token };
  }
}

function eventOf({ key, version, live }: WatchedChange): WatchEvent {
  if (live === undefined) return { kind: WatchEvent_Kind.DELETE, key, value: NOTHING, version };
  const { value, remainingTtlMs } = live;
  return { kind: WatchEvent_Kind.PUT, key, value, version, remainingTtlMs };
}
