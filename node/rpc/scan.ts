import type { ScanEntry, ScanRequest, ScanResponse } from '../../proto/gen/kvstore.ts';
import { consistencyOf } from '../replication/consistency.ts';
import type { KeyValueEngine, ScannedRecord } from '../replication/engine.ts';
import type { CallContext } from './handlers.ts';
import { checkKeyLength } from './kv-requests.ts';

/** Bytes of entries in one message; one larger entry makes a message of its own. */
const MESSAGE_BYTES = 256 * 1024;

/** Live records in key order until the end, the limit or the caller's deadline; read on as the caller takes them. */
export async function* scan(
  engine: Pick<KeyValueEngine, 'scan'>,
  request: ScanRequest,
  { streamEndMs, signal }: Pick<CallContext, 'streamEndMs' | 'signal'>,
): AsyncGenerator<ScanResponse, void, undefined> {
  const { prefix, start, end, startAfter, limit } = request;
  const consistency = consistencyOf(request.consistency);
  checkKeyLength('prefix', prefix);
  checkKeyLength('start', start);
  checkKeyLength('end', end);
  checkKeyLength('start_after', startAfter);
  const pages = engine.scan({
    consistency,
    deadlineMs: streamEndMs,
    signal,
    prefix,
    from: unlessEmpty(start),
    before: unlessEmpty(end),
    startAfter: unlessEmpty(startAfter),
    limit: limit === 0 ? Infinity : limit,
  });
  for await (const page of pages) yield* messagesOf(page);
}

function* messagesOf(page: readonly ScannedRecord[]): Generator<ScanResponse> {
  let entries: ScanEntry[] = [];
  let bytes = 0;
  for (const { key, value, version, remainingTtlMs } of page) {
    const size = key.length + value.length;
    if (entries.length > 0 && bytes + size > MESSAGE_BYTES) {
      yield { entries };
      entries = [];
      bytes = 0;
    }
    entries.push({ key, value, version, remainingTtlMs });
    bytes += size;
  }
  if (entries.length > 0) yield { entries };
}

function unlessEmpty(bytes: Buffer): Buffer | undefined {
  return bytes.length === 0 ? undefined : bytes;
}
