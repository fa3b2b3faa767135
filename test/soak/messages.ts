/**
 * What the process with the store tells the test, a JSON line each, written before anything else happens: what stands
 * here was so when the process was killed.
 */
export type Told =
  /** The store is open, and holds this. */
  | { readonly kind: 'opened'; readonly holds: Holdings }
  /** The store cannot be trusted. */
  | { readonly kind: 'corrupt'; readonly message: string }
  /** The store cannot be opened, or has failed. */
  | { readonly kind: 'failed'; readonly message: string }
  /** Writing begins; what was damaged is as it was asked for. */
  | { readonly kind: 'repaired' }
  /** Acknowledged, pairs of key and number: [key, number, key, number, ...]. */
  | { readonly kind: 'written'; readonly pairs: readonly number[] }
  | { readonly kind: 'cursor'; readonly sequence: number }
  | { readonly kind: 'meta'; readonly value: number }
  | { readonly kind: 'ceiling'; readonly wallMs: number }
  /** Every tombstone of the partition below the number is to be removed. */
  | { readonly kind: 'removing'; readonly partition: number; readonly below: number }
  /** The tombstones of these keys are gone for good. */
  | { readonly kind: 'removed'; readonly indexes: readonly number[] }
  | { readonly kind: 'closed' };

/** Everything that a store answers when it was opened. */
export interface Holdings {
  /** By key: the number of its record; 0: it has none; -1: its record is damaged. */
  readonly numbers: readonly number[];
  /** Partitions in which a scan came upon a damaged record. */
  readonly damagedPartitions: readonly number[];
  /** Partitions whose digest was right only after a while: a damaged record had been replaced. */
  readonly countedAnew: readonly number[];
  readonly cursor: number;
  readonly meta: number;
  readonly clockCeilingMs: number;
  /** Sentences about what must never be. */
  readonly wrong: readonly string[];
}

/** What the test asks of the process. */
export type Asked =
  /** Puts records where they are damaged, then begins to write. */
  | {
      readonly kind: 'write';
      readonly damagedPartitions: readonly number[];
      /** Pairs of key and number. */
      readonly repair: readonly number[];
    }
  /** Stops writing and closes the store. */
  | { readonly kind: 'close' };
