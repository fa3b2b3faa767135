import type { Timer } from '../../../common/clock.ts';
import { messageOf } from '../../../common/errors.ts';
import { byteString } from '../../../common/bytes.ts';
import type { Random } from '../../../common/random.ts';
import type { ComparablePeer } from './comparable-peer.ts';
import { Healer } from './healer.ts';
import { heldPartitions, type Surroundings } from './surroundings.ts';

export interface ScrubOptions extends Omit<Surroundings, 'onDamaged'> {
  readonly peers: () => readonly ComparablePeer[];
  readonly random: Random;
  /** More records are damaged than a store may have that is trusted (PROTOCOL 35). */
  readonly onTooManyDamaged: (count: number) => void;
}

/** Records checked in one turn. */
const PAGE_RECORDS = 256;

/**
 * Reads all records again, slowly, to find those that fail their checksum before somebody needs them, and replaces them
 * by what the other replicas have (PROTOCOL 35). Others report what they come across.
 */
export class Scrub {
  private readonly options: ScrubOptions;
  private readonly healer: Healer;
  /** Damaged keys by byteString(key). */
  private readonly damaged = new Map<string, Buffer>();
  private place: { readonly partition: number; readonly after: Buffer | undefined } | undefined;
  /** Partitions yet to be read in this pass. */
  private ahead: number[] = [];
  private passes = 0;
  private scrubTimer: Timer | undefined;
  private healTimer: Timer | undefined;
  private readonly ongoing = new Set<Promise<void>>();
  private readonly stopping = new AbortController();
  private alarmed = false;
  private started = false;

  constructor(options: ScrubOptions) {
    this.options = options;
    this.healer = new Healer(options);
  }

  start(): void {
    this.started = true;
    this.planScrub(0);
    this.planHealing(this.options.settings.healMs);
  }

  /** Resolves when nothing goes on any more. */
  async stop(): Promise<void> {
    this.started = false;
    this.scrubTimer?.cancel();
    this.healTimer?.cancel();
    this.stopping.abort(new Error('this node stops'));
    await Promise.all(this.ongoing);
  }

  /** A record that somebody read fails its checksum: it is asked for soon. */
  report(key: Buffer): void {
    const keyString = byteString(key);
    const { metrics, settings, onTooManyDamaged } = this.options;
    if (this.damaged.has(keyString) || this.alarmed) return;
    this.damaged.set(keyString, Buffer.from(key));
    metrics.count('damaged_records');
    metrics.gauge('damaged_keys', this.damaged.size);
    if (this.damaged.size > settings.maxDamaged) {
      this.alarmed = true;
      onTooManyDamaged(this.damaged.size);
      return;
    }
    if (this.damaged.size === 1 && this.started) this.planHealing(0);
  }

  /** Records that are damaged and not yet replaced. */
  get damagedKeys(): number {
    return this.damaged.size;
  }

  /** How often all records have been read. */
  get completedPasses(): number {
    return this.passes;
  }

  private planScrub(delayMs: number): void {
    if (!this.started) return;
    this.scrubTimer?.cancel();
    this.scrubTimer = this.options.scheduler.after(delayMs, () => this.track(this.scrubPage()));
  }

  private async scrubPage(): Promise<void> {
    const { store, settings, metrics, logger } = this.options;
    let delayMs = settings.scrubPauseMs;
    try {
      const place = this.place ?? this.nextPartition();
      if (place !== undefined) {
        const page = await store.scrub(place.partition, place.after, PAGE_RECORDS);
        for (const key of page.damaged) this.report(key);
        metrics.count('scrubbed_records', page.records);
        this.place = page.last === undefined ? undefined : { partition: place.partition, after: page.last };
        delayMs = (page.records / settings.scrubRecordsPerSecond) * 1000;
      }
      if (this.place === undefined && this.ahead.length === 0) {
        this.passes += place === undefined ? 0 : 1;
        delayMs = settings.scrubPauseMs;
      }
    } catch (error) {
      // A store that has failed ends the node; whatever else it was, the next round tries again.
      logger.warn({ error: messageOf(error) }, 'checking stored records failed');
    }
    this.planScrub(delayMs);
  }

  /** Each pass begins somewhere else, so that restarts do not keep the same records from being read. */
  private nextPartition(): { readonly partition: number; readonly after: undefined } | undefined {
    if (this.ahead.length === 0) {
      const held = heldPartitions(this.options.cluster);
      const first = Math.floor(this.options.random.fraction() * held.length);
      this.ahead = [...held.slice(first), ...held.slice(0, first)];
    }
    const partition = this.ahead.shift();
    return partition === undefined ? undefined : { partition, after: undefined };
  }

  private planHealing(delayMs: number): void {
    if (!this.started) return;
    this.healTimer?.cancel();
    this.healTimer = this.options.scheduler.after(delayMs, () => this.track(this.heal()));
  }

  private async heal(): Promise<void> {
    const { metrics, logger, settings } = this.options;
    try {
      if (this.damaged.size > 0) {
        const healed = await this.healer.heal([...this.damaged.values()], this.stopping.signal);
        for (const key of healed) this.damaged.delete(byteString(key));
        if (healed.length > 0) {
          metrics.count('healed_records', healed.length);
          logger.warn({ records: healed.length }, 'damaged records were replaced');
        }
        metrics.gauge('damaged_keys', this.damaged.size);
      }
    } catch (error) {
      if (this.started) logger.warn({ error: messageOf(error) }, 'replacing damaged records failed');
    }
    this.planHealing(settings.healMs);
  }

  private track(work: Promise<void>): void {
    this.ongoing.add(work);
    void work.finally(() => this.ongoing.delete(work));
  }
}
