import { abortReason, sleep } from '../../../common/clock.ts';
import { KvError, messageOf } from '../../../common/errors.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import type { RecordPosition, RecordsChunk } from '../../../proto/gen/peer.ts';
import { decodeRecord } from '../../storage/record.ts';
import type { SentRecord } from '../repairs.ts';
import type { ComparablePeer } from './comparable-peer.ts';
import { admittedRecords, applyReceived, isDataLoss } from './received-records.ts';
import type { Surroundings } from './surroundings.ts';

export interface BulkPullOptions {
  readonly peer: ComparablePeer;
  readonly partitions: readonly number[];
  readonly signal: AbortSignal;
  /** @throws when the pull must not go on; asked after everything that was waited for. */
  readonly check: () => void;
  /** Bytes of records were moved. */
  readonly spend: (bytes: number) => Promise<void>;
}

const RESUME_AFTER_MS = 200;
/** Breaks of the stream in a row without a record in between. */
const MOST_BREAKS = 5;

/**
 * Takes in all records of some partitions as a peer streams them, past the log: for replicas that have next to nothing of
 * them. A stream that breaks is resumed where it was. What is damaged at the peer, or was written there meanwhile, is
 * left to the comparison that follows.
 */
export class BulkPull {
  private readonly surroundings: Surroundings;
  private readonly options: BulkPullOptions;
  private readonly incarnation: number;
  private after: RecordPosition | undefined;
  private batch: SentRecord[] = [];
  private batchBytes = 0;
  private loading: Promise<void> | undefined;
  private breaks = 0;
  private taken = 0;

  constructor(surroundings: Surroundings, options: BulkPullOptions) {
    this.surroundings = surroundings;
    this.options = options;
    this.incarnation = options.peer.incarnation;
  }

  /** Resolves with how many records were newer here, when all are durable. */
  async run(): Promise<number> {
    const { signal, peer } = this.options;
    try {
      while (!(await this.streamed())) {
        this.breaks += 1;
        if (this.breaks > MOST_BREAKS) {
          throw new KvError('UNAVAILABLE', `the record stream of ${peer.nodeId} breaks again and again`);
        }
        await sleep(this.surroundings.scheduler, RESUME_AFTER_MS, signal);
        this.options.check();
      }
      await this.load();
    } finally {
      // Nothing goes on in the background, whatever ended it.
      await this.loading?.catch(() => undefined);
    }
    await this.loading;
    return this.taken;
  }

  /** Takes what one stream brings; whether that was all. */
  private async streamed(): Promise<boolean> {
    const { peer, partitions, signal, check } = this.options;
    const stream = peer.pull(partitions, this.after, signal)[Symbol.asyncIterator]();
    try {
      for (;;) {
        let next: IteratorResult<RecordsChunk, unknown>;
        try {
          next = await stream.next();
        } catch (error) {
          if (signal.aborted) throw abortReason(signal);
          this.surroundings.logger.warn(
            { peer: peer.nodeId, error: messageOf(error) },
            'a record stream broke and is resumed',
          );
          return false;
        }
        check();
        if (next.done === true) return false;
        await this.take(next.value);
        if (next.value.complete) return true;
      }
    } finally {
      await stream.return?.().catch(() => undefined);
    }
  }

  private async take({ incarnation, records, last, horizonMs, complete }: RecordsChunk): Promise<void> {
    const { peer, spend, check } = this.options;
    if (incarnation !== this.incarnation) {
      throw new KvError('ABORTED', `${peer.nodeId} is another incarnation by now`);
    }
    let bytes = 0;
    for (const { key, record } of records) {
      bytes += key.length + record.length;
      const decoded = decodedOrDamaged(key, record);
      if (decoded !== undefined) this.batch.push({ key, record: decoded, horizonMs });
    }
    this.after = last ?? this.after;
    if (records.length > 0) this.breaks = 0;
    this.batchBytes += bytes;
    if (this.batchBytes >= this.surroundings.settings.loadBytes && !complete) await this.load();
    await spend(bytes);
    check();
  }

  /** Begins to load what was collected, after the load before it: the stream goes on meanwhile. */
  private async load(): Promise<void> {
    await this.loading;
    const batch = this.batch;
    this.batch = [];
    this.batchBytes = 0;
    this.loading = this.loadBatch(batch);
    // Whoever awaits it next hears of its failure.
    this.loading.catch(() => undefined);
  }

  private async loadBatch(batch: readonly SentRecord[]): Promise<void> {
    const { store, standing, metrics } = this.surroundings;
    // Into a readable partition everything goes by the log: a watch would never hear of what came past it (PROTOCOL 18).
    const isWatched = ({ key }: SentRecord): boolean =>
      standing.isReadable(partitionOf(key, store.partitions));
    const watched = batch.filter(isWatched);
    const unwatched = batch.filter((record) => !isWatched(record));
    const [applied, loaded] = await Promise.all([
      applyReceived(this.surroundings, watched),
      store.load(admittedRecords(this.surroundings, unwatched)),
    ]);
    metrics.count('pulled_records', applied + loaded);
    this.taken += applied + loaded;
  }
}

/** Records that were damaged at the peer or on the way do not end the stream of all others. */
function decodedOrDamaged(key: Buffer, bytes: Buffer): ReturnType<typeof decodeRecord> | undefined {
  try {
    return decodeRecord(key, bytes);
  } catch (error) {
    if (isDataLoss(error)) return undefined;
    throw error;
  }
}
