/** What retries count; a part of ReplicationMetrics (../metrics.ts). */
export interface RequestMetrics {
  count(name: RequestCounter, amount?: number): void;
}

export type RequestCounter =
  /** Retried writes that were found, and finished at their version. */
  | 'retries_finished'
  /** Retried writes that were not found, and written. */
  | 'retries_written'
  /** Retried writes that too few replicas could tell of. */
  | 'retries_undecided'
  /** Retried writes that were too old. */
  | 'retries_refused';
