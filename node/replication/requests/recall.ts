import type { Clock, Scheduler } from '../../../common/clock.ts';
import { KvError } from '../../../common/errors.ts';
import type { EntrySlice, Store } from '../../storage/store.ts';
import type { RequestIndex } from './request-index.ts';

export interface RecallOptions {
  readonly index: RequestIndex;
  readonly store: Pick<Store, 'readEntries' | 'sequenceSince' | 'syncedThrough' | 'logStart'>;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  /** Ends the reading. */
  readonly signal: AbortSignal;
}

const SLICE_BYTES = 1024 * 1024;

/**
 * After a start, notes the requests of the window before it again, from the log, a slice at a time beside everything
 * else. From the call on requests must be noted as they are applied. When it resolves, the index knows how far back it
 * goes: until then, and where the log does not reach back far enough, it answers that it does not know.
 *
 * @throws what the log throws when it cannot be read; the index then knows only of what is applied from now on.
 */
export async function recallRequests(options: RecallOptions): Promise<void> {
  const { index, store, clock, scheduler, signal } = options;
  const startMs = clock.monotonicMs();
  index.complete(startMs);
  const sinceWallMs = clock.wallMs() - index.windowMs;
  let after = store.sequenceSince(sinceWallMs);
  const through = store.syncedThrough;
  // A log that was cut at its cap may begin later than that.
  let reachesBack = after > store.logStart || store.logStart === 0;
  for (let first = true; after < through && !signal.aborted; first = false) {
    const slice = await readSlice(options, after);
    if (slice === undefined) return;
    const oldest = slice.entries[0];
    if (first && oldest !== undefined && oldest.record.version.wallMs <= sinceWallMs) reachesBack = true;
    for (const { requestId, key, record } of slice.entries) {
      if (requestId === undefined) index.noteVersion(record.version);
      else index.note(requestId, key, record.version);
    }
    if (slice.through <= after) break;
    after = slice.through;
    await new Promise<void>((resolve) => scheduler.soon(resolve));
  }
  if (reachesBack && !signal.aborted) index.complete(startMs - index.windowMs);
}

/** Undefined when the log was trimmed meanwhile. */
async function readSlice({ store }: RecallOptions, after: number): Promise<EntrySlice | undefined> {
  try {
    return await store.readEntries(after, SLICE_BYTES);
  } catch (error) {
    if (error instanceof KvError && error.code === 'OUT_OF_RANGE') return undefined;
    throw error;
  }
}
