/** Times and bounds of watches. */
export interface WatchSettings {
  /** How often a source says how far it is, milliseconds. */
  readonly beatMs: number;
  /** Silence after which a source at another node counts as gone, milliseconds. */
  readonly silenceMs: number;
  /** How often a client that is told nothing gets a token, milliseconds. */
  readonly progressMs: number;
  /** How long partitions may be without a readable replica before the stream ends, milliseconds. */
  readonly orphanMs: number;
  /** Pause between attempts to find a source, milliseconds. */
  readonly retryMs: number;
  /** How long a node that failed as a source is not chosen again, milliseconds. */
  readonly avoidMs: number;
  /** Bytes of records in one piece, and in one message to a client. */
  readonly pieceBytes: number;
  /** Keys per stream whose told versions are remembered above the low-water mark. */
  readonly mostTold: number;
  /** Streams to clients at the same time. */
  readonly mostWatches: number;
  /** Streams to other nodes at the same time. */
  readonly mostServed: number;
}

export const DEFAULT_WATCH_SETTINGS: WatchSettings = {
  beatMs: 1_000,
  silenceMs: 4_000,
  progressMs: 2_000,
  orphanMs: 10_000,
  retryMs: 200,
  avoidMs: 1_000,
  pieceBytes: 256 * 1024,
  mostTold: 10_000,
  mostWatches: 1_024,
  mostServed: 4_096,
};
