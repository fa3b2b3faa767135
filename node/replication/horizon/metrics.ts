import type { FreezeKind } from './verdict.ts';

/** What collection counts and measures; a part of ReplicationMetrics (../metrics.ts). */
export interface CollectionMetrics {
  count(name: CollectionCounter, amount?: number): void;
  gauge(name: CollectionGauge, value: number): void;
}

export type CollectionCounter =
  /** Tombstones and expired records removed. */
  'collected_records';

export type CollectionGauge =
  /** Partitions held here whose horizon stands still, by reason. */
  | `collection_frozen_${FreezeKind}`
  /** This node's clock minus the lowest horizon of a partition held here, milliseconds. */
  | 'horizon_age_ms'
  /** Tombstones and records with an expiry, as far as they are known. */
  | 'collectable_records';
