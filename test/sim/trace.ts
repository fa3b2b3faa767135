import { crc32 } from 'node:zlib';

const MOST_LINES = 20_000;

/**
 * What happened, as a number that differs when anything differs: equal for two runs of one seed. With `keep` also the last
 * lines of it for a person.
 */
export class Trace {
  readonly lines: string[] = [];
  /** Counts what log messages and faults said, for the coverage. */
  readonly seen = new Map<string, number>();
  private readonly keep: boolean;
  private readonly now: () => number;
  private first = 0x811c9dc5;
  private second = 0;
  private mixed = 0;

  constructor(now: () => number, keep: boolean) {
    this.now = now;
    this.keep = keep;
  }

  /** 64 bits of everything mixed in so far. */
  get hash(): string {
    return [this.first, this.second].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('');
  }

  /** Adds numbers to the hash. */
  mix(a: number, b = 0): void {
    this.mixed += 1;
    this.first = Math.imul(this.first ^ a, 0x01000193) ^ (b + this.mixed);
    this.second = (Math.imul(this.second, 31) + (this.first >>> 7) + Math.floor(this.now() * 1000)) | 0;
  }

  mixBytes(bytes: Buffer, tag: number): void {
    this.mix(crc32(bytes), tag);
  }

  /** Notes something worth counting; `detail` is written only when lines are kept. */
  note(what: string, detail?: () => string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
    this.mix(crc32(what), 1);
    if (this.keep) this.line(detail === undefined ? what : `${what} ${detail()}`);
  }

  /** A line of the history; not counted, not in the hash. */
  line(text: string): void {
    if (!this.keep) return;
    this.lines.push(`${this.now().toFixed(2).padStart(10)}  ${text}`);
    if (this.lines.length > 2 * MOST_LINES) this.lines.splice(0, MOST_LINES);
  }

  get keeps(): boolean {
    return this.keep;
  }

  count(what: string, amount: number): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + amount);
  }
}
