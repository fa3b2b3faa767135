import type { Clock } from '../../common/clock.ts';
import type { ClusterPages } from './cluster-pages.ts';
import type { KeyPage, ListKeysOperation } from './engine.ts';
import { isLive } from './live-value.ts';

export interface ListingsOptions {
  readonly pages: Pick<ClusterPages, 'page'>;
  readonly clock: Clock;
}

/** Listings of keys over all partitions (PROTOCOL 21). */
export class Listings {
  private readonly options: ListingsOptions;

  constructor(options: ListingsOptions) {
    this.options = options;
  }

  /** A page of live keys in byte order. */
  async listKeys(operation: ListKeysOperation): Promise<KeyPage> {
    const { pages, clock } = this.options;
    const keys: Buffer[] = [];
    let bytes = 0;
    let after = operation.startAfter;
    for (;;) {
      const limit = operation.limit - keys.length;
      const merged = await pages.page({ ...operation, after, limit, withRecords: false });
      const nowMs = clock.wallMs();
      for (const record of merged.keys) {
        if (!isLive(record, nowMs)) continue;
        const full = keys.length >= operation.limit || bytes + record.key.length > operation.maxBytes;
        if (keys.length > 0 && full) return { keys, more: true };
        keys.push(record.key);
        bytes += record.key.length;
      }
      if (merged.through === undefined) return { keys, more: false };
      // Full exactly at the end of what the pages speak of: there may be more behind it.
      if (keys.length >= operation.limit) return { keys, more: true };
      after = merged.through;
    }
  }
}
