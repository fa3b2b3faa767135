import type { Clock } from '../../common/clock.ts';
import type { Disk, DiskFile } from './disk.ts';
import { encodeGroup, entrySeed, GROUP_BYTES, type CeilingValues } from './entry.ts';
import type { StoreLimits } from './limits.ts';
import { segmentsToDrop } from './log-trim.ts';
import { encodeSegmentHead, SEGMENT_HEAD_BYTES, segmentName } from './segment.ts';

/** A segment on disk. */
export interface Segment {
  readonly number: number;
  readonly firstSequence: number;
  readonly madeAtMs: number;
  /** Synced bytes. */
  bytes: number;
}

/** The entries of one group, encoded. */
export interface EncodedGroup {
  /** Sequence of the entry before the group. */
  readonly sequence: number;
  readonly buffers: readonly Buffer[];
  readonly bytes: number;
}

export interface ApplyLogOptions {
  readonly disk: Disk;
  readonly storeId: Buffer;
  /** What recovery found, oldest first. Never appended to: a start always begins a segment of its own. */
  readonly segments: readonly Segment[];
  readonly clock: Clock;
  readonly limits: Pick<StoreLimits, 'segmentBytes' | 'logBytes' | 'logAgeMs' | 'logKeepMs'>;
}

/** The segment files of the apply log: writes groups, begins new segments, drops old ones. */
export class ApplyLog {
  /** What the checksums of the entries start from. */
  readonly seed: number;
  /** Oldest first; the last one is being written. */
  readonly segments: Segment[];
  private readonly options: ApplyLogOptions;
  private active: { readonly segment: Segment; readonly file: DiskFile } | undefined;
  private trimming: Promise<void> | undefined;

  constructor(options: ApplyLogOptions) {
    this.options = options;
    this.seed = entrySeed(options.storeId);
    this.segments = [...options.segments];
  }

  /** Sequence before the first one that is still here. */
  get start(): number {
    return (this.segments[0]?.firstSequence ?? 1) - 1;
  }

  /** As `Store.sequenceSince`. */
  sequenceSince(wallMs: number): number {
    // What precedes a segment was written before it was made. A clock that was set back makes later segments seem old.
    const newer = this.segments.findIndex(({ madeAtMs }) => madeAtMs >= wallMs);
    const last = this.segments.at(newer === -1 ? -1 : Math.max(0, newer - 1));
    return (last?.firstSequence ?? 1) - 1;
  }

  get bytes(): number {
    return this.segments.reduce((sum, segment) => sum + segment.bytes, 0);
  }

  /**
   * Writes and syncs one group; one at a time. Any error is final: the file may hold anything, and the store must be
   * opened anew.
   */
  async write(group: EncodedGroup, ceilings: CeilingValues): Promise<void> {
    const size = GROUP_BYTES + group.bytes;
    const active = this.active;
    if (active !== undefined && active.segment.bytes + size <= this.options.limits.segmentBytes) {
      const head = encodeGroup(
        { sequence: group.sequence, offset: active.segment.bytes, ceilings },
        this.seed,
      );
      await active.file.append([head, ...group.buffers]);
      await active.file.sync();
      active.segment.bytes += size;
      return;
    }
    await this.beginSegment(group, ceilings);
    await active?.file.close();
  }

  /** Head and first group go in one write: a segment without a whole group never counted. */
  private async beginSegment(group: EncodedGroup, ceilings: CeilingValues): Promise<void> {
    const { disk, storeId, clock } = this.options;
    const number = (this.segments.at(-1)?.number ?? 0) + 1;
    const segment = {
      number,
      firstSequence: group.sequence + 1,
      madeAtMs: Math.max(0, clock.wallMs()),
      bytes: SEGMENT_HEAD_BYTES + GROUP_BYTES + group.bytes,
    };
    const groupHead = encodeGroup(
      { sequence: group.sequence, offset: SEGMENT_HEAD_BYTES, ceilings },
      this.seed,
    );
    const file = await disk.create(segmentName(number));
    this.active = { segment, file };
    await file.append([encodeSegmentHead({ ...segment, storeId }), groupHead, ...group.buffers]);
    await file.sync();
    await disk.syncDir();
    this.segments.push(segment);
  }

  /**
   * Drops the segments that are in the state and acknowledged by every peer, or beyond the caps. Any error is final: what
   * a directory holds is unknown after a sync of it has failed.
   */
  trim(progress: { checkpointed: number; acknowledged: number }): Promise<void> {
    this.trimming ??= this.dropOld(progress).finally(() => {
      this.trimming = undefined;
    });
    return this.trimming;
  }

  private async dropOld(progress: { checkpointed: number; acknowledged: number }): Promise<void> {
    const { disk, clock, limits } = this.options;
    const count = segmentsToDrop(this.segments, { ...progress, nowMs: clock.wallMs() }, limits);
    if (count === 0) return;
    // Readers are told first; a file that is gone from under one is one that it may no longer ask for.
    for (const segment of this.segments.splice(0, count)) await disk.remove(segmentName(segment.number));
    await disk.syncDir();
  }

  /** Closes the file; does not sync. Idempotent. */
  async close(): Promise<void> {
    await this.trimming?.catch(() => undefined);
    await this.active?.file.close();
  }
}
