import { compareVersions } from '../../model/version.ts';
import { type RecordHead, readRecordHead } from './record-head.ts';

/** A record of one replica, at its place in the order of all streams. */
export interface PlacedRecord {
  readonly partition: number;
  readonly key: Buffer;
  /** Encoded and checksummed as stored. */
  readonly record: Buffer;
}

/** The order of streams and backups: by partition, then by key. */
export function comparePlaces(a: Omit<PlacedRecord, 'record'>, b: Omit<PlacedRecord, 'record'>): number {
  return a.partition - b.partition || Buffer.compare(a.key, b.key);
}

interface Source {
  readonly records: AsyncIterator<PlacedRecord>;
  head: PlacedRecord;
}

/**
 * Merges replicas' streams, each in (partition, key) order, into one: of each key the newest version, of an equal
 * version with different content the larger checksum, as replicas resolve it (PROTOCOL 2). Holds one record per
 * stream.
 *
 * A stream that ends counts as complete; one that throws ends the merge.
 */
export async function* mergeReplicas(
  streams: readonly AsyncIterable<PlacedRecord>[],
): AsyncGenerator<PlacedRecord, void, undefined> {
  const iterators = streams.map((stream) => stream[Symbol.asyncIterator]());
  try {
    const firsts = await Promise.all(iterators.map((records) => records.next()));
    let sources = iterators.flatMap((records, index): Source[] => {
      const first = firsts[index];
      return first === undefined || first.done === true ? [] : [{ records, head: first.value }];
    });
    while (sources.length > 0) {
      const least = leastOf(sources);
      const holders = sources.filter(({ head }) => comparePlaces(head, least) === 0);
      yield newestOf(holders.map(({ head }) => head));
      const ended = await advance(holders);
      if (ended.size > 0) sources = sources.filter((source) => !ended.has(source));
    }
  } finally {
    // The consumer may have stopped, or one stream failed: the others are told.
    await Promise.allSettled(iterators.map(async (records) => records.return?.()));
  }
}

function leastOf(sources: readonly Source[]): PlacedRecord {
  return sources
    .map(({ head }) => head)
    .reduce((least, head) => (comparePlaces(head, least) < 0 ? head : least));
}

function newestOf(copies: readonly PlacedRecord[]): PlacedRecord {
  return copies
    .map((copy) => ({ copy, head: readRecordHead(copy.key, copy.record) }))
    .reduce((winner, next) => (compareHeads(next.head, winner.head) > 0 ? next : winner)).copy;
}

function compareHeads(a: RecordHead, b: RecordHead): number {
  return compareVersions(a.version, b.version) || a.checksum - b.checksum;
}

/** Moves sources on; returns those that have ended. */
async function advance(sources: readonly Source[]): Promise<ReadonlySet<Source>> {
  const ended = new Set<Source>();
  const next = await Promise.all(sources.map(({ records }) => records.next()));
  sources.forEach((source, index) => {
    const result = next[index];
    if (result === undefined || result.done === true) ended.add(source);
    else source.head = result.value;
  });
  return ended;
}
