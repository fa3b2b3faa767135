import type { Random } from '../../common/random.ts';
import { seededRandom } from '../support/seeded-random.ts';

/** Everything random in a simulation comes from these, and so from its seed. */
export class Dice implements Random {
  private readonly random: Random;

  constructor(seed: number) {
    // Neighbouring seeds begin far from each other.
    this.random = seededRandom(Math.imul(seed ^ 0x5bd1e995, 0x9e3779b1) ^ (seed >>> 3));
  }

  fraction(): number {
    return this.random.fraction();
  }

  bytes(length: number): Buffer {
    return this.random.bytes(length);
  }

  /** Dice of their own for a part of the world, so that what one part throws does not change what others see. */
  fork(): Dice {
    return new Dice(Math.floor(this.fraction() * 2 ** 32));
  }

  /** An integer in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.fraction() * bound);
  }

  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  /** Uniform in [low, high). */
  between(low: number, high: number): number {
    return low + this.fraction() * (high - low);
  }

  /** Between the bounds, each order of magnitude as likely as any other. */
  spread(low: number, high: number): number {
    return low * (high / low) ** this.fraction();
  }

  /** The time until the next of events that come at random, `meanMs` apart on average. */
  wait(meanMs: number): number {
    return -meanMs * Math.log(1 - this.fraction());
  }

  pick<T>(choices: readonly T[]): T {
    const choice = choices[this.below(choices.length)];
    if (choice === undefined) throw new RangeError('nothing to pick from');
    return choice;
  }

  shuffled<T>(items: readonly T[]): T[] {
    const result = [...items];
    for (let index = result.length - 1; index > 0; index -= 1) {
      const other = this.below(index + 1);
      [result[index], result[other]] = [result[other]!, result[index]!];
    }
    return result;
  }
}
