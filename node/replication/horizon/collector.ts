import type { Clock, Scheduler } from '../../../common/clock.ts';
import { messageOf } from '../../../common/errors.ts';
import type { Logger } from '../../../common/log.ts';
import type { ClusterMap } from '../../../model/cluster-map.ts';
import { partitionsHeldBy } from '../../../model/replica-sets.ts';
import type { Store, StoredRecord } from '../../storage/store.ts';
import type { CollectionMetrics } from './metrics.ts';
import type { SafetyRules } from '../safety-rules.ts';
import type { Horizons } from './horizons.ts';
import type { Label } from './label.ts';
import { Purger } from './purger.ts';
import {
  type CollectionVerdict,
  type Freeze,
  FREEZE_KINDS,
  type FreezeKind,
  judgeCollection,
  type MemberView,
} from './verdict.ts';

/** Times and bounds of collection. */
export interface CollectionSettings {
  /** How old a tombstone is at least when it is collected, milliseconds. */
  readonly ageMs: number;
  /** Horizons are multiples of this, milliseconds. */
  readonly stepMs: number;
  /** From when on it is said that somebody keeps the horizons back, milliseconds. */
  readonly slowMs: number;
  /** Records looked at in a second. */
  readonly recordsPerSecond: number;
  /** How long a partition in which nothing is known to be due is left alone, milliseconds. */
  readonly lookAgainMs: number;
}

export const DEFAULT_COLLECTION_SETTINGS: CollectionSettings = {
  ageMs: 60_000,
  stepMs: 30_000,
  slowMs: 120_000,
  recordsPerSecond: 20_000,
  lookAgainMs: 600_000,
};

/** Those of tombstones of another age; of a short one, horizons take shorter steps. */
export function collectionSettings(ageMs: number): CollectionSettings {
  const stepMs = Math.max(1, Math.min(DEFAULT_COLLECTION_SETTINGS.stepMs, Math.floor(ageMs / 2)));
  return { ...DEFAULT_COLLECTION_SETTINGS, ageMs, stepMs };
}

export interface CollectorOptions {
  readonly nodeId: string;
  readonly store: Pick<Store, 'partitions' | 'removeWhere'>;
  readonly horizons: Horizons;
  readonly map: () => ClusterMap | undefined;
  /** This node's own label. */
  readonly label: (map: ClusterMap) => Label;
  /** What a member last said, this node included. */
  readonly member: (nodeId: string) => MemberView;
  readonly isReadable: (partition: number) => boolean;
  /** The wall clock of the member that is ahead of all, milliseconds since 1970. */
  readonly latestWallMs: () => number;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly settings: CollectionSettings;
  readonly rules: SafetyRules;
  readonly metrics: CollectionMetrics;
  readonly logger: Logger;
}

const NO_PARTITIONS: readonly number[] = [];

/**
 * Collects tombstones and expired records: raises the horizons of the partitions held here as far as all members allow,
 * and removes what they cover. Says why, where it cannot (PROTOCOL 22, 23, 26).
 */
export class Collector {
  private readonly options: CollectorOptions;
  private readonly purger: Purger;
  private readonly lowWater: Float64Array;
  private reason = '';
  private raising = false;
  private stopped = false;

  constructor(options: CollectorOptions) {
    this.options = options;
    const { horizons, settings, store } = options;
    this.lowWater = new Float64Array(store.partitions);
    this.purger = new Purger({
      ...options,
      ...settings,
      horizonMs: (partition) => horizons.effectiveMs(partition),
    });
  }

  /** To be called at every heartbeat. */
  beat(): void {
    const map = this.options.map();
    if (map === undefined || this.stopped) return;
    const { options } = this;
    const held = partitionsHeldBy(map, options.nodeId);
    const verdict = judgeCollection({
      ...options,
      ...options.settings,
      map,
      label: options.label(map),
      wallMs: options.clock.wallMs(),
      latestWallMs: options.latestWallMs(),
    });
    const freezes = held.map((partition) => verdict.freezeOf(partition));
    for (const [index, partition] of held.entries()) {
      if (freezes[index] !== undefined) continue;
      this.lowWater[partition] = Math.max(this.lowWater[partition] ?? 0, verdict.lowWaterMs);
    }
    this.raiseTo(
      verdict,
      held.filter((_partition, index) => freezes[index] === undefined),
    );
    this.explain(freezes, verdict.slow);
    this.measure(freezes);
    this.purger.wake(held);
  }

