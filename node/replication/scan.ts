import type { Clock } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import type { ClusterPages } from './cluster-pages.ts';
import type { ScanOperation, ScannedRecord } from './engine.ts';
import { liveValue } from './live-value.ts';
import type { MergedPage } from './quorum-listing.ts';

export interface ScansOptions {
  readonly pages: Pick<ClusterPages, 'page'>;
  readonly clock: Clock;
  /** Counts a page against what is in flight on this node. */
  readonly admit: <T>(bytes: number, read: () => Promise<T>) => Promise<T>;
}

/** Bytes of keys and records in a page; one larger record makes a page of its own. */
const PAGE_BYTES = 512 * 1024;
/** Records in the first page, when nothing is known of their size. */
const FIRST_PAGE = 64;
const MOST_PER_PAGE = 2000;
/** A page that takes longer has met a cluster that is not well: the caller had better ask elsewhere. */
const PAGE_MS = 10_000;
/** Scans at the same time on this node: each keeps a page for as long as its caller likes. */
const MOST_SCANS = 100;

/** Streams of records over all partitions in key order (PROTOCOL 21). */
export class Scans {
  private readonly options: ScansOptions;
  private running = 0;

  constructor(options: ScansOptions) {
    this.options = options;
  }

  /** The next page is read when it is asked for, never ahead. */
  async *scan(operation: ScanOperation): AsyncGenerator<readonly ScannedRecord[], void, undefined> {
    if (this.running >= MOST_SCANS) {
      throw new KvError(
        'RESOURCE_EXHAUSTED',
        `${MOST_SCANS} scans are running on this node: retry later, or ask another node`,
        { retryable: true },
      );
    }
    this.running += 1;
    try {
      yield* this.stream(operation);
    } finally {
      this.running -= 1;
    }
  }

  private async *stream(operation: ScanOperation): AsyncGenerator<readonly ScannedRecord[], void, undefined> {
    let left = operation.limit;
    let after = operation.startAfter;
    let limit = FIRST_PAGE;
    while (left > 0) {
      const page = await this.read(operation, after, Math.min(limit, left));
      const records = this.liveOf(page).slice(0, left);
      if (records.length > 0) yield records;
      if (page.through === undefined) return;
      left -= records.length;
      after = page.through;
      limit = nextLimit(page, limit);
    }
  }

  private async read(
    operation: ScanOperation,
    after: Buffer | undefined,
    limit: number,
  ): Promise<MergedPage> {
    const { pages, clock, admit } = this.options;
    const pageEndMs = clock.monotonicMs() + PAGE_MS;
    const deadlineMs = Math.min(operation.deadlineMs, pageEndMs);
    try {
      return await admit(PAGE_BYTES, () =>
        pages.page({ ...operation, after, limit, deadlineMs, maxBytes: PAGE_BYTES, withRecords: true }),
      );
    } catch (error) {
      const slow = error instanceof KvError && error.code === 'DEADLINE_EXCEEDED';
      if (!slow || operation.deadlineMs <= pageEndMs) throw error;
      throw new KvError(
        'UNAVAILABLE',
        `no page came within ${PAGE_MS / 1000} s: go on after the last key, at another node`,
        { cause: error },
      );
    }
  }

  private liveOf({ keys }: MergedPage): ScannedRecord[] {
    const nowMs = this.options.clock.wallMs();
    return keys.flatMap(({ key, record }) => {
      const live = liveValue(record, nowMs);
      return live === undefined ? [] : { key, ...live };
    });
  }
}

/** As many records as make about a page, by the size of the last ones. */
function nextLimit({ keys }: MergedPage, limit: number): number {
  const bytes = keys.reduce((sum, { key, record }) => sum + key.length + (record?.bytes.length ?? 0), 0);
  if (bytes === 0) return Math.min(MOST_PER_PAGE, limit * 2);
  return Math.min(MOST_PER_PAGE, Math.max(1, Math.ceil((PAGE_BYTES / bytes) * keys.length)));
}
