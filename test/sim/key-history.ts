import { compareVersions, formatVersion, NO_VERSION, type Version } from '../../model/version.ts';
import type { Known, Operation } from './history.ts';

/** Clocks of the machines against true time: how far any of them has ever been behind or ahead, milliseconds. */
export interface ClockBounds {
  readonly lowestMs: number;
  readonly highestMs: number;
}

/** Clocks tell whole milliseconds. */
const ROUNDING_MS = 2;

export const NOTHING_KNOWN: Known = { version: NO_VERSION, write: undefined };

/** What is known about one key, and what may therefore be answered about it. */
export class KeyHistory {
  readonly key: string;
  readonly writes: Operation[] = [];
  /** Acknowledged at QUORUM or more, or read so: later QUORUM reads see it or newer, later QUORUM writes end above it. */
  quorumFloor: Known = NOTHING_KNOWN;
  /** Acknowledged at ALL: every replica has it. */
  allFloor: Known = NOTHING_KNOWN;
  /** Acknowledged at ONE, by the replica that did: safe while it keeps its volume. */
  readonly oneFloors = new Map<string, Known>();
  private readonly versions = new Map<string, number>();

  constructor(key: string) {
    this.key = key;
  }

  /** A write's answer, or what a read found: `undefined` when the version belongs to nobody else. */
  claim(version: Version, operationId: number): string | undefined {
    const name = formatVersion(version);
    const owner = this.versions.get(name);
    this.versions.set(name, operationId);
    return owner === undefined || owner === operationId
      ? undefined
      : `version ${name} of ${this.key} is of both operation ${owner} and operation ${operationId}`;
  }

  /** The newest of what replicas acknowledged at ONE and have not lost. */
  get anyFloor(): Known {
    let newest = this.quorumFloor;
    for (const known of this.oneFloors.values()) newest = newer(newest, known);
    return newest;
  }

  /**
   * Whether "absent" is a right answer to a read that must see `floor` or newer: nothing, a delete, or a value that has
   * expired may be what it saw.
   */
  mayBeAbsent(floor: Known, untilMs: number, clocks: ClockBounds): boolean {
    if (compareVersions(floor.version, NO_VERSION) === 0) return true;
    if (floor.write !== undefined && mayRead(floor.write, untilMs, clocks)) return true;
    return this.writes.some((write) => {
      if (write.startMs > untilMs || write.outcome === 'refused') return false;
      if (isBelow(write, floor.version)) return false;
      return mayRead(write, untilMs, clocks);
    });
  }

  /** Whether a value may be listed by a listing begun at `floor`: something that has it may be what was seen. */
  mayBePresent(floor: Known, untilMs: number): boolean {
    if (floor.write !== undefined && floor.write.kind === 'put') return true;
    return this.writes.some(
      (write) =>
        write.kind === 'put' &&
        write.startMs <= untilMs &&
        write.outcome !== 'refused' &&
        !isBelow(write, floor.version),
    );
  }
}

/**
 * Whether a write certainly has no version above this one. What an earlier attempt has left on a minority, unknown to the
 * one that was acknowledged, may have any.
 */
function isBelow({ version, attempts }: Operation, floor: Version): boolean {
  return attempts === 1 && version !== undefined && compareVersions(version, floor) < 0;
}

/** Whether this write, being the newest, may make the key read as absent at `untilMs`. */
function mayRead(write: Operation, untilMs: number, { lowestMs, highestMs }: ClockBounds): boolean {
  if (write.kind === 'delete') return true;
  if (write.ttlMs === undefined) return false;
  return untilMs + highestMs + ROUNDING_MS >= write.startMs + lowestMs + write.ttlMs;
}

/** Whether an acknowledged value has certainly expired everywhere at `atMs`. */
export function hasExpired(write: Operation, atMs: number, { lowestMs, highestMs }: ClockBounds): boolean {
  if (write.ttlMs === undefined || write.outcome !== 'ok') return false;
  return atMs + lowestMs > write.endMs + highestMs + write.ttlMs + ROUNDING_MS;
}

export function newer(a: Known, b: Known): Known {
  const order = compareVersions(a.version, b.version);
  return order > 0 || (order === 0 && a.write !== undefined) ? a : b;
}
