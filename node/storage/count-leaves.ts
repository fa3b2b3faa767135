import type { Scheduler } from '../../common/clock.ts';
import { digestKey, leafOf, shifted, weightOf } from './digest.ts';
import { emptyLeaves } from './digests.ts';
import { decodeIfSound } from './record.ts';
import { isFullPage, type IndexedState } from './state.ts';

/** What is read in one turn of the event loop. */
const PAGE = { limit: 500, maxBytes: 4 * 1024 * 1024 };

export interface CountOptions {
  readonly state: IndexedState;
  readonly partition: number;
  readonly scheduler: Scheduler;
  /** Asked between pages. */
  readonly stopped: () => boolean;
}

/**
 * The sums over all records of a partition of the state, read page by page; nothing may be committed meanwhile. A damaged
 * record counts for nothing. Undefined when it was stopped.
 */
export async function countLeaves(options: CountOptions): Promise<Float64Array | undefined> {
  const { state, partition, scheduler, stopped } = options;
  const leaves = emptyLeaves();
  let after: Buffer | undefined;
  for (;;) {
    const rows = state.scan(partition, { after, ...PAGE });
    for (const { key, bytes } of rows) {
      const keyDigest = digestKey(key);
      const leaf = leafOf(keyDigest);
      const record = decodeIfSound(key, bytes);
      if (record !== undefined) leaves[leaf] = shifted(leaves[leaf] ?? 0, 0, weightOf(keyDigest, record));
    }
    after = rows.at(-1)?.key;
    if (!isFullPage(rows, PAGE)) return leaves;
    await new Promise<void>((resolve) => {
      scheduler.soon(resolve);
    });
    if (stopped()) return undefined;
  }
}
