import type { StoredRecord } from '../storage/store.ts';
import type { LiveValue } from './engine.ts';

/** Whether a record is a value now: an expired one is a tombstone at its own version (PROTOCOL 25). */
export function isLive(record: Pick<StoredRecord, 'tombstone' | 'expiresAtMs'>, nowMs: number): boolean {
  return !record.tombstone && (record.expiresAtMs === undefined || record.expiresAtMs > nowMs);
}

/** The value of a record, undefined when it is absent to clients. */
export function liveValue(record: StoredRecord | undefined, nowMs: number): LiveValue | undefined {
  if (record === undefined || !isLive(record, nowMs)) return undefined;
  return {
    value: record.value,
    version: record.version,
    remainingTtlMs: record.expiresAtMs === undefined ? undefined : record.expiresAtMs - nowMs,
  };
}
