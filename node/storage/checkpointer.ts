import { messageOf } from '../../common/errors.ts';
import type { Scheduler, Timer } from '../../common/clock.ts';
import { countLeaves } from './count-leaves.ts';
import type { Digests, StoredLeaves } from './digests.ts';
import type { StoreLimits } from './limits.ts';
import type { Layer, Overlay, OverlayRecord } from './overlay.ts';
import type { IndexedState, StateRecord } from './state.ts';
import type { CeilingValues } from './entry.ts';
import {
  APPLIED_NAME,
  digestName,
  encodeApplied,
  encodeCursor,
  encodeDigest,
  sealMeta,
  userName,
} from './state-meta.ts';
import { withinLimit } from './watchdog.ts';

export interface CheckpointerOptions {
  readonly overlay: Overlay;
  readonly digests: Digests;
  readonly state: IndexedState;
  readonly scheduler: Scheduler;
  readonly limits: Pick<StoreLimits, 'checkpointMs' | 'transactionRecords' | 'commitTimeoutMs'>;
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
 * the oldest record was synced, earlier when much is waiting. The more a checkpoint holds, the less it costs for each record: a
 * page of the state and the digest of a partition are written once for all records in them.
 */
export class Checkpointer {
  /** The state holds everything of the log up to this sequence. */
  appliedThrough: number;
  private readonly options: CheckpointerOptions;
  private timer: Timer | undefined;
  private timeIsUp = false;
  private running = false;
  private stopReason: Error | undefined;
  /** In the order of their layers. */
  private readonly waiters: { layer: Layer; resolve: () => void; reject: (error: Error) => void }[] = [];

  constructor(options: CheckpointerOptions) {
    this.options = options;
    this.appliedThrough = options.appliedThrough;
  }

  /** Something was added to the overlay. */
  wake(): void {
    if (this.running || this.stopped) return;
    const { overlay, digests, scheduler, limits } = this.options;
    if (this.dueLayer !== undefined || digests.toRecount !== undefined) {
      this.running = true;
      void this.run();
      return;
    }
    if (overlay.oldest === undefined) return;
    this.timer ??= scheduler.after(limits.checkpointMs, () => {
      this.timer = undefined;
      this.timeIsUp = true;
      this.wake();
    });
  }

  /** Resolves when everything that is synced now is in the state. */
  flush(): Promise<void> {
    const layer = this.options.overlay.newest;
    if (layer === undefined) return Promise.resolve();
    if (this.stopReason !== undefined) return Promise.reject(this.stopReason);
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.waiters.push({ layer, resolve: () => resolve(undefined), reject });
    this.wake();
    return promise;
  }

  /** Rejects what waits; nothing is begun any more. */
  stop(error: Error): void {
    this.stopReason ??= error;
    this.timer?.cancel();
    this.timer = undefined;
    for (const waiter of this.waiters.splice(0)) waiter.reject(error);
  }

  private get stopped(): boolean {
    return this.stopReason !== undefined;
  }

  private get dueLayer(): Layer | undefined {
    const { overlay } = this.options;
    const due = this.timeIsUp || this.waiters.length > 0 || overlay.hasFullLayer;
    return due ? overlay.oldest : undefined;
  }

  private async run(): Promise<void> {
    const { digests, onFailure } = this.options;
    try {
      for (;;) {
        const layer = this.dueLayer;
        const partition = digests.toRecount;
        if (layer === undefined && partition === undefined) break;
        if (layer !== undefined) await this.checkpoint(layer);
        if (partition !== undefined && !this.stopped) await this.recount(partition);
        if (this.stopped) return;
      }
      this.running = false;
      this.wake();
    } catch (error) {
      this.running = false;
      onFailure(error);
    }
  }

  private async checkpoint(layer: Layer): Promise<void> {
    const { overlay, onCheckpoint } = this.options;
    this.timeIsUp = false;
    layer.sealed = true;
    await this.commitLayer(layer);
    if (this.stopped) return;
    overlay.drop(layer);
    this.appliedThrough = layer.through;
    while (this.waiters[0]?.layer === layer) this.waiters.shift()?.resolve();
    onCheckpoint();
  }

  /**
   * One transaction holds the layer's metas, cursors and applied sequence together with its last records. Where there are
   * more records than a transaction should have, the others go before it: the state is then ahead of its applied sequence
   * in some keys, and replaying the log from there ends at the same records.
   */
  private async commitLayer(layer: Layer): Promise<void> {
    const records = byPartition(layer.records.values());
    const size = this.options.limits.transactionRecords;
    let first = 0;
    for (; records.length - first > size; first += size) {
      await this.commit(layer, records.slice(first, first + size), new Map());
    }
    await this.commit(layer, records.slice(first), this.metaOf(layer));
  }

  /**
   * Counts a partition's digest anew, because a damaged record was replaced and nobody knows what it had counted for.
   * Nothing is committed meanwhile, so what is read is what the state holds at the end of it.
   */
  private async recount(partition: number): Promise<void> {
    const { overlay, digests, state, scheduler } = this.options;
    const leaves = await countLeaves({ state, partition, scheduler, stopped: () => this.stopped });
    if (leaves === undefined) return;
    const counted = digests.recounted(partition, leaves, overlay.visibleChanges());
    await this.commitMeta([], digestMeta(partition, counted));
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

  /** Every transaction carries the digests as they are with its records (digests.ts). */
  private async commit(
    layer: Layer,
    records: readonly OverlayRecord[],
    meta: Map<string, Buffer>,
  ): Promise<void> {
    const { digests } = this.options;
    for (const [partition, leaves] of digests.commit(records)) {
      for (const [name, value] of digestMeta(partition, leaves)) meta.set(name, value);
    }
    const written = records.map(({ partition, key, record }) => ({ partition, key, bytes: record?.bytes }));
    await this.commitMeta(written, meta);
    if (layer.loaded) for (const change of records) digests.noteVisible(change);
  }

  /** A state that never answers would let the log grow without end. */
  private async commitMeta(
    records: readonly StateRecord[],
    meta: ReadonlyMap<string, Buffer>,
  ): Promise<void> {
    const { state, scheduler, limits } = this.options;
    const sealed = new Map([...meta].map(([name, value]) => [name, sealMeta(name, value)]));
    try {
      const work = state.commit({ records, meta: sealed });
      await withinLimit(scheduler, limits.commitTimeoutMs, work);
    } catch (error) {
      throw new Error(`the state did not commit: ${messageOf(error)}`, { cause: error });
    }
  }
}

/** Records of one partition next to each other: they share pages and a digest. */
function byPartition(records: Iterable<OverlayRecord>): OverlayRecord[] {
  const partitions = new Map<number, OverlayRecord[]>();
  for (const record of records) {
    const others = partitions.get(record.partition);
    if (others === undefined) partitions.set(record.partition, [record]);
    else others.push(record);
  }
  return [...partitions.values()].flat();
}

function digestMeta(partition: number, leaves: StoredLeaves): Map<string, Buffer> {
  return new Map([[digestName(partition), encodeDigest(leaves)]]);
}
