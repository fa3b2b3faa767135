import { byteString } from '../../common/bytes.ts';
import type { Overlay } from './overlay.ts';
import { decodeRecord } from './record.ts';
import type { IndexedState } from './state.ts';
import type { KeyedRecord, KeyRange } from './store.ts';

/** Synced records of a partition within the range: the state's, and over them the overlay's. */
export function scanRecords(
  sources: { state: IndexedState; overlay: Overlay },
  partition: number,
  range: KeyRange,
): KeyedRecord[] {
  const newer = sources.overlay.recordsOf(partition, (key) => within(key, range));
  const rows: KeyedRecord[] = [];
  for (const { key, bytes } of sources.state.scan(partition, range)) {
    if (newer.size === 0 || !newer.has(byteString(key))) rows.push({ key, record: decodeRecord(key, bytes) });
  }
  if (newer.size === 0) return rows;
  // A full page of the state ends at its last key; what the overlay has beyond it may not be all there is.
  for (const { key, record } of newer.values()) rows.push({ key, record });
  rows.sort((a, b) => Buffer.compare(a.key, b.key));
  return rows.slice(0, range.limit);
}

function within(key: Buffer, { after, from, before }: KeyRange): boolean {
  return (
    (after === undefined || Buffer.compare(key, after) > 0) &&
    (from === undefined || Buffer.compare(key, from) >= 0) &&
    (before === undefined || Buffer.compare(key, before) < 0)
  );
}
