import type { KeyChoice } from './work.ts';

/** Chooses the indexes of keys; `inserted` tells it of new ones. */
export interface KeyChooser {
  next(): number;
  inserted(count: number): void;
}

/** YCSB's constant: the skew that its core workloads use. */
const THETA = 0.99;
const HOT_KEYS = 0.1;
const HOT_OPERATIONS = 0.9;

export function keyChooser(choice: KeyChoice, keys: number, random: () => number = Math.random): KeyChooser {
  const fixed = (next: () => number): KeyChooser => ({ next, inserted: () => undefined });
  switch (choice) {
    case 'uniform':
      return fixed(() => Math.floor(random() * keys));
    case 'hot-cold': {
      const hot = Math.max(1, Math.floor(keys * HOT_KEYS));
      return fixed(() =>
        random() < HOT_OPERATIONS
          ? scattered(Math.floor(random() * hot), keys)
          : scattered(hot + Math.floor(random() * (keys - hot)), keys),
      );
    }
    case 'zipfian': {
      const rank = zipfian(keys, random);
      return fixed(() => scattered(rank(), keys));
    }
    case 'latest': {
      let count = keys;
      // The skew hardly changes while few keys are added: the constants of the start are kept.
      const age = zipfian(keys, random);
      return { next: () => Math.max(0, count - 1 - age()), inserted: (now) => (count = now) };
    }
  }
}

/**
 * Ranks from 0 with frequencies proportional to 1 / (rank + 1)^THETA, by the method of Gray et al., "Quickly generating
 * billion-record synthetic databases" (SIGMOD 1994), which YCSB uses as well.
 */
function zipfian(count: number, random: () => number): () => number {
  let zeta = 0;
  for (let rank = 1; rank <= count; rank += 1) zeta += 1 / rank ** THETA;
  const alpha = 1 / (1 - THETA);
  const zetaOfTwo = 1 + 0.5 ** THETA;
  const eta = (1 - (2 / count) ** (1 - THETA)) / (1 - zetaOfTwo / zeta);
  return () => {
    const uniform = random();
    const scaled = uniform * zeta;
    if (scaled < 1) return 0;
    if (scaled < zetaOfTwo) return 1;
    return Math.min(count - 1, Math.floor(count * (eta * uniform - eta + 1) ** alpha));
  };
}

/** A prime that divides no count of keys used here: multiplying by it is a permutation. */
const STRIDE = 7919;

/** A permutation of the keys, so that neighbours in popularity or in loading order are no neighbours on disk. */
export function scattered(index: number, keys: number): number {
  return (index * STRIDE) % keys;
}
