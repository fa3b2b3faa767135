import { build, type Histogram } from 'hdr-histogram-js';
import type { Driver, Found } from './driver.ts';
import { keyBuffer } from './key-buffers.ts';
import { keyChooser, type KeyChooser } from './key-chooser.ts';
import { keyName, LISTED_KEYS, type Measurement, type Work } from './work.ts';

/** Share of the time that counts, before it: connections, compiled code and batches settle meanwhile. */
const WARM_UP = 0.25;
/** Ten minutes; anything slower has failed long before. */
const HIGHEST_MICROSECONDS = 600_000_000;
const VALUES = 16;

/** Does the work with as many loops as operations may be under way, each waiting for its own operation (closed loop). */
export async function runWork(drivers: readonly Driver[], work: Work): Promise<Measurement> {
  const run = new Run(work);
  const lanes = Array.from({ length: work.inFlight }, (_, lane) => {
    const driver = drivers[lane % drivers.length];
    if (driver === undefined) throw new Error('there is no driver');
    return run.lane(driver);
  });
  await Promise.all(lanes);
  return run.measurement();
}

class Run {
  private readonly work: Work;
  private readonly keys: KeyChooser;
  private readonly values: readonly Buffer[];
  private readonly microseconds: Histogram = build({
    bitBucketSize: 32,
    autoResize: false,
    highestTrackableValue: HIGHEST_MICROSECONDS,
    numberOfSignificantValueDigits: 3,
  });
  private readonly countFromMs: number;
  private readonly endMs: number;
  private readonly inserts: Inserts;
  private lastEndMs: number;
  private longestPauseMs = 0;
  private slowestMs = 0;
  private errors = 0;
  private misses = 0;
  private firstError: string | undefined;

  constructor(work: Work) {
    this.work = work;
    this.keys = keyChooser(work.choice, work.keys);
    this.values = valuesOf(work.valueBytes);
    this.inserts = new Inserts(work.keys);
    this.countFromMs = performance.now() + work.durationMs * WARM_UP;
    this.endMs = this.countFromMs + work.durationMs;
    this.lastEndMs = this.countFromMs;
  }

  private readonly check = (found: Found | undefined): void => {
    if (found?.value.length !== this.work.valueBytes) this.misses += 1;
  };

  async lane(driver: Driver): Promise<void> {
    for (;;) {
      const startMs = performance.now();
      if (startMs >= this.endMs) return;
      try {
        await this.operation(driver);
        this.ended(startMs, performance.now());
      } catch (error) {
        this.errors += 1;
        this.firstError ??= error instanceof Error ? error.message : String(error);
      }
    }
  }

  measurement(): Measurement {
    const atMs = (percentile: number): number => this.microseconds.getValueAtPercentile(percentile) / 1000;
    const operations = this.microseconds.totalCount;
    // Until the end of the run, when nothing ended any more.
    this.paused(this.endMs);
    return {
      operations,
      opsPerSecond: operations / (this.work.durationMs / 1000),
      p50Ms: atMs(50),
      p90Ms: atMs(90),
      p99Ms: atMs(99),
      p999Ms: atMs(99.9),
      maxMs: this.slowestMs,
      errors: this.errors,
      firstError: this.firstError,
      misses: this.misses,
      longestPauseMs: this.longestPauseMs,
    };
  }

  private operation(driver: Driver): Promise<unknown> {
    const { work } = this;
    if (work.list) return this.list(driver);
    const dice = work.readShare === 0 || work.readShare === 1 ? 0 : Math.random();
    if (work.readShare > 0 && dice < work.readShare) return this.read(driver);
    if (work.insertShare > 0) return this.insert(driver);
    return driver.put(this.key(this.keys.next()), this.value());
  }

  private read(driver: Driver): Promise<void> {
    return driver.get(this.key(this.keys.next()), this.work.strongReads).then(this.check);
  }

  private async insert(driver: Driver): Promise<void> {
    const index = this.inserts.begin();
    await driver.put(this.key(index), this.value());
    this.keys.inserted(this.inserts.end(index));
  }

  private async list(driver: Driver): Promise<void> {
    const group = Math.floor(this.keys.next() / LISTED_KEYS);
    const name = keyName(this.work.prefix, group * LISTED_KEYS);
    const found = await driver.list(name.slice(0, -String(LISTED_KEYS - 1).length));
    if (found !== LISTED_KEYS) this.misses += 1;
  }

  private key(index: number): Buffer {
    return keyBuffer(this.work.prefix, index);
  }

  private value(): Buffer {
    return this.values[Math.floor(Math.random() * VALUES)] ?? Buffer.alloc(0);
  }

  private ended(startMs: number, endMs: number): void {
    if (endMs < this.countFromMs) return;
    // Also of those that end when nothing is counted any more: one that hung would hide there.
    this.slowestMs = Math.max(this.slowestMs, endMs - startMs);
    if (endMs > this.endMs) return;
    this.microseconds.recordValue(Math.max(1, Math.round((endMs - startMs) * 1000)));
    this.paused(endMs);
  }

  private paused(nowMs: number): void {
    const pauseMs = nowMs - this.lastEndMs;
    if (pauseMs > this.longestPauseMs) this.longestPauseMs = pauseMs;
    this.lastEndMs = nowMs;
  }
}

/** Inserted keys end out of order; only those below every unfinished one are read. */
class Inserts {
  private nextIndex: number;
  private allBelow: number;
  private readonly done = new Set<number>();

  constructor(keys: number) {
    this.nextIndex = keys;
    this.allBelow = keys;
  }

  begin(): number {
    return this.nextIndex++;
  }

  /** How many keys there certainly are now. */
  end(index: number): number {
    this.done.add(index);
    while (this.done.delete(this.allBelow)) this.allBelow += 1;
    return this.allBelow;
  }
}

/** Random bytes: nothing on the way may save work by compressing. */
export function valuesOf(sizeBytes: number): readonly Buffer[] {
  return Array.from({ length: VALUES }, () => {
    const value = Buffer.alloc(sizeBytes);
    for (let at = 0; at < sizeBytes; at += 1) value[at] = Math.floor(Math.random() * 256);
    return value;
  });
}
