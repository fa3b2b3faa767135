import { byteString } from '../../common/bytes.ts';
import type { Scheduler } from '../../common/clock.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { compareVersions } from '../../model/version.ts';
import type { Checkpointer } from './checkpointer.ts';
import { digestKey, weightOf } from './digest.ts';
import type { Digests } from './digests.ts';
import type { StoreLimits } from './limits.ts';
import type { LogWriter } from './log-writer.ts';
import { overlayRecord, type Overlay } from './overlay.ts';
import type { Records } from './records.ts';
import type { VisibleRow } from './scan.ts';
import type { StoreHealth } from './store-health.ts';
import type { KeyedRecord, RecordPredicate } from './store.ts';
import { checkMutation } from './validation.ts';

export interface UnloggedOptions {
  readonly partitions: number;
  readonly limits: StoreLimits;
  readonly overlay: Overlay;
  readonly records: Records;
  readonly digests: Digests;
  readonly writer: LogWriter;
  readonly checkpointer: Checkpointer;
  readonly health: StoreHealth;
  readonly scheduler: Scheduler;
}

/** What a removal looks at in one turn of the event loop. */
const PAGE = { limit: 500, maxBytes: 4 * 1024 * 1024 };

/**
 * Changes that go into the state without the log: records that are loaded in bulk, and removals of what nobody needs any
 * more. They share the overlay's order with what comes out of the log, and a crash takes back what has not been checkpointed.
 *
 * A key with an unsynced record is left to the log: what is pending was decided on what lies beneath it, and would
 * otherwise come to lie above a newer record.
 */
export class Unlogged {
  private readonly options: UnloggedOptions;

  constructor(options: UnloggedOptions) {
    this.options = options;
  }

  /** As `Store.load`. */
  async load(records: readonly KeyedRecord[]): Promise<number> {
    const { limits, health, checkpointer, writer } = this.options;
    for (const { key, record } of records) checkMutation({ key, record, own: false });
    const logged: Promise<void>[] = [];
    let newer = 0;
    for (let first = 0; first < records.length; first += limits.transactionRecords) {
      if (first > 0) await this.pause();
      health.check();
      for (const loaded of records.slice(first, first + limits.transactionRecords)) {
        if (this.isFull) await checkpointer.flush();
        const decided = this.loadOne(loaded);
        if (decided === 'pending') {
          const { outcomes, durable } = writer.apply([{ ...loaded, own: false }]);
          logged.push(durable);
          newer += outcomes[0]?.kind === 'applied' ? 1 : 0;
        } else {
          newer += decided === 'newer' ? 1 : 0;
        }
      }
      checkpointer.wake();
    }
    await Promise.all([checkpointer.flush(), ...logged]);
    return newer;
  }

  /** As `Store.removeWhere`. */
  async removeWhere(partition: number, predicate: RecordPredicate): Promise<number> {
    const { overlay, records, health, checkpointer } = this.options;
    let removed = 0;
    let after: Buffer | undefined;
    do {
      health.check();
      const { rows, through } = records.visiblePage(partition, { after, ...PAGE });
      for (const row of rows) if (this.removeOne(partition, row, predicate)) removed += 1;
      after = through;
      checkpointer.wake();
      await this.pause();
    } while (after !== undefined);
    // What was absent already may be so because of another removal that is not durable yet.
    if (overlay.removes) await checkpointer.flush();
    return removed;
  }

  private loadOne({ key, record }: KeyedRecord): 'newer' | 'known' | 'pending' {
    const { partitions, overlay, records } = this.options;
    const keyString = byteString(key);
    if (overlay.pendingLayer(keyString) !== undefined) return 'pending';
    const keyDigest = digestKey(key);
    const { record: other, weight, floor } = records.toReplace(key, keyString, keyDigest);
    if (other !== undefined && !records.wins(record, other)) return 'known';
    if (floor !== undefined && compareVersions(record.version, floor) < 0) return 'known';
    const place = { partition: partitionOf(key, partitions), key, keyDigest };
    overlay.putUnlogged(keyString, overlayRecord(place, record, weight));
    return 'newer';
  }

  private removeOne(partition: number, { key, record }: VisibleRow, predicate: RecordPredicate): boolean {
    const { overlay, digests } = this.options;
    if (!predicate(key, record)) return false;
    const keyString = byteString(key);
    const isLoading = overlay.waitingLayer(keyString)?.loaded === true;
    if (isLoading || overlay.pendingLayer(keyString) !== undefined) return false;
    const keyDigest = digestKey(key);
    const weight = record === undefined ? undefined : weightOf(keyDigest, record);
    const removal = overlayRecord({ partition, key, keyDigest }, undefined, weight);
    digests.noteVisible(removal);
    overlay.putUnlogged(keyString, removal);
    return true;
  }

  /** Half of the overlay is for the log. */
  private get isFull(): boolean {
    const { overlay, limits } = this.options;
    return overlay.waitingBytes > limits.overlayBytes / 2;
  }

  /** Ends a turn of the event loop, or waits for room. */
  private async pause(): Promise<void> {
    const { overlay, limits, checkpointer, scheduler } = this.options;
    // Each page looks at everything that waits.
    if (this.isFull || overlay.waitingRecords > 4 * limits.transactionRecords) await checkpointer.flush();
    else
      await new Promise<void>((resolve) => {
        scheduler.soon(resolve);
      });
  }
}
