/** What watches count and measure. */
export type WatchCounter =
  /** Times that a replica told stored records because a log could not go on. */
  'watch_takeovers';

export type WatchGauge =
  /** Streams of changes to clients. */
  'watches';

/** Where it goes. */
export interface WatchMetrics {
  count(name: WatchCounter, amount?: number): void;
  gauge(name: WatchGauge, value: number): void;
}
