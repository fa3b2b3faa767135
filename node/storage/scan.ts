import { byteString } from '../../common/bytes.ts';
import type { Overlay, OverlayRecord } from './overlay.ts';
import { decodeIfSound } from './record.ts';
import { isFullPage, type IndexedState } from './state.ts';
import type { KeyedRecord, KeyRange, StoredRecord } from './store.ts';

export interface ScanSources {
  readonly state: IndexedState;
  readonly overlay: Overlay;
}

/** What readers see of a key. */
export interface VisibleRow {
  readonly key: Buffer;
  /** Undefined: it is damaged. */
  readonly record: StoredRecord | undefined;
}

export interface VisiblePage {
  /** In key order. */
  readonly rows: readonly VisibleRow[];
  /** Everything up to this key has been looked at; undefined: everything in the range. */
  readonly through: Buffer | undefined;
}

/** Synced records of a partition within the range: the state's, and over them the overlay's. Damaged ones are left out. */
export function scanRecords(
  sources: ScanSources,
  partition: number,
  range: KeyRange,
  onDamaged: (key: Buffer) => void,
): KeyedRecord[] {
  const above = aboveState(sources.overlay, partition, range);
  const found: KeyedRecord[] = [];
  const maxBytes = range.maxBytes ?? Infinity;
  let bytes = 0;
  let { after } = range;
  while (found.length < range.limit && bytes < maxBytes) {
    const rest = { ...range, after, limit: range.limit - found.length };
    const { rows, through } = merged(sources.state, partition, rest, above);
    for (const { key, record } of rows) {
      if (found.length >= range.limit || bytes >= maxBytes) break;
      if (record === undefined) {
        onDamaged(key);
        continue;
      }
      found.push({ key, record });
      bytes += key.length + record.bytes.length;
    }
    if (through === undefined) break;
    after = through;
  }
  return found;
}

/** Keys of the records that `scanRecords` would look at, damaged ones included; nothing else of them is read. */
export function scanKeys(sources: ScanSources, partition: number, range: KeyRange): Buffer[] {
  const above = aboveState(sources.overlay, partition, range);
  const found: Buffer[] = [];
  let { after } = range;
  while (found.length < range.limit) {
    const limit = range.limit - found.length;
    const stored = sources.state.keys(partition, { ...range, after, limit });
    const through = stored.length < limit ? undefined : stored.at(-1);
    const keys = stored.filter((key) => !above.has(byteString(key)));
    for (const { key, record } of above.values()) {
      if (record !== undefined && within(key, { ...range, after }) && isUpTo(key, through)) keys.push(key);
    }
    found.push(...keys.sort((a, b) => Buffer.compare(a, b)));
    if (through === undefined) break;
    after = through;
  }
  return found.slice(0, range.limit);
}

/** One page of what readers see; the bounds of the range are for what is read from the state. */
export function visiblePage(sources: ScanSources, partition: number, range: KeyRange): VisiblePage {
  return merged(sources.state, partition, range, aboveState(sources.overlay, partition, range));
}

/** What the overlay has above the state, by key. */
function aboveState(
  overlay: Overlay,
  partition: number,
  range: KeyRange,
): ReadonlyMap<string, OverlayRecord> {
  return overlay.recordsOf(partition, (key) => within(key, range));
}

function merged(
  state: IndexedState,
  partition: number,
  range: KeyRange,
  above: ReadonlyMap<string, OverlayRecord>,
): VisiblePage {
  const stateRows = state.scan(partition, range);
  // A full page of the state ends at its last key; what the overlay has beyond it belongs to a later page.
  const through = isFullPage(stateRows, range) ? stateRows.at(-1)?.key : undefined;
  const rows: VisibleRow[] = [];
  for (const { key, bytes } of stateRows) {
    if (above.size === 0 || !above.has(byteString(key)))
      rows.push({ key, record: decodeIfSound(key, bytes) });
  }
  const before = rows.length;
  for (const { key, record } of above.values()) {
    if (record !== undefined && within(key, range) && isUpTo(key, through)) rows.push({ key, record });
  }
  if (rows.length > before) rows.sort((a, b) => Buffer.compare(a.key, b.key));
  return { rows, through };
}

function isUpTo(key: Buffer, through: Buffer | undefined): boolean {
  return through === undefined || Buffer.compare(key, through) <= 0;
}

function within(key: Buffer, { after, from, before }: KeyRange): boolean {
  return (
    (after === undefined || Buffer.compare(key, after) > 0) &&
    (from === undefined || Buffer.compare(key, from) >= 0) &&
    (before === undefined || Buffer.compare(key, before) < 0)
  );
}
