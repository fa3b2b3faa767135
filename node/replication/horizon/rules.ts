import { MAX_COUNTER, type Version } from '../../../model/version.ts';
import type { StoredRecord } from '../../storage/store.ts';

/**
 * What a horizon means. Below a partition's horizon G, in milliseconds of the versions' clock, every replica that is
 * readable holds whatever is newest of each key, or has collected it because it was a tombstone; and nobody mints
 * there any more (PROTOCOL 22). So a version below G that a replica knows nothing of is one that it has outlived.
 */

type Record = Pick<StoredRecord, 'version' | 'tombstone' | 'expiresAtMs'>;

const MAX_WRITER = 2 ** 48 - 1;

/** Whether a horizon covers a version. */
export function isCovered(version: Version, horizonMs: number): boolean {
  return version.wallMs < horizonMs;
}

/**
 * From which horizon on a record is collected, milliseconds: a tombstone at its version, an expired record when its
 * expiry is covered as well; Infinity: never.
 */
export function collectableFromMs({ version, tombstone, expiresAtMs }: Record): number {
  if (tombstone) return version.wallMs + 1;
  return expiresAtMs === undefined ? Infinity : Math.max(version.wallMs, expiresAtMs) + 1;
}

/** Whether a horizon collects a record. It depends on nothing else, so that replicas at one horizon stay equal. */
export function isCollectable(record: Record, horizonMs: number): boolean {
  return collectableFromMs(record) <= horizonMs;
}

/**
 * What becomes of a record that comes from outside the live log.
 *
 * - `apply`: it is compared with what is stored, as ever.
 * - `ghost`: the sender may have missed the tombstone that was collected here.
 * - `collected`: it is what this replica has collected, or would at once.
 */
export type Admission = 'apply' | 'ghost' | 'collected';

/** Decides about a record from outside the live log (PROTOCOL 24). `known`: anything is stored of its key here. */
export function judgeForeign(foreign: {
  readonly record: Record;
  readonly known: boolean;
  /** The sender's horizon of the partition, from before it read the record. */
  readonly senderHorizonMs: number;
  readonly ownHorizonMs: number;
}): Admission {
  const { record, known, senderHorizonMs, ownHorizonMs } = foreign;
  if (known || !isCovered(record.version, ownHorizonMs)) return 'apply';
  if (senderHorizonMs < ownHorizonMs) return 'ghost';
  return isCollectable(record, ownHorizonMs) ? 'collected' : 'apply';
}

/** The newest version that a horizon covers: what a new version must exceed. Only for a horizon above 0. */
export function newestCovered(horizonMs: number): Version {
  return { wallMs: horizonMs - 1, counter: MAX_COUNTER, writer: MAX_WRITER };
}
