import { messageOf } from '../../common/errors.ts';
import type { Scheduler, Timer } from '../../common/clock.ts';
import type { StoreLimits } from './limits.ts';
import type { Layer, Overlay, OverlayRecord } from './overlay.ts';
import type { IndexedState, StateRecord } from './state.ts';
import type { CeilingValues } from './entry.ts';
import { APPLIED_NAME, encodeApplied, encodeCursor, sealMeta, userName } from './state-meta.ts';

export interface CheckpointerOptions {
  readonly overlay: Overlay;
  readonly state: IndexedState;
  readonly scheduler: Scheduler;
  readonly limits: Pick<StoreLimits, 'checkpointMs' | 'checkpointRecords' | 'commitTimeoutMs'>;
  /** What the state already holds. */
  readonly appliedThrough: number;
  /** Durable ceilings, to be repeated in the state. */
  readonly ceilings: () => CeilingValues;
  /** A layer is in the state and no longer in the overlay. */
  readonly onCheckpoint: () => void;
  /** The state failed. */
  readonly onFailure: (error: unknown) => void;
}

/**
 * Moves synced layers from the overlay into the state, oldest first, one at a time: at the latest `checkpointMs` after
 * the oldest record was synced, earlier when `checkpointRecords` are waiting.
 */
export class Checkpointer {
  /** The state holds everything of the log up to this sequence. */
  appliedThrough: number;
  private readonly options: CheckpointerOptions;
  private timer: Timer | undefined;
  private timeIsUp = false;
  private running = false;
  private stopped = false;
  private flushThrough = 0;
  private readonly waiters: { through: number; resolve: () => void; reject: (error: Error) => void }[] = [];

  constructor(options: CheckpointerOptions) {
    this.options = options;
    this.appliedThrough = options.appliedThrough;
  }

  /** Something was added to the overlay. */
  wake(): void {
    if (this.running || this.stopped) return;
    const { overlay, scheduler, limits } = this.options;
    if (overlay.oldest === undefined) return;
    if (this.isDue()) {
      this.running = true;
      void this.run();
      return;
    }
    this.timer ??= scheduler.after(limits.checkpointMs, () => {
      this.timer = undefined;
      this.timeIsUp = true;
      this.wake();
    });
  }

  /** Resolves when everything synced up to `through` is in the state. */
  flush(through: number): Promise<void> {
    if (through <= this.appliedThrough) return Promise.resolve();
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.waiters.push({ through, resolve: () => resolve(undefined), reject });
    this.flushThrough = Math.max(this.flushThrough, through);
    this.wake();
    return promise;
  }

  /** Rejects what waits; nothing is begun any more. */
  stop(error: Error): void {
    this.stopped = true;
    this.timer?.cancel();
    this.timer = undefined;
    for (const waiter of this.waiters.splice(0)) waiter.reject(error);
  }

  private isDue(): boolean {
    return this.timeIsUp || this.flushThrough > this.appliedThrough || this.options.overlay.hasFullLayer;
  }

  private async run(): Promise<void> {
    const { overlay, onCheckpoint, onFailure } = this.options;
    try {
      for (;;) {
        const layer = overlay.oldest;
        if (layer === undefined || !this.isDue()) break;
        this.timeIsUp = false;
        layer.sealed = true;
        await this.commitLayer(layer);
        if (this.stopped) return;
        overlay.drop(layer);
        this.appliedThrough = layer.through;
        this.settleWaiters();
        onCheckpoint();
      }
      this.running = false;
      this.wake();
    } catch (error) {
      this.running = false;
      onFailure(error);
    }
  }

  /**
   * One transaction holds the layer's metas, cursors and applied sequence together with its last records. Where there are
   * more records than a transaction should have, the others go before it: the state is then ahead of its applied sequence
   * in some keys, and replaying the log from there ends at the same records.
   */
  private async commitLayer(layer: Layer): Promise<void> {
    const records = [...layer.records.values()];
    const size = this.options.limits.checkpointRecords;
    let first = 0;
    for (; records.length - first > size; first += size) {
      await this.commit(records.slice(first, first + size), new Map());
    }
    await this.commit(records.slice(first), this.metaOf(layer));
  }

  private metaOf(layer: Layer): Map<string, Buffer> {
    const meta = new Map<string, Buffer>();
    for (const [name, cursor] of layer.cursors) meta.set(name, encodeCursor(cursor));
    for (const [name, value] of layer.meta) meta.set(userName(name), value);
    meta.set(
      APPLIED_NAME,
      encodeApplied({ sequence: layer.through, head: layer.head, ceilings: this.options.ceilings() }),
    );
    return meta;
  }

  /** A state that never answers would let the log grow without end: after `commitTimeoutMs` it counts as failed. */
  private commit(overlayRecords: readonly OverlayRecord[], meta: ReadonlyMap<string, Buffer>): Promise<void> {
    const { state, scheduler, limits } = this.options;
    const records: StateRecord[] = overlayRecords.map(({ partition, key, record }) => ({
      partition,
      key,
      bytes: record.bytes,
    }));
    const sealed = new Map([...meta].map(([name, value]) => [name, sealMeta(name, value)]));
    return new Promise((resolve, reject) => {
      const watchdog = scheduler.after(limits.commitTimeoutMs, () =>
        reject(new Error(`the state did not commit within ${limits.commitTimeoutMs} ms`)),
      );
      state.commit({ records, meta: sealed }).then(
        () => {
          watchdog.cancel();
          resolve();
        },
        (error: unknown) => {
          watchdog.cancel();
          reject(new Error(`the state did not commit: ${messageOf(error)}`, { cause: error }));
        },
      );
    });
  }

  private settleWaiters(): void {
    const done = this.waiters.filter(({ through }) => through <= this.appliedThrough);
    if (done.length === 0) return;
    const open = this.waiters.filter(({ through }) => through > this.appliedThrough);
    this.waiters.splice(0, this.waiters.length, ...open);
    for (const waiter of done) waiter.resolve();
  }
}
