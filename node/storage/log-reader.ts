import { KvError } from '../../common/errors.ts';
import type { ApplyLog, Segment } from './apply-log.ts';
import type { Disk } from './disk.ts';
import { decodeEntry, FLAG, frameBytes, KIND, readFrame, type Frame } from './entry.ts';
import { entryBytes } from './own-tail.ts';
import { SEGMENT_HEAD_BYTES, segmentName } from './segment.ts';
import type { EntrySlice, RecordEntry } from './store.ts';

/** Bytes read from a file at once. */
const WINDOW_BYTES = 256 * 1024;
/** Bytes looked through by one call; entries of others may fill whole segments. */
const SCAN_BYTES = 4 * 1024 * 1024;
const MAX_PLACES = 32;

interface Place {
  readonly segment: number;
  readonly offset: number;
}

/** What to read: record entries in (after, until], everything up to `until` being synced. */
export interface LogRange {
  readonly after: number;
  readonly until: number;
  /** Bytes of entries, one larger entry excepted. */
  readonly maxBytes: number;
  readonly ownOnly: boolean;
}

/**
 * Reads record entries back from the segment files. Where a call ended is remembered, so that a peer that reads on does
 * not search again.
 */
export class LogReader {
  private readonly disk: Disk;
  private readonly log: ApplyLog;
  /** Where the entries after a sequence begin. */
  private readonly places = new Map<number, Place>();

  constructor(disk: Disk, log: ApplyLog) {
    this.disk = disk;
    this.log = log;
  }

  /**
   * The entries of a range; may stop early.
   *
   * @throws KvError OUT_OF_RANGE when the log begins after `after`; DATA_LOSS when a segment is damaged.
   */
  async read(range: LogRange): Promise<EntrySlice> {
    const { after, until } = range;
    const collected = new Collected(range);
    try {
      for (;;) {
        const segment = this.segmentAfter(collected.through);
        await this.scan(segment, collected);
        if (collected.done || collected.through >= until) break;
        // Trimmed while this segment was read: what follows it is gone, and must not be passed over.
        if (this.log.start > collected.through) {
          if (collected.through > after) break;
          throw outOfRange(after, this.log.start);
        }
        const following = this.log.segments.find(({ number }) => number > segment.number);
        collected.through = Math.min(until, following === undefined ? until : following.firstSequence - 1);
        if (following === undefined || collected.through >= until) break;
      }
    } catch (error) {
      // Trimmed while it was read.
      if (!(error instanceof KvError) && after < this.log.start) throw outOfRange(after, this.log.start);
      throw error;
    }
    return { after, through: collected.through, entries: collected.entries };
  }

  /** The segment that holds the sequence after `sequence`, or is the last one before it. */
  private segmentAfter(sequence: number): Segment {
    const segment = this.log.segments.findLast(({ firstSequence }) => firstSequence <= sequence + 1);
    if (segment === undefined) throw outOfRange(sequence, this.log.start);
    return segment;
  }

  private async scan(segment: Segment, collected: Collected): Promise<void> {
    const name = segmentName(segment.number);
    const end = segment.bytes;
    const place = this.places.get(collected.through);
    let offset = place?.segment === segment.number ? place.offset : SEGMENT_HEAD_BYTES;
    let wanted = WINDOW_BYTES;
    while (offset < end && !collected.done) {
      const window = await this.disk.read(name, { offset, length: Math.min(wanted, end - offset) });
      const { next, incomplete } = scanWindow(window, this.log.seed, collected);
      if (incomplete && next === 0) {
        wanted = frameBytes(window, 0);
        if (wanted <= window.length || offset + wanted > end) throw damaged(segment, offset);
        continue;
      }
      offset += next;
      wanted = WINDOW_BYTES;
    }
    if (collected.done) this.remember(collected.through, { segment: segment.number, offset });
  }

  private remember(sequence: number, place: Place): void {
    this.places.delete(sequence);
    this.places.set(sequence, place);
    const [oldest] = this.places.keys();
    if (this.places.size > MAX_PLACES && oldest !== undefined) this.places.delete(oldest);
  }
}

/** Takes the whole entries of a window: where the next one begins, and whether it is not all there. */
function scanWindow(
  window: Buffer,
  seed: number,
  collected: Collected,
): { next: number; incomplete: boolean } {
  let at = 0;
  while (at < window.length && !collected.done) {
    const frame = readFrame(window, at, seed);
    if (frame === undefined) return { next: at, incomplete: true };
    if (!collected.take(window, frame)) break;
    at = frame.end;
  }
  return { next: at, incomplete: false };
}

/** What one call has gathered. */
class Collected {
  readonly entries: RecordEntry[] = [];
  /** Everything up to here has been looked at. */
  through: number;
  done = false;
  private readonly range: LogRange;
  private bytes = 0;
  private scanned = 0;

  constructor(range: LogRange) {
    this.through = range.after;
    this.range = range;
  }

  /** False when the entry is to be left for the next call. */
  take(window: Buffer, frame: Frame): boolean {
    this.scanned += frame.end - frame.start;
    if (frame.kind !== KIND.group && frame.kind !== KIND.cleanEnd && frame.sequence > this.through) {
      const { until, ownOnly } = this.range;
      if (frame.sequence > until) {
        this.through = until;
        this.done = true;
        return false;
      }
      const wanted = frame.kind === KIND.record && (!ownOnly || (frame.flags & FLAG.own) !== 0);
      if (wanted && !this.keep(window, frame)) {
        this.done = true;
        return false;
      }
      this.through = frame.sequence;
    }
    this.done = this.scanned >= SCAN_BYTES;
    return true;
  }

  private keep(window: Buffer, frame: Frame): boolean {
    const entry = decodeEntry(window, frame);
    if (entry?.kind !== 'record') return true;
    const { sequence, own, key, record, requestId } = entry;
    const kept: RecordEntry = { sequence, own, key, record, requestId };
    this.bytes += entryBytes(kept);
    if (this.entries.length > 0 && this.bytes > this.range.maxBytes) return false;
    this.entries.push(kept);
    return true;
  }
}

/** The error for a reader whose place has been trimmed away. */
export function outOfRange(after: number, start: number): KvError {
  return new KvError(
    'OUT_OF_RANGE',
    `the log begins after ${start}, and cannot resume after ${after}: compare records`,
  );
}

function damaged(segment: Segment, offset: number): KvError {
  return new KvError('DATA_LOSS', `log segment ${segment.number} is damaged at byte ${offset}`);
}
