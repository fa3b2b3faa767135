import type { Clock, Scheduler, Timer } from '../../../common/clock.ts';
import { messageOf } from '../../../common/errors.ts';
import type { Logger } from '../../../common/log.ts';
import type { Store, StoredRecord } from '../../storage/store.ts';
import type { CollectionMetrics } from './metrics.ts';
import { collectableFromMs, isCollectable } from './rules.ts';

export interface PurgerOptions {
  readonly store: Pick<Store, 'partitions' | 'removeWhere'>;
  /** The horizon that counts for a partition here. */
  readonly horizonMs: (partition: number) => number;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly metrics: CollectionMetrics;
  readonly logger: Logger;
  /** How many records are looked at in a second, at most, on average. */
  readonly recordsPerSecond: number;
  /** After how long a partition is looked at although nothing in it is known to be due, milliseconds. */
  readonly lookAgainMs: number;
}

/** What is known of the records of one partition that can be collected some day. */
interface Candidates {
  /** The lowest horizon that collects one of them; 0: not known. */
  dueMs: number;
  count: number;
  lookedAtMs: number;
  /** Whether records were noted since the last pass: it passes over those that are not synced yet. */
  noted: boolean;
}

/**
 * Removes what horizons collect: in the background, a partition at a time, at a bounded rate. What it removes depends
 * on the partition's records and horizon only, not on when it comes by.
 */
export class Purger {
  private readonly options: PurgerOptions;
  private readonly candidates: Candidates[];
  private readonly passes = new Map<number, Promise<void>>();
  private held: readonly number[] = [];
  private last = -1;
  private running = false;
  private pause: Timer | undefined;
  private stopped = false;

  constructor(options: PurgerOptions) {
    this.options = options;
    this.candidates = Array.from({ length: options.store.partitions }, () => ({
      dueMs: 0,
      count: 0,
      lookedAtMs: -Infinity,
      noted: false,
    }));
  }

  /** A record was applied: its partition is looked at again when it can be collected. */
  note(partition: number, record: StoredRecord): void {
    const candidates = this.candidates[partition];
    if (candidates === undefined || collectableFromMs(record) === Infinity) return;
    this.keep(candidates, record);
    candidates.noted = true;
  }

  /** The partition may hold anything by now. */
  forget(partition: number): void {
    const candidates = this.candidates[partition];
    if (candidates !== undefined) candidates.dueMs = 0;
  }

  /** Tombstones and records with an expiry in the partitions held here, as far as it is known. */
  get backlog(): number {
    return this.held.reduce((sum, partition) => sum + (this.candidates[partition]?.count ?? 0), 0);
  }

  /** Horizons, or what is held, may have changed. */
  wake(held: readonly number[]): void {
    this.held = held;
    if (this.running || this.stopped) return;
    const partition = this.nextDue();
    if (partition === undefined) return;
    this.running = true;
    void this.run(partition);
  }

  /** Removes at once what the partition's horizon collects; resolves when that is done. */
  purge(partition: number): Promise<void> {
    // A pass under way may have begun at a lower horizon.
    const pass = (this.passes.get(partition) ?? Promise.resolve())
      .catch(() => undefined)
      .then(async () => {
        await this.pass(partition);
      });
    this.passes.set(partition, pass);
    const forget = (): void => {
      if (this.passes.get(partition) === pass) this.passes.delete(partition);
    };
    pass.then(forget, forget);
    return pass;
  }

  stop(): void {
    this.stopped = true;
    this.pause?.cancel();
  }

  private nextDue(): number | undefined {
    const { clock, horizonMs, lookAgainMs } = this.options;
    const now = clock.monotonicMs();
    const { held, last } = this;
    const isDue = (partition: number): boolean => {
      const candidates = this.candidates[partition];
      const horizon = horizonMs(partition);
      if (candidates === undefined || horizon === 0) return false;
      return candidates.dueMs <= horizon || now - candidates.lookedAtMs >= lookAgainMs;
    };
    // In turn, so that a busy partition does not keep the others waiting.
    return held.find((partition) => partition > last && isDue(partition)) ?? held.find(isDue);
  }

  private async run(partition: number): Promise<void> {
    const { scheduler, recordsPerSecond, logger } = this.options;
    let looked = recordsPerSecond;
    try {
      this.last = partition;
      looked = await this.passInTurn(partition);
    } catch (error) {
      logger.warn(
        { partition, error: messageOf(error) },
        'collecting in a partition failed; it is tried again',
      );
    }
    if (this.stopped) return;
    this.pause = scheduler.after((1000 * looked) / recordsPerSecond, () => {
      this.running = false;
      this.wake(this.held);
    });
  }

  private async passInTurn(partition: number): Promise<number> {
    await this.passes.get(partition)?.catch(() => undefined);
    return this.pass(partition);
  }

  /** Looks at every record; returns how many there were. */
  private async pass(partition: number): Promise<number> {
    const { horizonMs, store, clock, metrics } = this.options;
    const candidates = this.candidates[partition];
    const horizon = horizonMs(partition);
    if (candidates === undefined || horizon === 0 || this.stopped) return 0;
    // Whatever is applied meanwhile is noted on top. What was noted shortly before and is not synced yet is found by the
    // pass at the next horizon.
    const dueMs = candidates.noted ? Math.max(candidates.dueMs, horizon + 1) : Infinity;
    const { count } = candidates;
    Object.assign(candidates, { dueMs, count: 0, lookedAtMs: clock.monotonicMs(), noted: false });
    let looked = 0;
    try {
      const removed = await store.removeWhere(partition, (_key, record) => {
        looked += 1;
        if (record === undefined) return false;
        if (isCollectable(record, horizon)) return true;
        this.keep(candidates, record);
        return false;
      });
      if (removed > 0) metrics.count('collected_records', removed);
    } catch (error) {
      Object.assign(candidates, { dueMs: 0, count });
      throw error;
    }
    return looked;
  }

  private keep(candidates: Candidates, record: StoredRecord): void {
    const dueMs = collectableFromMs(record);
    if (dueMs === Infinity) return;
    candidates.count += 1;
    candidates.dueMs = Math.min(candidates.dueMs, dueMs);
  }
}
