import { MAX_COUNTER, MAX_WALL_MS } from '../../model/version.ts';
import type { RequestId, Version } from '../../proto/gen/kvstore.ts';
import { MAX_KEY_BYTES, MAX_RECORD_BYTES } from '../storage/validation.ts';

/**
 * Bounds of single fields as peers send them: each function says why a value is outside, or undefined. Store and log
 * keep sequences, incarnations and times in 48 bits, and an entry that does not fit must be noticed before it is begun.
 */
export const MAX_UINT48 = 2 ** 48 - 1;
/** Longest name of a member, namespace or cluster, bytes: that of a DNS name. */
export const MAX_NAME_BYTES = 253;
const CLIENT_ID_BYTES = 16;
const MAX_ATTEMPT = 2 ** 32 - 1;

/** Why a value is outside; undefined when it is not. */
export type Problem = string | undefined;

/** The first problem there is; later ones are not looked for. */
export function firstOf(...checks: readonly (() => Problem)[]): Problem {
  for (const check of checks) {
    const problem = check();
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** The first problem of an item, after the bound on how many there are. */
export function eachOf<T>(
  what: string,
  items: readonly T[],
  most: number,
  check: (item: T, index: number) => Problem,
): Problem {
  if (items.length > most) return `${items.length} ${what} are more than ${most}`;
  for (const [index, item] of items.entries()) {
    const problem = check(item, index);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

export function badNumber(what: string, value: number, least: number, most = MAX_UINT48): Problem {
  return value >= least && value <= most ? undefined : `${what} ${value} is not from ${least} to ${most}`;
}

export function badName(what: string, name: string): Problem {
  const bytes = Buffer.byteLength(name);
  return bytes > 0 && bytes <= MAX_NAME_BYTES
    ? undefined
    : `${what} has ${bytes} bytes, not 1 to ${MAX_NAME_BYTES}`;
}

export function badKey(key: Buffer): Problem {
  return key.length > 0 && key.length <= MAX_KEY_BYTES
    ? undefined
    : `a key has ${key.length} bytes, not 1 to ${MAX_KEY_BYTES}`;
}

/** A place between keys, or the beginning of keys: may be empty. */
export function badKeyBound(what: string, bytes: Buffer): Problem {
  return bytes.length <= MAX_KEY_BYTES
    ? undefined
    : `${what} has ${bytes.length} bytes, at most ${MAX_KEY_BYTES}`;
}

/** Of an encoded record; its content is for `decodeRecord`. */
export function badRecordSize(record: Buffer): Problem {
  return record.length > 0 && record.length <= MAX_RECORD_BYTES
    ? undefined
    : `a record has ${record.length} bytes, not 1 to ${MAX_RECORD_BYTES}`;
}

export function badVersion(version: Version | undefined): Problem {
  if (version === undefined) return 'a version is missing';
  const { wallMs, counter, writer } = version;
  return wallMs <= MAX_WALL_MS && counter <= MAX_COUNTER && writer <= MAX_UINT48
    ? undefined
    : `${wallMs}.${counter}@${writer} is no version`;
}

export function badRequestId(id: RequestId): Problem {
  if (id.clientId.length !== CLIENT_ID_BYTES)
    return `a client id has ${id.clientId.length} bytes, not ${CLIENT_ID_BYTES}`;
  return badNumber('client start', id.clientStartMs, 0) ?? badNumber('attempt', id.attempt, 0, MAX_ATTEMPT);
}

export function badPartition(partition: number, partitions: number): Problem {
  return partition < partitions ? undefined : `there is no partition ${partition} of ${partitions}`;
}

/** A bit for each partition; shorter ones leave out what is not set. */
export function badPartitionBits(what: string, bits: Buffer, partitions: number): Problem {
  const most = Math.ceil(partitions / 8);
  return bits.length <= most ? undefined : `${what} has ${bits.length} bytes for ${partitions} partitions`;
}
