import { KvError } from '../../common/errors.ts';
import type { ListKeysRequest, ListKeysResponse } from '../../proto/gen/kvstore.ts';
import type { KeyValueEngine } from '../replication/engine.ts';
import type { CallContext } from './handlers.ts';
import { consistencyOf } from '../replication/consistency.ts';
import { checkKeyLength, checkPageSize, MAX_PAGE_SIZE } from './kv-requests.ts';
import { decodePageToken, encodePageToken } from './page-token.ts';

/** Most bytes of keys in one answer: below the 4 MiB that clients of gRPC accept, framing included. */
const MAX_ANSWER_BYTES = 3 * 1024 * 1024;
/** What one key costs beside its bytes: tag and length. */
const KEY_FRAMING_BYTES = 3;

/** A page of keys, or, with page size 0, all of them; never a silent cut. */
export async function listKeys(
  engine: KeyValueEngine,
  request: ListKeysRequest,
  { deadlineMs, signal }: Pick<CallContext, 'deadlineMs' | 'signal'>,
): Promise<ListKeysResponse> {
  const { prefix, pageSize } = request;
  const consistency = consistencyOf(request.consistency);
  checkKeyLength('prefix', prefix);
  checkKeyLength('start_after', request.startAfter);
  checkPageSize(pageSize);
  let startAfter = startOf(request);
  const keys: Buffer[] = [];
  let bytesLeft = MAX_ANSWER_BYTES;
  for (;;) {
    const limit = pageSize === 0 ? MAX_PAGE_SIZE : pageSize - keys.length;
    const options = { consistency, deadlineMs, prefix, startAfter, limit, maxBytes: bytesLeft };
    const page = await engine.listKeys(options);
    signal.throwIfAborted();
    keys.push(...page.keys);
    bytesLeft -= page.keys.reduce((sum, key) => sum + key.length + KEY_FRAMING_BYTES, 0);
    const last = page.keys.at(-1);
    if (!page.more || last === undefined) return { keys, nextPageToken: Buffer.alloc(0) };
    if (pageSize > 0) return { keys, nextPageToken: encodePageToken(prefix, last) };
    if (bytesLeft <= 0) throw tooMuch();
    startAfter = last;
  }
}

function startOf({ prefix, startAfter, pageToken }: ListKeysRequest): Buffer | undefined {
  const resumed = pageToken.length === 0 ? undefined : decodePageToken(prefix, pageToken);
  const given = startAfter.length === 0 ? undefined : startAfter;
  if (resumed === undefined || given === undefined) return resumed ?? given;
  return Buffer.compare(resumed, given) > 0 ? resumed : given;
}

function tooMuch(): KvError {
  return new KvError(
    'RESOURCE_EXHAUSTED',
    `there are more keys than fit in one answer: ask for pages with page_size (1 to ${MAX_PAGE_SIZE}) and pass next_page_token on, or narrow the prefix`,
    { retryable: false },
  );
}
