import type { Version } from '../../model/version.ts';
import type { Consistency } from '../../node/replication/engine.ts';

/**
 * - `open`: no answer yet.
 * - `ok`: done as asked.
 * - `refused`: answered that nothing was applied.
 * - `unknown`: no answer, or one that says that nobody knows.
 */
export type Outcome = 'open' | 'ok' | 'refused' | 'unknown';

/** One operation of one client on one key. */
export interface Operation {
  readonly id: number;
  readonly client: string;
  readonly kind: 'put' | 'delete' | 'get';
  readonly key: string;
  readonly node: string;
  readonly consistency: Consistency;
  readonly startMs: number;
  /** Of a put. */
  readonly ttlMs: number | undefined;
  /** Of a get: what the client asks for at least. */
  readonly minVersion: Version | undefined;
  endMs: number;
  outcome: Outcome;
  /** Of the write when it is done, or what was read. */
  version: Version | undefined;
  /** Times a write was sent. */
  attempts: number;
  /** The version at which a node first had it done, whether or not the answer came back. */
  served: Version | undefined;
  /** The same, when it was last sent. */
  doneBefore: Version | undefined;
  /** Of a get that found something: who wrote it. */
  readFrom: number | undefined;
  /** What any answer must be at least as new as, by all that was known when it began. */
  readonly floor: Known;
  /** The same if a volume is lost while it is under way: then what a minority acknowledged does not count. */
  readonly floorAfterLoss: Known;
  /** Volumes lost before it began. */
  readonly lossesBefore: number;
  detail: string;
}

/** The newest version of a key that something has been promised about, and the write it is of. */
export interface Known {
  readonly version: Version;
  /** Undefined while it is the version of a write whose outcome nobody has heard. */
  readonly write: Operation | undefined;
}
