import { isTombstone, NUMBERS_OF_LIFE, partitionAt } from './expected.ts';
import type { Holdings, Told } from './messages.ts';

interface KeyPromise {
  /** Highest number that was acknowledged, or found after an opening; 0: none. */
  number: number;
  /** That record is a tombstone which may be gone, or is gone for good. */
  removal: 'none' | 'begun' | 'done';
}

/** What a store has promised over all its lives, kept outside of the process that may be killed at any moment. */
export class Ledger {
  acknowledged = 0;
  private readonly keyCount: number;
  private keys: KeyPromise[] = [];
  private cursor = 0;
  private meta = 0;
  private ceilingMs = 0;

  constructor(keys: number) {
    this.keyCount = keys;
    this.forget();
  }

  /** The store was set aside: a blank one has promised nothing. */
  forget(): void {
    this.keys = Array.from({ length: this.keyCount }, () => ({ number: 0, removal: 'none' }));
    this.cursor = this.meta = this.ceilingMs = 0;
  }

  /** Takes down what the process told. */
  note(told: Told): void {
    switch (told.kind) {
      case 'written':
        for (let at = 0; at < told.pairs.length; at += 2)
          this.written(told.pairs[at] ?? 0, told.pairs[at + 1] ?? 0);
        break;
      case 'removing':
        for (const [index, promise] of this.keys.entries()) {
          const { number, removal } = promise;
          const mayGo =
            partitionAt(index) === told.partition && number < told.below && isTombstone(index, number);
          if (mayGo && removal === 'none') promise.removal = 'begun';
        }
        break;
      case 'removed':
        for (const index of told.indexes) {
          const promise = this.keys[index];
          if (promise?.removal === 'begun') promise.removal = 'done';
        }
        break;
      case 'cursor':
        this.cursor = Math.max(this.cursor, told.sequence);
        break;
      case 'meta':
        this.meta = Math.max(this.meta, told.value);
        break;
      case 'ceiling':
        this.ceilingMs = Math.max(this.ceilingMs, told.wallMs);
        break;
      case 'opened':
      case 'corrupt':
      case 'failed':
      case 'repaired':
      case 'closed':
        break;
    }
  }

  /**
   * Compares what a store holds with what was promised, one sentence for each difference, and takes what it holds as
   * promised from now on.
   *
   * @param life - of the process; it cannot hold what later ones write.
   */
  settle(
    holds: Holdings,
    life: number,
  ): { readonly wrong: readonly string[]; readonly repair: readonly number[] } {
    const wrong = [...holds.wrong];
    const repair: number[] = [];
    for (const [index, promise] of this.keys.entries()) {
      const found = holds.numbers[index] ?? 0;
      const damaged = holds.damagedPartitions.includes(partitionAt(index));
      // A key that is damaged itself cannot be found, and a scan comes upon a key that nobody wrote.
      const lost =
        found === -1 || (damaged && found === 0 && promise.removal === 'none' && promise.number > 0);
      if (lost) {
        if (promise.number > 0) repair.push(index, promise.number);
        promise.removal = 'none';
        continue;
      }
      const complaint = complaintAbout(index, promise, found);
      if (complaint !== undefined) wrong.push(complaint);
      else if (found >= life * NUMBERS_OF_LIFE)
        wrong.push(`key ${index} has number ${found}, which is still to come`);
      if (found > promise.number) Object.assign(promise, { number: found, removal: 'none' });
    }
    if (holds.cursor < this.cursor) wrong.push(`the cursor went back from ${this.cursor} to ${holds.cursor}`);
    if (holds.meta < this.meta) wrong.push(`the metadata went back from ${this.meta} to ${holds.meta}`);
    if (holds.clockCeilingMs < this.ceilingMs)
      wrong.push(`the clock's ceiling went back from ${this.ceilingMs} to ${holds.clockCeilingMs}`);
    return { wrong, repair };
  }

  private written(index: number, number: number): void {
    this.acknowledged += 1;
    const promise = this.keys[index];
    if (promise !== undefined && number > promise.number) Object.assign(promise, { number, removal: 'none' });
  }
}

function complaintAbout(index: number, { number, removal }: KeyPromise, found: number): string | undefined {
  if (found === 0)
    return number === 0 || removal !== 'none' ? undefined : `key ${index} is gone and had number ${number}`;
  if (found < number) return `key ${index} went back from number ${number} to ${found}`;
  if (found === number && removal === 'done')
    return `key ${index} has tombstone ${number} again, which was removed`;
  return undefined;
}