  /**
   * Every version of the partition with a lower wall clock is held by all its replicas, whoever wrote it, and none will be
   * minted below, milliseconds; 0: not known. What its horizon would be without its age; once said it holds for ever.
   */
  lowWaterMs(partition: number): number {
    return this.lowWater[partition] ?? 0;
  }

  /** Lowest horizon that counts for a partition held here, milliseconds since 1970; 0: none. */
  get lowestMs(): number {
    const { horizons } = this.options;
    const lowest = this.held.reduce(
      (low, partition) => Math.min(low, horizons.effectiveMs(partition)),
      Infinity,
    );
    return lowest === Infinity ? 0 : lowest;
  }

  /** Why nothing, or not everything, is collected, for a person; empty when everything is. */
  get frozenReason(): string {
    return this.reason;
  }

  /** A record was applied here, on whatever path. */
  note(partition: number, record: StoredRecord): void {
    this.purger.note(partition, record);
  }

  /**
   * Another replica has a larger horizon: takes it over and removes what it covers, so that both compare what is left
   * (PROTOCOL 22). Resolves when that is durable. Of a partition that is not readable here: it has taken everything from
   * replicas at that horizon, and becomes readable next.
   *
   * Nothing happens while this node cannot know that a readable partition still holds what it held when that horizon
   * was reached.
   */
  async raise(partition: number, horizonMs: number): Promise<void> {
    const { horizons, isReadable, map, label, logger } = this.options;
    if (!isReadable(partition)) {
      this.purger.forget(partition);
      await horizons.raise([[partition, horizonMs]]);
      return;
    }
    const current = map();
    // Everybody who could know that this volume was rolled back has spoken to this process by then.
    if (current === undefined || label(current).kind !== 'known') return;
    if (horizonMs <= horizons.storedMs(partition)) return;
    logger.debug({ partition, horizonMs }, 'a larger horizon is taken over from another replica');
    await horizons.raise([[partition, horizonMs]]);
    await this.purger.purge(partition);
  }

  stop(): void {
    this.stopped = true;
    this.purger.stop();
  }

  private get held(): readonly number[] {
    const map = this.options.map();
    return map === undefined ? NO_PARTITIONS : partitionsHeldBy(map, this.options.nodeId);
  }

  private raiseTo({ targetMs }: CollectionVerdict, partitions: readonly number[]): void {
    const { horizons, isReadable, logger } = this.options;
    const behind = partitions.filter(
      (partition) => targetMs > horizons.storedMs(partition) && isReadable(partition),
    );
    if (behind.length === 0 || this.raising) return;
    this.raising = true;
    horizons
      .raise(behind.map((partition) => [partition, targetMs]))
      .then(
        () => this.purger.wake(this.held),
        (error: unknown) => logger.error({ error: messageOf(error) }, 'horizons could not be written'),
      )
      .finally(() => {
        this.raising = false;
      });
  }

  /** The reason that concerns most partitions stands for all. */
  private explain(freezes: readonly (Freeze | undefined)[], slow: Freeze | undefined): void {
    const groups = Map.groupBy(
      freezes.filter((freeze) => freeze !== undefined),
      ({ kind, member }) => `${kind} ${member ?? ''}`,
    );
    const largest = [...groups.values()].reduce(
      (best, group) => (group.length > best.length ? group : best),
      [],
    );
    const freeze = largest[0] ?? slow;
    if (freeze === undefined) {
      this.reason = '';
      return;
    }
    const { backlog } = this.purger;
    const which =
      largest.length === 0 || largest.length === freezes.length
        ? ''
        : `${largest.length} of ${freezes.length} partitions: `;
    const waiting = backlog === 0 ? '' : ` (${backlog} tombstones and expiring records wait)`;
    this.reason = `${which}${freeze.why}${waiting}`;
  }

  private measure(freezes: readonly (Freeze | undefined)[]): void {
    const { metrics, clock } = this.options;
    const counts = new Map<FreezeKind, number>();
    for (const freeze of freezes) {
      if (freeze !== undefined) counts.set(freeze.kind, (counts.get(freeze.kind) ?? 0) + 1);
    }
    for (const kind of FREEZE_KINDS) metrics.gauge(`collection_frozen_${kind}`, counts.get(kind) ?? 0);
    const { lowestMs } = this;
    if (lowestMs > 0) metrics.gauge('horizon_age_ms', Math.max(0, clock.wallMs() - lowestMs));
    metrics.gauge('collectable_records', this.purger.backlog);
  }
}
