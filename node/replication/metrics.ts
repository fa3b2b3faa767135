import type { AntiEntropyCounter, AntiEntropyGauge } from './anti-entropy/metrics.ts';
import type { CollectionCounter, CollectionGauge } from './horizon/metrics.ts';
import type { RequestCounter } from './requests/metrics.ts';
import type { WatchCounter, WatchGauge } from './watch/metrics.ts';

/** What replication counts and measures; the process binds it to its metrics registry. */
export interface ReplicationMetrics {
  /** Adds to a counter. */
  count(name: Counted, amount?: number): void;
  /** Sets a gauge about one peer. */
  gaugePeer(name: PeerGauge, peer: string, value: number): void;
  /** Sets a gauge about this node. */
  gauge(name: Measured, value: number): void;
}

/** Everything that is counted. */
export type Counted =
  ReplicationCounter | AntiEntropyCounter | CollectionCounter | RequestCounter | WatchCounter;

/** Everything that is measured of this node. */
export type Measured = ReplicationGauge | AntiEntropyGauge | CollectionGauge | WatchGauge;

export type ReplicationCounter =
  /** Writes minted again because a replica held a newer version. */
  | 'second_mints'
  /** Writes whose outcome was unknown at their deadline. */
  | 'unknown_outcomes'
  /** Operations refused because too few replicas could be reached. */
  | 'unavailable'
  /** Records written back to replicas by reads and rebuilds. */
  | 'repaired_records'
  /** Entries given back to a peer that had lost the unsynced end of its log. */
  | 'returned_entries'
  /** Entries of peers applied here. */
  | 'entries_received'
  /** Own entries sent to peers. */
  | 'entries_sent'
  /** Equal epoch with another hash: two writers of the map. */
  | 'map_conflicts'
  /** Foreign versions beyond the skew bound. */
  | 'skewed_versions'
  /** Operations sent on to a readable replica of their key. */
  | 'forwarded'
  /** Frames that no sound peer sends. */
  | 'bad_frames'
  /** Streams of peers refused. */
  | 'refusals';

export type ReplicationGauge =
  /** Bytes of writes under way. */
  | 'in_flight_bytes'
  /** 1 when this node serves reads. */
  | 'readable'
  /** 1 when cursors cover the heads of all other members. */
  | 'in_sync'
  | 'map_epoch'
  /** This node's clock less the median of the members', milliseconds. */
  | 'clock_skew_ms'
  /** 1 when this node's clock is too far off to coordinate writes. */
  | 'clock_outlier';

export type PeerGauge =
  /** 1 while the stream to the peer is up. */
  | 'peer_connected'
  /** Entries of the peer's log yet to be applied here. */
  | 'peer_behind'
  /** Own entries yet to be acknowledged by the peer. */
  | 'peer_ahead'
  /** Peer's wall clock minus this node's, milliseconds. */
  | 'peer_clock_offset_ms';

export const NO_METRICS: ReplicationMetrics = {
  count: () => undefined,
  gaugePeer: () => undefined,
  gauge: () => undefined,
};
