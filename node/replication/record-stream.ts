import { abortReason } from '../../common/clock.ts';
import type { PullRecordsRequest, RecordsChunk } from '../../proto/gen/peer.ts';
import type { KeyedRecord, Store } from '../storage/store.ts';

export interface RecordStreamOptions {
  readonly store: Store;
  /** Own entries are synced, and therefore in what is streamed, through this sequence. */
  readonly durableHead: () => number;
  readonly incarnation: () => number;
  /** Whether the asker gets a partition; those it does not get are left out. */
  readonly gives: (partition: number) => boolean;
  /** This node's horizon of a partition (PROTOCOL 24). */
  readonly horizonMs: (partition: number) => number;
  /** Bytes of records in a chunk; one larger record makes a chunk of its own. */
  readonly chunkBytes: number;
  /** Told of damaged records, which are then left out; without it they end the stream. */
  readonly onDamaged?: (key: Buffer) => void;
}

const FIRST_SCAN = 32;
const MOST_PER_SCAN = 2048;

/** Streams this node's synced records in (partition, key) order, each chunk with the place where a new request resumes. */
export async function* streamRecords(
  options: RecordStreamOptions,
  request: Pick<PullRecordsRequest, 'after' | 'partitions'>,
  signal: AbortSignal,
): AsyncGenerator<RecordsChunk, void, undefined> {
  const { store, chunkBytes } = options;
  // Taken before the first record is read: everything up to it is in the state that is scanned.
  const head = options.durableHead();
  const incarnation = options.incarnation();
  yield { head, incarnation, records: [], last: request.after, complete: false, horizonMs: 0 };
  const { after } = request;
  let last = after;
  let perScan = FIRST_SCAN;
  for (const partition of partitionsOf(request, store.partitions)) {
    if (!options.gives(partition)) continue;
    let afterKey = partition === after?.partition ? after.key : undefined;
    for (;;) {
      if (signal.aborted) throw abortReason(signal);
      // Before the records are read: a horizon that rises meanwhile must not vouch for them.
      const horizonMs = options.horizonMs(partition);
      const records = await store.scan(partition, {
        after: afterKey,
        limit: perScan,
        onDamaged: options.onDamaged,
      });
      for (const chunk of chunksOf(records, chunkBytes)) {
        last = { partition, key: chunk.at(-1)?.key ?? Buffer.alloc(0) };
        const wire = chunk.map(({ key, record }) => ({ key, record: record.bytes, horizonMs }));
        yield { head: undefined, incarnation, records: wire, last, complete: false, horizonMs };
      }
      if (records.length < perScan) break;
      afterKey = records.at(-1)?.key;
      perScan = nextScan(records, chunkBytes);
    }
  }
  yield { head: undefined, incarnation, records: [], last, complete: true, horizonMs: 0 };
}

function partitionsOf(
  request: Pick<PullRecordsRequest, 'after' | 'partitions'>,
  count: number,
): readonly number[] {
  const chosen =
    request.partitions.length > 0 ? request.partitions : Array.from({ length: count }, (_, index) => index);
  const first = request.after?.partition ?? 0;
  return [...new Set(chosen)]
    .sort((a, b) => a - b)
    .filter((partition) => partition >= first && partition < count);
}

/** As many records as make about one chunk, by the size of the last ones. */
function nextScan(records: readonly KeyedRecord[], chunkBytes: number): number {
  const average = records.reduce((sum, record) => sum + sizeOf(record), 0) / records.length;
  return Math.min(MOST_PER_SCAN, Math.max(1, Math.floor(chunkBytes / average)));
}

function* chunksOf(records: readonly KeyedRecord[], chunkBytes: number): Generator<readonly KeyedRecord[]> {
  let chunk: KeyedRecord[] = [];
  let bytes = 0;
  for (const record of records) {
    const size = sizeOf(record);
    if (chunk.length > 0 && bytes + size > chunkBytes) {
      yield chunk;
      chunk = [];
      bytes = 0;
    }
    chunk.push(record);
    bytes += size;
  }
  if (chunk.length > 0) yield chunk;
}

function sizeOf({ key, record }: KeyedRecord): number {
  return key.length + record.bytes.length;
}
