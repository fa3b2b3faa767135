import type { Clock } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { compareVersions, MAX_COUNTER, MAX_WALL_MS, type Version } from '../../model/version.ts';
import type { Store } from '../storage/store.ts';
import { readJsonMeta, writeJsonMeta } from '../cluster/json-meta.ts';

/** What the clock works with. */
export interface HybridClockOptions {
  readonly clock: Clock;
  readonly store: Store;
  /** The incarnation that mints. */
  readonly writer: () => number;
  /** How far ahead of the wall clock a foreign version may be and still move this clock, milliseconds. */
  readonly skewBoundMs: number;
  /** How far ahead of use ceilings are raised, milliseconds. */
  readonly ceilingStepMs: number;
}

interface Reading {
  readonly wallMs: number;
  readonly counter: number;
}

const FAR_META = 'far-clock-ceiling';
const FAR_FORMAT = 1;

/**
 * Mints versions: max(clock, version seen for the key) + 1 (PROTOCOL 1), never above a ceiling that is durable, so that
 * no version is minted twice over a restart.
 *
 * A key may hold a version from a node whose clock was far ahead. Overwriting it takes a version above it, but must
 * not drag every later version along (PROTOCOL 10): such versions are minted in a lane of their own with its own ceiling.
 */
export class HybridClock {
  private readonly options: HybridClockOptions;
  private last: Reading;
  private far: Reading;
  private farCeilingMs: number;

  constructor(options: HybridClockOptions) {
    this.options = options;
    // Everything up to the ceilings may have been minted before this start.
    this.last = { wallMs: options.store.clockCeilingMs, counter: MAX_COUNTER };
    const stored = readJsonMeta(options.store, FAR_META, FAR_FORMAT) as { wallMs: number } | undefined;
    this.farCeilingMs = stored?.wallMs ?? 0;
    this.far = { wallMs: this.farCeilingMs, counter: MAX_COUNTER };
  }

  /** The next version for a key that holds `seen`; undefined while a ceiling is in the way: await `raise` and try again. */
  mint(seen: Version): Version | undefined {
    const tick = this.tick();
    const above = next(seen);
    if (this.isFar(seen) && compare(above, tick) > 0) {
      const reading = newest(above, next(this.far));
      if (reading.wallMs > this.farCeilingMs) return undefined;
      this.far = reading;
      return this.versionAt(reading);
    }
    const reading = newest(tick, above);
    if (reading.wallMs > this.options.store.clockCeilingMs) return undefined;
    this.last = reading;
    return this.versionAt(reading);
  }

  /** Makes room for the next `mint(seen)`; durable when it resolves. */
  async raise(seen: Version): Promise<void> {
    const { store, ceilingStepMs } = this.options;
    const tick = this.tick();
    const above = next(seen);
    if (this.isFar(seen) && compare(above, tick) > 0) {
      const wallMs = newest(above, next(this.far)).wallMs + ceilingStepMs;
      await writeJsonMeta(store, FAR_META, FAR_FORMAT, { wallMs });
      this.farCeilingMs = Math.max(this.farCeilingMs, wallMs);
      return;
    }
    await store.raiseClockCeiling(Math.min(newest(tick, above).wallMs + ceilingStepMs, MAX_WALL_MS));
  }

  /** Follows a version received from elsewhere; false when it is beyond the skew bound and was ignored. */
  observe(version: Version): boolean {
    if (this.isFar(version)) return false;
    if (compare(version, this.last) > 0) this.last = { wallMs: version.wallMs, counter: version.counter };
    return true;
  }

  /** No version is minted with a lower wall clock any more, also not after a restart, which begins at the ceiling. */
  get floorMs(): number {
    return Math.min(this.last.wallMs, this.options.store.clockCeilingMs);
  }

  /** Mints nothing below `wallMs` any more, as far as the durable ceiling allows. */
  leaveBehind(wallMs: number): void {
    const nextMs = Math.min(wallMs, this.options.store.clockCeilingMs);
    if (nextMs > this.last.wallMs) this.last = { wallMs: nextMs, counter: 0 };
  }

  private isFar(version: Version): boolean {
    return version.wallMs > this.options.clock.wallMs() + this.options.skewBoundMs;
  }

  private tick(): Reading {
    const wallMs = this.options.clock.wallMs();
    return wallMs > this.last.wallMs ? { wallMs, counter: 0 } : next(this.last);
  }

  private versionAt({ wallMs, counter }: Reading): Version {
    return { wallMs, counter, writer: this.options.writer() };
  }
}

function next({ wallMs, counter }: Reading): Reading {
  if (counter < MAX_COUNTER) return { wallMs, counter: counter + 1 };
  if (wallMs >= MAX_WALL_MS) throw new KvError('INTERNAL', 'the clock has reached the end of its range');
  return { wallMs: wallMs + 1, counter: 0 };
}

function compare(a: Reading, b: Reading): number {
  return compareVersions({ ...a, writer: 0 }, { ...b, writer: 0 });
}

function newest(a: Reading, b: Reading): Reading {
  return compare(a, b) >= 0 ? a : b;
}
