import { crc32 } from 'node:zlib';
import type { Clock } from '../../../common/clock.ts';
import { compareVersions, type Version } from '../../../model/version.ts';
import type { RequestId } from '../../../proto/gen/kvstore.ts';
import type { LiveValue } from '../engine.ts';
import { DEFAULT_RECENT_VERSIONS, RecentVersions } from './recent-versions.ts';

/** What a node remembers of requests. */
export interface RequestIndexSettings {
  /** How long a request is remembered at least, milliseconds. */
  readonly windowMs: number;
  /** Most requests remembered. Beyond it the oldest go early, and retries of them are refused. */
  readonly maxEntries: number;
  /** Most bytes of replaced values kept for retries. Beyond it the oldest go early: their retries are answered without. */
  readonly maxOldBytes: number;
}

export const DEFAULT_REQUEST_INDEX_SETTINGS: RequestIndexSettings = {
  windowMs: 60_000,
  maxEntries: 250_000,
  maxOldBytes: 8 * 1024 * 1024,
};

/**
 * What a replica can say of a request.
 *
 * - `held`: its write was applied here at this version, with nothing newer there when it came.
 * - `not-held`: it never came, or it came beaten.
 * - `unknown`: it may have come when this replica did not remember requests, or have been forgotten since.
 */
export type RequestKnowledge =
  { readonly kind: 'held'; readonly version: Version } | { readonly kind: 'not-held' | 'unknown' };

/** A write that is asked about: by its request id, by the version that is known of it, or by both. */
export interface AskedWrite {
  readonly requestId: RequestId | undefined;
  readonly version: Version | undefined;
}

/** What the write replaced, where this node coordinated it. */
export interface Replaced {
  readonly value: LiveValue | undefined;
}

interface KnownWrite {
  readonly version: Version;
  /** Of the key: an id that is used for another key is another request. */
  readonly keyCheck: number;
  replaced: Replaced | undefined;
}

interface ClientWrites {
  highest: number;
  readonly writes: Map<number, KnownWrite>;
}

/** Requests noted within a stretch of time, by client. They are forgotten together. */
interface Generation {
  readonly begunMs: number;
  endedMs: number;
  entries: number;
  readonly clients: Map<string, ClientWrites>;
  /** Those that know what they replaced, oldest first. */
  readonly replacing: KnownWrite[];
  /** How many of them had to let that go. */
  letGo: number;
}

const GENERATIONS = 6;
const MOST_FORGOTTEN_CLIENTS = 10_000;
const MOST_DOUBTED_VERSIONS = 1000;
const REPLACED_OVERHEAD_BYTES = 64;

/**
 * The requests whose writes this node has applied in the last minute, its own and those of peers (PROTOCOL 8).
 *
 * Of a client it also remembers the highest number it has forgotten. Clients number their writes as they begin them: a
 * request with a higher number that is not found was never held here, and one up to it may have been, so long ago that
 * nothing is said of it.
 */
export class RequestIndex {
  private readonly clock: Clock;
  private readonly settings: RequestIndexSettings;
  /** Oldest first. */
  private generations: Generation[] = [];
  /** Highest number forgotten, by client; the one forgotten last is the newest. */
  private readonly forgotten = new Map<string, number>();
  private replacedBytes = 0;
  /** Until when a partition's requests may be unknown here, by the monotonic clock. */
  private readonly unknownUntilMs = new Map<number, number>();
  private completeFromMs = Infinity;
  /** Of writes that came without an id. */
  private readonly versions = new RecentVersions(DEFAULT_RECENT_VERSIONS);
  /** Those that this replica has answered `not-held` of. */
  private readonly denied = new RecentVersions(MOST_DOUBTED_VERSIONS);
  private readonly doubted = new RecentVersions(MOST_DOUBTED_VERSIONS);
  private lastNamed: { readonly id: RequestId | undefined; readonly name: string } = {
    id: undefined,
    name: '',
  };

  constructor(clock: Clock, settings: RequestIndexSettings) {
    this.clock = clock;
    this.settings = settings;
  }

