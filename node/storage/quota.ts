import type { Clock, Scheduler, Timer } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import type { Disk, DiskSpace } from './disk.ts';
import type { StoreLimits } from './limits.ts';
import type { Reserve } from './reserve.ts';
import { headroomBytes } from './volume.ts';

/** What a store occupies. */
export interface StoreSizes {
  /** Of the state's file. */
  readonly stateBytes: number;
  /** Of its pages that are in use, and of what will need some soon; the file never shrinks, and other pages are used again. */
  readonly liveBytes: number;
  readonly logBytes: number;
}

export interface QuotaOptions {
  readonly disk: Disk;
  readonly reserve: Reserve;
  readonly limits: Pick<StoreLimits, 'quotaBytes' | 'logBytes'>;
  readonly sizes: () => StoreSizes;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly onFailure: (error: unknown) => void;
}

/** How often the volume is looked at, at most and while the quota is exceeded. */
const PERIOD_MS = 1000;
/** Making the reserve is none of the first things that a start needs. */
const RESERVE_AFTER_MS = 5000;

/**
 * How much the store may hold: what it was told, and never more than leaves room on the volume for the log at its cap and
 * for a headroom. Whoever writes asks `exceeded`, which stays true until there is clearly room again; the store itself
 * refuses nothing.
 */
export class Quota {
  exceeded = false;
  private readonly options: QuotaOptions;
  /** What the state may have in use, as of the last look at the volume. */
  private roomForState = Infinity;
  private readonly reserveTimer: Timer;
  private nextLook: Timer | undefined;
  private looking = false;
  private lookedAtMs = -Infinity;
  private stopped = false;
  private mayReserve = false;

  constructor(options: QuotaOptions) {
    this.options = options;
    this.reserveTimer = options.scheduler.after(RESERVE_AFTER_MS, () => {
      this.mayReserve = true;
      this.look();
    });
  }

  get usedBytes(): number {
    const { liveBytes, logBytes } = this.options.sizes();
    return liveBytes + logBytes;
  }

  /** `Infinity` before the first look at the volume. */
  get quotaBytes(): number {
    return Math.max(0, Math.min(this.toldBytes, this.roomForState + this.options.sizes().logBytes));
  }

  /** Something was written: looks at the volume unless that was done a moment ago and what was found then is not used up. */
  wake(): void {
    const isOver = this.isOver(0);
    if (isOver) this.setExceeded(true);
    if (isOver || this.options.clock.monotonicMs() - this.lookedAtMs >= PERIOD_MS) this.look();
  }

  stop(): void {
    this.stopped = true;
    this.reserveTimer.cancel();
    this.nextLook?.cancel();
  }

  private get toldBytes(): number {
    const { quotaBytes } = this.options.limits;
    return quotaBytes === 0 ? Infinity : quotaBytes;
  }

  private isOver(marginBytes: number): boolean {
    const { liveBytes, logBytes } = this.options.sizes();
    return liveBytes > this.roomForState - marginBytes || liveBytes + logBytes > this.toldBytes - marginBytes;
  }

  private look(): void {
    if (this.stopped || this.looking) return;
    this.looking = true;
    this.lookedAtMs = this.options.clock.monotonicMs();
    this.options.disk
      .space()
      .then((space) => this.judge(space))
      .catch((error: unknown) => {
        if (!this.stopped) this.options.onFailure(error);
      })
      .finally(() => {
        this.looking = false;
      });
  }

  private async judge(space: DiskSpace): Promise<void> {
    if (this.stopped) return;
    const { limits, sizes, reserve, scheduler } = this.options;
    const { stateBytes, logBytes } = sizes();
    const headroom = headroomBytes(space);
    const spareBytes = space.freeBytes - Math.max(0, limits.logBytes - logBytes) - headroom;
    // The state's file grows by what can be spared, and what it has is used again.
    this.roomForState = stateBytes + spareBytes;
    // With a margin, or the answer would change with every transaction.
    const marginBytes = this.exceeded ? Math.min(headroom / 4, this.quotaBytes / 20) : 0;
    this.setExceeded(this.isOver(marginBytes));
    if (this.exceeded) {
      this.nextLook?.cancel();
      this.nextLook = scheduler.after(PERIOD_MS, () => this.look());
    } else if (this.mayReserve) {
      await reserve.restore(space, spareBytes);
    }
  }

  private setExceeded(exceeded: boolean): void {
    if (exceeded === this.exceeded) return;
    this.exceeded = exceeded;
    const { logger } = this.options;
    const values = { usedBytes: this.usedBytes, quotaBytes: this.quotaBytes };
    if (exceeded) logger.error(values, 'the quota is exceeded: puts are refused until there is room again');
    else logger.info(values, 'there is room below the quota again');
  }
}
