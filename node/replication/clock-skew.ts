import type { Clock } from '../../common/clock.ts';
import { lowerMedian } from '../../common/median.ts';

export interface ClockSkewOptions {
  readonly clock: Clock;
  /** How far this node's clock may be off before it coordinates no writes, milliseconds. */
  readonly boundMs: number;
  /** How long what a member said of its clock counts, milliseconds. */
  readonly freshMs: number;
}

export interface ClockSkewMetrics {
  gauge(name: 'clock_skew_ms' | 'clock_outlier', value: number): void;
}

/** What a member said: its wall clock less this node's monotonic clock when that came. */
interface Sample {
  readonly atMs: number;
  readonly baseMs: number;
}

/** Below this part of the bound a clock counts as right again. */
const CALM = 0.75;
const MOST_SAMPLES = 8;

/**
 * Compares this node's wall clock with those of the members it hears (PROTOCOL 10). One that is off by more than the
 * bound from the median of three or more, its own included, coordinates no writes: what it minted would win over what
 * others write for as long as it is ahead, or be beaten by what is older. Of two nobody can tell which is wrong: that is
 * an alarm only.
 *
 * Whatever is on its way looks older than it is, so the latest clock of a member is the most that any of its last
 * samples makes it. Samples are kept against the monotonic clock: a jump of the own wall clock shows at once.
 */
export class ClockSkew {
  private readonly options: ClockSkewOptions;
  private readonly samples = new Map<string, Sample[]>();
  private refusal: string | undefined;
  private warning: string | undefined;
  private skewMs: number | undefined;
  /** Evaluations in a row that found the clock off. */
  private found = 0;
  /** Own wall clock less monotonic clock at the last evaluation. */
  private baseMs: number;

  constructor(options: ClockSkewOptions) {
    this.options = options;
    this.baseMs = this.ownBaseMs;
  }

  /** A member has told its wall clock, in a Hello or a heartbeat. */
  heard(member: string, wallMs: number): void {
    const { clock } = this.options;
    const atMs = clock.monotonicMs();
    const samples = this.samples.get(member) ?? [];
    samples.push({ atMs, baseMs: wallMs - atMs });
    this.samples.set(member, samples.slice(-MOST_SAMPLES));
  }

  /** To be called at every heartbeat. */
  evaluate(metrics: ClockSkewMetrics): void {
    this.look();
    if (this.skewMs !== undefined) metrics.gauge('clock_skew_ms', this.skewMs);
    metrics.gauge('clock_outlier', this.refusal === undefined ? 0 : 1);
  }

  /** Why this node coordinates no writes, for a person; undefined when its clock is not known to be off. */
  get refuses(): string | undefined {
    this.lookIfJumped();
    return this.refusal;
  }

  /** What is wrong with clocks although this node goes on, for a person. */
  get alarm(): string | undefined {
    return this.warning;
  }

  /** Whether the own wall clock may be relied upon for what outlasts it. */
  get isSound(): boolean {
    this.lookIfJumped();
    return this.refusal === undefined && this.warning === undefined && this.found === 0;
  }

  /** This node's clock less the median, milliseconds; undefined while nobody else is heard. */
  get offsetMs(): number | undefined {
    return this.skewMs;
  }

  /** The wall clock of the member that is ahead of all, this node included, milliseconds since 1970. */
  get latestWallMs(): number {
    const latestMs = Math.max(this.ownBaseMs, ...this.latest().map(({ baseMs }) => baseMs));
    return latestMs + this.options.clock.monotonicMs();
  }

  private get ownBaseMs(): number {
    const { clock } = this.options;
    return clock.wallMs() - clock.monotonicMs();
  }

  /** Writes do not wait for the next heartbeat to find out that the clock was set. */
  private lookIfJumped(): void {
    if (Math.abs(this.ownBaseMs - this.baseMs) > this.options.boundMs / 2) this.look();
  }

  private look(): void {
    const { boundMs } = this.options;
    const own = this.ownBaseMs;
    const jumped = Math.abs(own - this.baseMs) > boundMs / 2;
    this.baseMs = own;
    const others = this.latest();
    const median = lowerMedian([0, ...others.map(({ baseMs }) => baseMs - own)]) ?? 0;
    this.skewMs = others.length === 0 ? undefined : -median;
    const offMs = Math.abs(median);
    const [other] = others;
    this.warning = undefined;
    if (others.length < 2 || other === undefined) {
      // Nobody can tell: what was found before holds, unless the clock has been set since.
      if (jumped) this.refusal = undefined;
      this.found = 0;
      const apartMs = other === undefined ? 0 : Math.abs(other.baseMs - own);
      if (apartMs > boundMs) {
        this.warning = `the clocks of this node and ${other?.member ?? ''} are ${seconds(apartMs)} apart, and nobody else is heard who could tell which one is wrong`;
      }
      return;
    }
    if (offMs <= (this.refusal === undefined ? boundMs : CALM * boundMs)) {
      this.refusal = undefined;
      this.found = 0;
      return;
    }
    this.found += 1;
    // One look may meet members whose words are all late; a clock that was just set needs no second one.
    if (this.refusal === undefined && this.found < 2 && !jumped) return;
    const direction = median < 0 ? 'ahead of' : 'behind';
    this.refusal = `the clock of this node is ${seconds(offMs)} ${direction} the median of ${others.length + 1} members: set it right`;
  }

  /** The clock of each member that was heard lately, as samples are. */
  private latest(): readonly { readonly member: string; readonly baseMs: number }[] {
    const { clock, freshMs } = this.options;
    const now = clock.monotonicMs();
    const members: { member: string; baseMs: number }[] = [];
    for (const [member, all] of this.samples) {
      const samples = all.filter(({ atMs }) => now - atMs <= freshMs);
      if (samples.length === 0) this.samples.delete(member);
      else members.push({ member, baseMs: Math.max(...samples.map(({ baseMs }) => baseMs)) });
    }
    return members;
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