  get windowMs(): number {
    return this.settings.windowMs;
  }

  /** Requests remembered. */
  get size(): number {
    return this.generations.reduce((sum, generation) => sum + generation.entries, 0);
  }

  /** A write was applied here, or its version was already there: to be told of each with an id, in the turn of applying. */
  note(id: RequestId, key: Buffer, version: Version, replaced?: Replaced): void {
    const client = this.nameOf(id);
    const before = this.find(client, id.number);
    const keyCheck = crc32(key);
    const same = before?.keyCheck === keyCheck ? before : undefined;
    // A write that is minted again keeps its id, and what it replaced at first.
    if (same !== undefined && compareVersions(same.version, version) >= 0) return;
    const write: KnownWrite = { version, keyCheck, replaced: same?.replaced ?? replaced };
    const generation = this.current();
    let known = generation.clients.get(client);
    if (known === undefined) generation.clients.set(client, (known = { highest: 0, writes: new Map() }));
    known.highest = Math.max(known.highest, id.number);
    if (!known.writes.has(id.number)) generation.entries += 1;
    known.writes.set(id.number, write);
    this.keepReplaced(generation, write);
  }

  /** The same for a write without an id, or one that came without it; and that somebody else knows of an own one. */
  noteVersion(version: Version): void {
    this.versions.note(version);
  }

  /** A write was read when something newer may have been here before: nothing is said of it. */
  doubt(version: Version): void {
    this.doubted.note(version);
  }

  /** Whether this replica has said that the write was beaten here: then its coordinator may write it again, and nobody may read it. */
  hasDenied(version: Version): boolean {
    return this.denied.has(version);
  }

  /** What is known of a write to a key of that partition. */
  lookup({ requestId, version }: AskedWrite, key: Buffer, partition: number): RequestKnowledge {
    if (version !== undefined && this.versions.has(version)) return { kind: 'held', version };
    const noted = requestId === undefined ? undefined : this.versionOf(requestId, key);
    if (noted !== undefined) return { kind: 'held', version: noted };
    const mayHaveForgotten =
      (requestId !== undefined && this.hasForgotten(requestId)) ||
      (version !== undefined && this.isUnclear(version));
    if (!this.knows(partition) || mayHaveForgotten) return { kind: 'unknown' };
    if (version !== undefined) this.denied.note(version);
    return { kind: 'not-held' };
  }

  /** Whether the write has been applied here at this version, with nothing newer there when it came. */
  hasStood(id: RequestId | undefined, key: Buffer, version: Version): boolean {
    if (this.versions.has(version)) return true;
    const noted = id === undefined ? undefined : this.versionOf(id, key);
    return noted !== undefined && compareVersions(noted, version) === 0;
  }

  /** Whether nothing has been noted of a version but the minting of it, by its own request id. */
  isUnsettled(version: Version): boolean {
    return !this.versions.has(version) && !this.isUnclear(version);
  }

  private isUnclear(version: Version): boolean {
    const { versions, doubted } = this;
    return versions.mayHaveForgotten(version) || doubted.has(version) || doubted.mayHaveForgotten(version);
  }

  /** The version at which the request was applied here; undefined when it is not remembered. */
  versionOf(id: RequestId, key: Buffer): Version | undefined {
    const write = this.find(this.nameOf(id), id.number);
    return write?.keyCheck === crc32(key) ? write.version : undefined;
  }

  /** What the request replaced; undefined when another node coordinated it, or too much else was kept since. */
  replacedBy(id: RequestId): Replaced | undefined {
    return this.find(this.nameOf(id), id.number)?.replaced;
  }

  /** Whether the request is so old that it may have been applied and forgotten. */
  hasForgotten(id: RequestId): boolean {
    this.expire();
    return id.number <= (this.forgotten.get(this.nameOf(id)) ?? -1);
  }

  /** What was applied in the window before this start is noted. `since`: by the monotonic clock; from then on it is. */
  complete(sinceMs: number): void {
    this.completeFromMs = sinceMs;
  }

