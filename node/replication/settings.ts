import { type AntiEntropySettings, DEFAULT_ANTI_ENTROPY_SETTINGS } from './anti-entropy/settings.ts';
import { DEFAULT_REQUEST_INDEX_SETTINGS, type RequestIndexSettings } from './requests/request-index.ts';
import { type CollectionSettings, DEFAULT_COLLECTION_SETTINGS } from './horizon/collector.ts';
import { DEFAULT_WATCH_SETTINGS, type WatchSettings } from './watch/settings.ts';

/** Times and bounds of replication. */
export interface ReplicationSettings {
  /** How often each peer hears from this node, milliseconds. */
  readonly heartbeatMs: number;
  /** Silence after which a peer counts as gone, milliseconds. */
  readonly failureDetectionMs: number;
  /** After standing still for so long, a node takes what it reads for something that may have waited, milliseconds. */
  readonly haltMs: number;
  /** Longest wait for a peer's Hello, milliseconds. */
  readonly handshakeMs: number;
  /** Delays between attempts to reach a peer, milliseconds. */
  readonly reconnect: { readonly initialMs: number; readonly maxMs: number };
  /** How far clocks may differ before a foreign version stops moving the own clock, milliseconds. */
  readonly skewBoundMs: number;
  /** How far ahead of use the clock's ceiling is made durable, milliseconds; below half the skew bound. */
  readonly ceilingStepMs: number;
  /** Bytes of writes under way on this node before new ones are refused. */
  readonly maxInFlightBytes: number;
  /** Bytes of log entries in one frame to a peer. */
  readonly entriesFrameBytes: number;
  /** Bytes of log entries sent to one peer and not yet acknowledged. */
  readonly maxUnackedBytes: number;
  /** Bytes of records in one chunk of a record stream. */
  readonly chunkBytes: number;
  /** How long a replica may take to answer a read before another one is asked as well, milliseconds. */
  readonly readHedgeMs: number;
  readonly antiEntropy: AntiEntropySettings;
  readonly collection: CollectionSettings;
  readonly requests: RequestIndexSettings;
  readonly watch: WatchSettings;
  /** How long a peer may take to answer a question, milliseconds. */
  readonly answerMs: number;
  /** How long the copy of what peers have acknowledged may lag behind on disk, milliseconds. */
  readonly peerMemoryMs: number;
}

export const DEFAULT_REPLICATION_SETTINGS: ReplicationSettings = {
  heartbeatMs: 500,
  failureDetectionMs: 2_000,
  haltMs: 250,
  handshakeMs: 5_000,
  reconnect: { initialMs: 100, maxMs: 2_000 },
  skewBoundMs: 2_000,
  ceilingStepMs: 500,
  maxInFlightBytes: 64 * 1024 * 1024,
  entriesFrameBytes: 256 * 1024,
  maxUnackedBytes: 8 * 1024 * 1024,
  chunkBytes: 256 * 1024,
  readHedgeMs: 50,
  antiEntropy: DEFAULT_ANTI_ENTROPY_SETTINGS,
  collection: DEFAULT_COLLECTION_SETTINGS,
  requests: DEFAULT_REQUEST_INDEX_SETTINGS,
  watch: DEFAULT_WATCH_SETTINGS,
  answerMs: 15_000,
  peerMemoryMs: 1_000,
};
