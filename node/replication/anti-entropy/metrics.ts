/** What comparisons, fills and scrubbing count and measure. */
export interface AntiEntropyMetrics {
  count(name: AntiEntropyCounter, amount?: number): void;
  gauge(name: AntiEntropyGauge, value: number): void;
}

export type AntiEntropyCounter =
  /** Partitions compared with a peer: by their roots at least. */
  | 'compared_partitions'
  /** Records taken from peers by comparisons and fills. */
  | 'pulled_records'
  /** Records brought to peers by comparisons. */
  | 'pushed_records'
  /** Records removed while a partition filled, because they are purged elsewhere. */
  | 'removed_ghosts'
  /** Records not taken, because they are purged here (PROTOCOL 24). */
  | 'refused_records'
  /** Differences left for the next comparison, because a record is damaged on one side. */
  | 'unresolved_records'
  /** Digests that differ although the records under them are equal: must stay 0. */
  | 'wrong_digests'
  /** Comparisons that ended early. */
  | 'failed_comparisons'
  /** Records whose checksum was checked in the background. */
  | 'scrubbed_records'
  /** Records found to fail their checksum. */
  | 'damaged_records'
  /** Damaged records replaced by a peer's. */
  | 'healed_records';

export type AntiEntropyGauge =
  /** Partitions whose digest equals that of every other replica, as of the last look at each. */
  | 'equal_partitions'
  /** Partitions that differ from some other replica, as of the last look. */
  | 'differing_partitions'
  /** Partitions that are not readable yet. */
  | 'filling_partitions'
  /** Damaged records that no peer has replaced yet. */
  | 'damaged_keys';

export const NO_ANTI_ENTROPY_METRICS: AntiEntropyMetrics = {
  count: () => undefined,
  gauge: () => undefined,
};