  /** Partitions were filled from others some time ago: what had been applied to them before is not known here. */
  learnAnew(partitions: Iterable<number>, agoMs = 0): void {
    const untilMs = this.clock.monotonicMs() + this.settings.windowMs - Math.max(0, agoMs);
    for (const partition of partitions) this.unknownUntilMs.set(partition, untilMs);
  }

  private knows(partition: number): boolean {
    const now = this.clock.monotonicMs();
    const untilMs = this.unknownUntilMs.get(partition) ?? -Infinity;
    if (untilMs <= now) this.unknownUntilMs.delete(partition);
    return untilMs <= now && now - this.completeFromMs >= this.settings.windowMs;
  }

  /** `clientOf`; writes come in batches of one client. */
  private nameOf(id: RequestId): string {
    const { id: last, name } = this.lastNamed;
    const isSame =
      last !== undefined &&
      last.clientStartMs === id.clientStartMs &&
      (last.clientId === id.clientId || last.clientId.equals(id.clientId));
    if (isSame) return name;
    this.lastNamed = { id, name: clientOf(id) };
    return this.lastNamed.name;
  }

  private find(client: string, number: number): KnownWrite | undefined {
    this.expire();
    for (let index = this.generations.length - 1; index >= 0; index -= 1) {
      const known = this.generations[index]?.clients.get(client);
      // Most writes are new, and above all that their client has sent before.
      if (known === undefined || known.highest < number) continue;
      const found = known.writes.get(number);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The generation that is noted into: a new one when the last is over or large enough. */
  private current(): Generation {
    const now = this.clock.monotonicMs();
    const { windowMs, maxEntries } = this.settings;
    const last = this.generations.at(-1);
    const room = maxEntries / GENERATIONS;
    if (last !== undefined && now - last.begunMs < windowMs / GENERATIONS && last.entries < room) {
      last.endedMs = now;
      return last;
    }
    const generation: Generation = {
      begunMs: now,
      endedMs: now,
      entries: 0,
      clients: new Map(),
      replacing: [],
      letGo: 0,
    };
    this.generations.push(generation);
    while (this.size > maxEntries - room) this.forgetOldest();
    return generation;
  }

  private expire(): void {
    const now = this.clock.monotonicMs();
    for (;;) {
      const oldest = this.generations[0];
      if (oldest === undefined || now - oldest.endedMs <= this.settings.windowMs) return;
      this.forgetOldest();
    }
  }

  private forgetOldest(): void {
    const oldest = this.generations.shift();
    for (const write of oldest?.replacing ?? []) this.replacedBytes -= bytesReplacedBy(write);
    for (const [client, { highest }] of oldest?.clients ?? []) {
      const before = this.forgotten.get(client) ?? -1;
      this.forgotten.delete(client);
      this.forgotten.set(client, Math.max(before, highest));
    }
    for (const client of this.forgotten.keys()) {
      if (this.forgotten.size <= MOST_FORGOTTEN_CLIENTS) break;
      this.forgotten.delete(client);
    }
  }

  private keepReplaced(generation: Generation, write: KnownWrite): void {
    if (write.replaced === undefined) return;
    generation.replacing.push(write);
    this.replacedBytes += bytesReplacedBy(write);
    while (this.replacedBytes > this.settings.maxOldBytes && this.letGo());
  }

  /** The oldest replaced value; false when there is none. */
  private letGo(): boolean {
    for (const generation of this.generations) {
      const write = generation.replacing[generation.letGo];
      if (write === undefined) continue;
      generation.letGo += 1;
      this.replacedBytes -= bytesReplacedBy(write);
      write.replaced = undefined;
      return true;
    }
    return false;
  }
}

/** What is kept for a write's retries counts for this; 0 once it was let go. */
function bytesReplacedBy({ replaced }: KnownWrite): number {
  return replaced === undefined ? 0 : REPLACED_OVERHEAD_BYTES + (replaced.value?.value.length ?? 0);
}

/** A client that starts anew may use its id again, but not with the same start. */
function clientOf({ clientId, clientStartMs }: RequestId): string {
  return `${clientId.toString('latin1')}${clientStartMs}`;
}
