import type {
  DigestReply,
  DigestRequest,
  LeafReply,
  LeafRequest,
  ReadResult,
  RecordPosition,
  RecordsChunk,
} from '../../../proto/gen/peer.ts';
import type { SentRecord } from '../repairs.ts';

/**
 * A connected peer as comparisons see it. Every method rejects when the stream to the peer ends; an object may stand for
 * one stream or for many, as long as `incarnation` tells the volumes apart.
 */
export interface ComparablePeer {
  readonly nodeId: string;
  readonly incarnation: number;
  /** Whether the stream is up in both directions: from then on every entry that the peer appends comes to this node. */
  readonly mutual: boolean;
  /** Whether there is a gap between this node's cursor and what the peer's log still has; false after `promote`. */
  readonly fellOff: boolean;
  /** Log entries on their way between the two, either way. A log that catches up does a comparison's work by itself. */
  readonly lag: number;
  /** Whether it serves reads of the partition, as far as it has said. */
  readableAt(partition: number): boolean;
  digests(request: Omit<DigestRequest, 'id'>): Promise<Omit<DigestReply, 'id'>>;
  leaves(request: Omit<LeafRequest, 'id'>): Promise<Omit<LeafReply, 'id'>>;
  /** What it stores of the keys, in their order; fewer results than keys: it is to be asked again for the others. */
  fetch(keys: readonly Buffer[]): Promise<readonly ReadResult[]>;
  /** Resolves when the peer durably holds these records or newer ones, or has judged them by their horizon. */
  repair(records: readonly SentRecord[]): Promise<void>;
  /** Its record stream of these partitions, after a place. */
  pull(
    partitions: readonly number[],
    after: RecordPosition | undefined,
    signal: AbortSignal,
  ): AsyncIterable<RecordsChunk>;
  /** Everything that its log held up to `head` is here. Resolves when the cursor that says so is durable. */
  promote(head: number): Promise<void>;
}
