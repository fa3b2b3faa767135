import {
  decodeEntry,
  decodeGroup,
  groupFollows,
  KIND,
  readFrame,
  type CeilingValues,
  type LogEntry,
} from './entry.ts';
import { SEGMENT_HEAD_BYTES } from './segment.ts';
import { StoreCorrupt } from './store-errors.ts';

/** What recovery learns from a segment. */
export interface SegmentScan {
  /** Where the sound part ends; less than the file's size when a crash tore the last write. */
  readonly end: number;
  /** Highest sequence of an entry; undefined when there is none. */
  readonly lastSequence: number | undefined;
  /** Highest ceilings of its groups; undefined when there is no group. */
  readonly ceilings: CeilingValues | undefined;
  /** Sequence of a clean end, when nothing follows it. */
  readonly cleanEnd: number | undefined;
}

export interface ScanOptions {
  readonly number: number;
  /** Checksum seed of the store (entry.ts). */
  readonly seed: number;
  /** Whether this is the newest segment, the only one that a crash can have torn. */
  readonly last: boolean;
  /** Entries up to this sequence are not handed out. */
  readonly after: number;
  readonly onEntry: (entry: LogEntry) => void;
}

/**
 * Reads a whole segment, whose head has been checked, and hands out its entries in order.
 *
 * Damage after which no group begins is the end of a write that was not synced, and nobody was told that it was: it
 * is to be cut. A write may reach the disk in any order, so sound entries behind the damage prove nothing, but a sound
 * group does: it was only begun when everything before it was synced.
 *
 * @throws StoreCorrupt for damage to what had been synced.
 */
export function scanSegment(bytes: Buffer, options: ScanOptions): SegmentScan {
  const { number, seed } = options;
  let at = SEGMENT_HEAD_BYTES;
  let lastSequence: number | undefined;
  let groupSequence: number | undefined;
  let ceilings: CeilingValues | undefined;
  let cleanEnd: number | undefined;
  while (at < bytes.length) {
    const frame = readFrame(bytes, at, seed);
    if (frame === undefined) {
      if (!options.last || groupFollows(bytes, at, seed)) {
        throw new StoreCorrupt(
          `log segment ${number} is damaged at byte ${at}, before entries that are sound`,
        );
      }
      break;
    }
    cleanEnd = undefined;
    if (frame.kind === KIND.group) {
      const values = decodeGroup(bytes, frame);
      if (values === undefined)
        throw new StoreCorrupt(`log segment ${number} has a misplaced group at byte ${at}`);
      ceilings = highest(ceilings, values);
      groupSequence = frame.sequence;
    } else if (groupSequence === undefined) {
      throw new StoreCorrupt(`log segment ${number} does not begin with a group`);
    } else if (frame.kind === KIND.cleanEnd) {
      cleanEnd = frame.sequence;
    } else {
      if (frame.sequence <= (lastSequence ?? groupSequence)) {
        throw new StoreCorrupt(`log segment ${number} repeats sequence ${frame.sequence}`);
      }
      lastSequence = frame.sequence;
      if (frame.sequence > options.after) {
        const entry = decodeEntry(bytes, frame);
        if (entry !== undefined) options.onEntry(entry);
      }
    }
    at = frame.end;
  }
  return { end: at, lastSequence, ceilings, cleanEnd };
}

/** The higher of each ceiling. */
export function highest(a: CeilingValues | undefined, b: CeilingValues): CeilingValues {
  return {
    sequence: Math.max(a?.sequence ?? 0, b.sequence),
    clockMs: Math.max(a?.clockMs ?? 0, b.clockMs),
  };
}
