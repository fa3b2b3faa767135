import { Backoff } from '../../../common/backoff.ts';
import type { Timer } from '../../../common/clock.ts';
import { messageOf } from '../../../common/errors.ts';
import type { Random } from '../../../common/random.ts';
import type { Claims } from './claims.ts';
import type { Settlement } from './settlement.ts';
import type { Surroundings } from './surroundings.ts';

export interface ActivationOptions extends Pick<
  Surroundings,
  'horizons' | 'standing' | 'scheduler' | 'settings' | 'logger'
> {
  readonly random: Random;
  /** Partitions that are being compared. */
  readonly claims: Claims;
}

/** Makes partitions readable that have been filled, one batch at a time. */
export class Activation {
  private readonly options: ActivationOptions;
  private readonly settlement: Settlement;
  private readonly onMarked: () => void;
  private readonly backoff: Backoff;
  private marking: Promise<void> | undefined;
  private retry: Timer | undefined;
  private stopped = false;

  /** `onMarked`: partitions are readable by now. */
  constructor(options: ActivationOptions, settlement: Settlement, onMarked: () => void) {
    this.options = options;
    this.settlement = settlement;
    this.onMarked = onMarked;
    this.backoff = new Backoff(options.settings.retry, options.random);
  }

  /** Looks whether partitions have been filled. */
  wake(): void {
    if (this.stopped || this.marking !== undefined) return;
    const all = this.settlement.filled();
    // Not while a further source fills it: what that brings past the log must be here before anybody watches the log.
    const claimed = this.options.claims.take(
      all.map(({ partition }) => partition),
      Infinity,
    );
    const filled = all.filter(({ partition }) => claimed.includes(partition));
    if (filled.length === 0) return;
    this.marking = this.mark(filled)
      .finally(() => this.options.claims.release(claimed))
      .then(
        () => this.marked(),
        (error: unknown) => this.failed(error),
      );
  }

  /** Resolves when nothing goes on any more. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.retry?.cancel();
    await this.marking;
  }

  private async mark(filled: ReturnType<Settlement['filled']>): Promise<void> {
    const { horizons, standing, logger } = this.options;
    // Before the mark: what its sources had purged must not be taken from anybody else afterwards.
    await horizons.inherit(filled.map(({ partition, horizonMs }) => [partition, horizonMs] as const));
    // Not what has lost its standing meanwhile, or has got a further source.
    const still = new Set(this.settlement.filled().map(({ partition }) => partition));
    const ready = filled.flatMap(({ partition }) => (still.has(partition) ? partition : []));
    if (ready.length === 0 || this.stopped) return;
    await standing.markReadable(ready);
    logger.info({ partitions: ready.length }, 'partitions are filled and readable');
  }

  private marked(): void {
    this.marking = undefined;
    this.backoff.reset();
    this.onMarked();
  }

  /** Tries again, but not at once: whatever failed may fail again. */
  private failed(error: unknown): void {
    const { logger, scheduler } = this.options;
    logger.error({ error: messageOf(error) }, 'filled partitions could not be marked');
    if (this.stopped) return;
    this.retry = scheduler.after(this.backoff.nextMs(), () => {
      this.marking = undefined;
      this.wake();
    });
  }
}
