import type { Clock } from '../../../common/clock.ts';
import { SteadyWall } from './steady-wall.ts';

/** What mints versions: the hybrid clock. */
export interface MintClock {
  /** No version is minted with a lower wall clock any more, also not after a restart, milliseconds. */
  readonly floorMs: number;
  /** Mints nothing below `wallMs` any more, as far as the durable ceiling allows. */
  leaveBehind(wallMs: number): void;
}

export interface LowWaterOptions {
  readonly clock: Clock;
  readonly mintClock: MintClock;
  /** Sequence of the newest own entry in the log, at start. */
  readonly head: number;
  /** The clock value up to which versions may be minted without waiting. */
  readonly ceilingMs: () => number;
  /** Resolves when that value is at least `wallMs`, durably. */
  readonly raiseCeiling: (wallMs: number) => Promise<void>;
  /** How far the floor of a node that writes nothing stays behind its clock, milliseconds. */
  readonly lagMs: number;
}

/** Everything appended through `head` was minted before nothing was minted below `floorMs` any more. */
interface Note {
  readonly head: number;
  floorMs: number;
}

const MOST_NOTES = 64;

/**
 * The low water mark of this node: a wall clock below which each of its own versions is held durably by every replica
 * of its partition, itself included, and no further one will be minted (PROTOCOL 22).
 *
 * No entry is followed on its own. Now and then it notes how far the own log is and below what nothing will be minted
 * from then on: everything that comes later is above that floor, so once all have acknowledged the log up to the note,
 * the floor is the mark. Own entries with older versions come when peers give back what this node had lost; they lower
 * the mark until they are acknowledged.
 *
 * It begins as unknown at every start, for it costs one round of acknowledgements to know it again. What is found in
 * the log then counts as minted before the first note.
 */
export class LowWater {
  private readonly options: LowWaterOptions;
  private readonly steady: SteadyWall;
  private notes: Note[] = [];
  /** Newest own entry, synced or not, shown to peers or not. */
  private head: number;
  private acknowledgedThrough = 0;
  private markMs = 0;
  /** Entries with versions below a noted floor. */
  private late: { through: number; wallMs: number } | undefined;
  private raising = false;

  constructor(options: LowWaterOptions) {
    this.options = options;
    this.head = options.head;
    this.steady = new SteadyWall(options.clock, options.lagMs);
  }

  /** Milliseconds since 1970; 0 while it is not known. */
  get valueMs(): number {
    return this.late === undefined ? this.markMs : Math.min(this.markMs, this.late.wallMs);
  }

  /** An own entry was appended: to be told of each, in the turn in which its version was minted. */
  appended(sequence: number, wallMs: number): void {
    this.head = Math.max(this.head, sequence);
    if (wallMs >= Math.max(this.markMs, this.notes.at(-1)?.floorMs ?? 0)) return;
    this.late = {
      through: Math.max(this.late?.through ?? 0, sequence),
      wallMs: Math.min(this.late?.wallMs ?? wallMs, wallMs),
    };
  }

  /**
   * To be called at every heartbeat.
   *
   * @param acknowledgedThrough how far the own log is durable here and at every member that holds a partition with this
   *   node; what a member acknowledged beyond a gap does not count.
   * @param advance whether the clock may be followed: it is not known to be off, and somebody can make use of it.
   */
  note(acknowledgedThrough: number, advance: boolean): void {
    if (advance) this.follow();
    else this.steady.reset();
    const { floorMs } = this.options.mintClock;
    const newest = this.notes.at(-1);
    if (newest?.head === this.head) newest.floorMs = Math.max(newest.floorMs, floorMs);
    else this.notes.push({ head: this.head, floorMs });
    this.acknowledgedThrough = acknowledgedThrough;
    this.settle();
  }

  /** This node goes on as a new incarnation: its log counts as acknowledged by nobody. */
  restart(): void {
    this.notes = [];
    this.late = undefined;
    this.acknowledgedThrough = 0;
    this.markMs = 0;
    this.steady.reset();
  }

  private settle(): void {
    const acknowledged = this.acknowledgedThrough;
    const settled = this.notes.findLast((note) => note.head <= acknowledged);
    if (settled !== undefined) {
      this.markMs = Math.max(this.markMs, settled.floorMs);
      this.notes = this.notes.filter((note) => note.head > settled.head);
    }
    if (this.late !== undefined && this.late.through <= acknowledged) this.late = undefined;
    // A peer that has been away for long leaves many: fewer of them only make the mark rise in larger steps.
    if (this.notes.length > MOST_NOTES) {
      this.notes = this.notes.filter((_note, index) => index % 2 === 0 || index === this.notes.length - 1);
    }
  }

  /** A node that writes nothing must not hold the others back: its floor follows its clock at a distance. */
  private follow(): void {
    const { clock, mintClock, ceilingMs, raiseCeiling, lagMs } = this.options;
    const wallMs = this.steady.read();
    if (wallMs === undefined) return;
    mintClock.leaveBehind(wallMs);
    if (wallMs <= ceilingMs() || this.raising) return;
    this.raising = true;
    // Up to the clock and no further, for the next start begins there; then it lasts for a while.
    raiseCeiling(Math.min(wallMs + lagMs, clock.wallMs()))
      .catch(() => undefined) // The store has failed, and the node ends.
      .finally(() => {
        this.raising = false;
      });
  }
}
