import type { Scheduler } from '../../common/clock.ts';
import { digestKey, leafOf, shifted, weightOf } from './digest.ts';
import { emptyLeaves } from './digests.ts';
import { decodeIfSound } from './record.ts';
import type { IndexedState } from './state.ts';

/** Rows read in one turn of the event loop. */
const PAGE_ROWS = 500;

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
    const rows = state.scan(partition, { after, limit: PAGE_ROWS });
    for (const { key, bytes } of rows) {
      const keyDigest = digestKey(key);
      const leaf = leafOf(keyDigest);
      const record = decodeIfSound(key, bytes);
      if (record !== undefined) leaves[leaf] = shifted(leaves[leaf] ?? 0, 0, weightOf(keyDigest, record));
    }
    after = rows.at(-1)?.key;
    if (rows.length < PAGE_ROWS) return leaves;
    await new Promise<void>((resolve) => {
      scheduler.soon(resolve);
    });
    if (stopped()) return undefined;
  }
}
