import type { Clock } from '../common/clock.ts';
import { compareVersions, type Version } from '../model/version.ts';

/** What a read without a consistency of its own must see. */
export type SessionFloor =
  /** The newest version of the key that this client has written or read; undefined: it never has. */
  | { readonly kind: 'version'; readonly version: Version | undefined }
  /** What the client saw of the key may have been forgotten: a majority knows. */
  | { readonly kind: 'quorum' };

/** How long a version is remembered at least, unless too many keys come, milliseconds. */
const WINDOW_MS = 60_000;
const ANYTHING: SessionFloor = { kind: 'version', version: undefined };
const QUORUM: SessionFloor = { kind: 'quorum' };

/**
 * The versions that a client has written or read in the last minute, so that its reads at one replica see its own writes
 * and never go back (PROTOCOL 19). Bounded: when more keys come than are kept, reads of forgotten ones ask a quorum for the
 * next minute.
 */
export class Session {
  private readonly clock: Clock;
  /** Half of the keys remembered. */
  private readonly halfKeys: number;
  /** Keys noted since `beganMs`, and those noted before. */
  private recent = new Map<string, Version>();
  private earlier = new Map<string, Version>();
  private beganMs: number;
  private quorumUntilMs = -Infinity;

  constructor(clock: Clock, mostKeys: number) {
    this.clock = clock;
    this.halfKeys = Math.max(1, Math.floor(mostKeys / 2));
    this.beganMs = clock.monotonicMs();
  }

  /** A version of a key, given as `byteString`, was written or read. */
  note(name: string, version: Version): void {
    this.turn();
    const recent = this.recent.get(name);
    const known = recent ?? this.earlier.get(name);
    const order = known === undefined ? -1 : compareVersions(known, version);
    // Most reads find what the one before has found.
    if (order > 0 || (order === 0 && recent !== undefined)) return;
    this.recent.set(name, version);
  }

  /** Of a key, given as `byteString`. */
  floorOf(name: string): SessionFloor {
    const version = this.recent.get(name) ?? this.earlier.get(name);
    if (version !== undefined) return { kind: 'version', version };
    return this.clock.monotonicMs() < this.quorumUntilMs ? QUORUM : ANYTHING;
  }

  /** What was noted is kept for one to two windows, or until twice half of the keys have come. */
  private turn(): void {
    const now = this.clock.monotonicMs();
    const isFull = this.recent.size >= this.halfKeys;
    if (!isFull && now - this.beganMs < WINDOW_MS) return;
    // Those that go may have been noted at any time before `recent` began.
    if (this.earlier.size > 0 && now - this.beganMs < WINDOW_MS) this.quorumUntilMs = now + WINDOW_MS;
    this.earlier = this.recent;
    this.recent = new Map();
    this.beganMs = now;
  }
}
