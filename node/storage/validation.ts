import { KvError } from '../../common/errors.ts';
import type { KeyRange, LogCursor, Mutation } from './store.ts';

/** Longest key, bytes; the state could hold little more. */
export const MAX_KEY_BYTES = 1024;
/** Longest encoded record, bytes: the largest value a cluster can be configured for, and room to spare. */
export const MAX_RECORD_BYTES = 32 * 1024 * 1024;
const MAX_NAME_BYTES = 400;
const MAX_CLIENT_ID_BYTES = 255;
const MAX_UINT48 = 2 ** 48 - 1;

/**
 * What the log takes must also fit the state, for a record that is acknowledged and then refused by a checkpoint would
 * stop the node for good; and it must fit the log's fields (entry.ts), for an entry that cannot be written to its end
 * spoils those that are written behind it.
 *
 * @throws KvError INVALID_ARGUMENT.
 */
export function checkMutation({ key, record, requestId }: Mutation): void {
  checkKey(key);
  if (record.bytes.length > MAX_RECORD_BYTES) {
    throw new KvError(
      'INVALID_ARGUMENT',
      `a record has at most ${MAX_RECORD_BYTES} bytes, not ${record.bytes.length}`,
    );
  }
  if (requestId !== undefined && requestId.clientId.length > MAX_CLIENT_ID_BYTES) {
    throw new KvError('INVALID_ARGUMENT', `a client id has at most ${MAX_CLIENT_ID_BYTES} bytes`);
  }
  if (requestId !== undefined) {
    checkNumber('request number', requestId.number, Number.MAX_SAFE_INTEGER);
    checkNumber("client's start time", requestId.clientStartMs, MAX_UINT48);
    checkNumber('attempt', requestId.attempt, 2 ** 32 - 1);
  }
}

/** @throws KvError INVALID_ARGUMENT. */
export function checkKey(key: Buffer): void {
  if (key.length === 0 || key.length > MAX_KEY_BYTES) {
    throw new KvError('INVALID_ARGUMENT', `a key has 1 to ${MAX_KEY_BYTES} bytes, not ${key.length}`);
  }
}

/**
 * Bounds may be any prefix of a key, also an empty one.
 *
 * @throws KvError INVALID_ARGUMENT.
 */
export function checkRange({ after, from, before }: KeyRange): void {
  for (const bound of [after, from, before]) {
    if (bound !== undefined && bound.length > MAX_KEY_BYTES) {
      throw new KvError(
        'INVALID_ARGUMENT',
        `a bound has at most ${MAX_KEY_BYTES} bytes, not ${bound.length}`,
      );
    }
  }
}

/** @throws KvError INVALID_ARGUMENT. */
export function checkCursor(cursor: LogCursor): void {
  checkName(cursor.origin);
  checkNumber("cursor's incarnation", cursor.incarnation, MAX_UINT48);
  checkNumber("cursor's sequence", cursor.sequence, MAX_UINT48);
}

/** @throws KvError INVALID_ARGUMENT. */
export function checkMeta(name: string, value: Buffer): void {
  checkName(name);
  if (value.length > MAX_RECORD_BYTES) {
    throw new KvError('INVALID_ARGUMENT', `a named value has at most ${MAX_RECORD_BYTES} bytes`);
  }
}

function checkName(name: string): void {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0 || bytes > MAX_NAME_BYTES) {
    throw new KvError('INVALID_ARGUMENT', `a name has 1 to ${MAX_NAME_BYTES} bytes, not ${bytes}`);
  }
}

function checkNumber(what: string, value: number, most: number): void {
  if (!Number.isInteger(value) || value < 0 || value > most) {
    throw new KvError('INVALID_ARGUMENT', `a ${what} is a whole number up to ${most}, not ${value}`);
  }
}
