import { KvError } from '../../common/errors.ts';
import { MAX_COUNTER, MAX_WALL_MS, type Version } from '../../model/version.ts';
import type { Condition, RequestId, Version as WireVersion } from '../../proto/gen/kvstore.ts';

/** Longest key, bytes. */
export const MAX_KEY_BYTES = 1024;
/** Longest time to live: 10 years, milliseconds. */
export const MAX_TTL_MS = 10 * 365 * 24 * 3_600_000;
/** Most keys of one page. */
export const MAX_PAGE_SIZE = 10_000;
const CLIENT_ID_BYTES = 16;
const MAX_WRITER = 2 ** 48 - 1;

function invalid(message: string): KvError {
  return new KvError('INVALID_ARGUMENT', message);
}

/** @throws KvError INVALID_ARGUMENT for an empty or oversized key. */
export function checkKey(key: Buffer): void {
  if (key.length === 0) throw invalid(`key is empty: give 1 to ${MAX_KEY_BYTES} bytes`);
  checkKeyLength('key', key);
}

/** @throws KvError INVALID_ARGUMENT when a bound or prefix is longer than any key. */
export function checkKeyLength(field: string, bytes: Buffer): void {
  if (bytes.length > MAX_KEY_BYTES) {
    throw invalid(`${field} has ${bytes.length} bytes: give at most ${MAX_KEY_BYTES}`);
  }
}

/** @throws KvError INVALID_ARGUMENT for a value above the configured size. */
export function checkValue(value: Buffer, maxBytes: number): void {
  if (value.length > maxBytes) {
    throw invalid(
      `value has ${value.length} bytes: this cluster takes at most ${maxBytes}; split it, or raise the limit`,
    );
  }
}

/** @throws KvError INVALID_ARGUMENT for a time to live below 1 ms or above 10 years. */
export function checkTtl(ttlMs: number | undefined): void {
  if (ttlMs !== undefined && (ttlMs < 1 || ttlMs > MAX_TTL_MS)) {
    throw invalid(
      `ttl_ms is ${ttlMs}: give 1 to ${MAX_TTL_MS} (10 years), or leave it out for a value that stays`,
    );
  }
}

/** @throws KvError UNIMPLEMENTED when there is a condition: ignoring it would be worse than refusing. */
export function refuseCondition(condition: Condition | undefined): void {
  if (condition !== undefined) throw unsupportedCondition();
}

/** What a request with a condition, known or not, is answered. */
export function unsupportedCondition(): KvError {
  return new KvError(
    'UNIMPLEMENTED',
    'conditional operations (compare-and-set) are not supported; nothing was executed: leave the condition out',
  );
}

/** @throws KvError INVALID_ARGUMENT when the id cannot have been made by a client of this protocol. */
export function checkRequestId(id: RequestId | undefined): void {
  if (id === undefined) return;
  if (id.clientId.length !== CLIENT_ID_BYTES) {
    throw invalid(`request_id.client_id has ${id.clientId.length} bytes: give ${CLIENT_ID_BYTES}`);
  }
  // The log keeps 48 bits of it (node/storage/entry.ts).
  if (id.clientStartMs > MAX_WALL_MS) {
    throw invalid('request_id.client_start_ms is no time: give milliseconds since 1970');
  }
}

/** @throws KvError INVALID_ARGUMENT for a version that no node can have answered. */
export function checkMinVersion(version: WireVersion | undefined): Version | undefined {
  if (version === undefined) return undefined;
  const { wallMs, counter, writer } = version;
  if (wallMs > MAX_WALL_MS || counter > MAX_COUNTER || writer > MAX_WRITER) {
    throw invalid('min_version is not a version that a node answered: pass one unchanged, or leave it out');
  }
  return { wallMs, counter, writer };
}

/** @throws KvError INVALID_ARGUMENT for a page above the bound. */
export function checkPageSize(pageSize: number): void {
  if (pageSize > MAX_PAGE_SIZE) {
    throw invalid(`page_size is ${pageSize}: give 1 to ${MAX_PAGE_SIZE}, or 0 for everything at once`);
  }
}
