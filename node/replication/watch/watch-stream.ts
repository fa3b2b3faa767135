import type { Clock, Scheduler } from '../../../common/clock.ts';
import { KvError, messageOf } from '../../../common/errors.ts';
import type { KeyedRecord } from '../../storage/store.ts';
import { findCover } from '../cover.ts';
import type { Topology } from '../topology.ts';
import { Mailbox } from './mailbox.ts';
import type { WatchMetrics } from './metrics.ts';
import type { PartitionWatchRequest, WatchPiece, WatchStart } from './partition-watch.ts';
import type { WatchSettings } from './settings.ts';
import { encodeWatchToken, type ToldThrough, type WatchToken } from './token.ts';
import { ToldVersions } from './told-versions.ts';
import { WatchedGroup } from './watched-group.ts';

export interface WatchStreamOptions {
  readonly topology: Pick<Topology, 'nodeId' | 'setsOf' | 'serves' | 'isServing'>;
  readonly partitions: number;
  readonly clusterId: string;
  /** Opens the changes of some partitions at this node or another one. */
  readonly open: (
    nodeId: string,
    request: PartitionWatchRequest,
    signal: AbortSignal,
  ) => AsyncIterable<WatchPiece>;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly settings: WatchSettings;
  readonly metrics: Pick<WatchMetrics, 'count'>;
}

export interface ToldBatch {
  readonly records: readonly KeyedRecord[];
  /** Resumes after all records so far; empty: the one before still does, with repetitions. */
  readonly token: Buffer;
}

/** What a source leaves for the stream. */
interface Delivery {
  readonly group: WatchedGroup;
  readonly nodeId: string;
  readonly start: WatchStart;
  readonly outcome: { readonly piece: WatchPiece } | { readonly error: unknown };
  readonly bytes: number;
}

/** Attempts to go on in a log before another replica takes over, which costs a look at everything stored. */
const LOG_ATTEMPTS = 2;
/** Sources of a group that fail in a row before the stream ends. */
const MOST_FAILURES = 10;
/** A token up to this size goes with every batch, a larger one once per beat. */
const SMALL_TOKEN_BYTES = 512;
const NO_TOKEN = Buffer.alloc(0);

/**
 * One client's watch: the changes of all partitions, of each from one readable replica (PROTOCOL 18). When a source is
 * lost the stream goes on in its log as soon as that is possible at once; otherwise another replica takes over, tells
 * what it stores from the low-water mark on, and then its log.
 *
 * The stream is read no faster than it is taken: at most one piece of each source waits.
 */
export class WatchStream {
  private readonly options: WatchStreamOptions;
  private readonly prefix: Buffer;
  private readonly signal: AbortSignal;
  private readonly groups: WatchedGroup[];
  private readonly told: ToldVersions;
  private readonly mailbox = new Mailbox<Delivery>();
  private readonly sources = new AbortController();
  private readonly running = new Set<WatchedGroup>();
  /** Nodes that failed as a source, and until when they are not chosen. */
  private readonly avoided = new Map<string, number>();
  private established = false;
  private tokenBytes = 0;
  private tokenMs = -Infinity;
  private batchMs: number;

  /** @param token where to resume; undefined: from now on. */
  constructor(
    options: WatchStreamOptions,
    prefix: Buffer,
    token: WatchToken | undefined,
    signal: AbortSignal,
  ) {
    this.options = options;
    this.prefix = prefix;
    this.signal = signal;
    this.told = new ToldVersions(options.settings.mostTold);
    this.batchMs = options.clock.monotonicMs();
    this.groups =
      token === undefined
        ? [new WatchedGroup(unmarked(options.partitions), undefined, true)]
        : bySource(token).map(({ place, marks }) => new WatchedGroup(marks, place, false));
  }

  /**
   * Batches until an error: the signal's reason; UNAVAILABLE when a partition has no readable replica in reach for a
   * while, or nobody may take over: resume from the last token; OUT_OF_RANGE when collection has passed the token.
   */
  async *batches(): AsyncGenerator<ToldBatch, never, undefined> {
    const { scheduler } = this.options;
    const onAbort = (): void => this.mailbox.nudge();
    this.signal.addEventListener('abort', onAbort, { once: true });
    try {
      for (;;) {
        this.signal.throwIfAborted();
        for (const group of [...this.groups]) this.findSource(group);
        const records = this.gather();
        const begun = !this.established && this.groups.every(({ live }) => live);
        if (begun) this.established = true;
        if (records.length > 0 || begun || this.nextBatchInMs <= 0) yield this.batch(records);
        else await this.mailbox.wait(scheduler, this.patienceMs);
      }
    } finally {
      this.signal.removeEventListener('abort', onAbort);
      this.sources.abort();
      this.mailbox.close();
    }
  }

  private batch(records: readonly KeyedRecord[]): ToldBatch {
    this.batchMs = this.options.clock.monotonicMs();
    const { settings } = this.options;
    const due = records.length === 0 || this.batchMs - this.tokenMs >= settings.beatMs;
    if (!due && this.tokenBytes > SMALL_TOKEN_BYTES) return { records, token: NO_TOKEN };
    this.tokenMs = this.batchMs;
    const token = this.token();
    this.tokenBytes = token.length;
    return { records, token };
  }

  private token(): Buffer {
    const { clusterId, partitions } = this.options;
    // Of a stream from now on that has not begun everywhere there is nothing to resume.
    if (this.groups.some(({ fresh }) => fresh)) return NO_TOKEN;
    return encodeWatchToken(this.prefix, { clusterId, told: this.groups }, partitions);
  }

  /** Milliseconds until a client that is told nothing hears of that. */
  private get nextBatchInMs(): number {
    // A stream that resumes has promised everything since its token, whether or not its sources have begun.
    if (!this.established && this.groups.some(({ fresh }) => fresh)) return Infinity;
    return this.batchMs + this.options.settings.progressMs - this.options.clock.monotonicMs();
  }

  private get patienceMs(): number {
    const { retryMs, progressMs } = this.options.settings;
    const searching = this.running.size < this.groups.length;
    return Math.min(searching ? retryMs : progressMs, Math.max(0, this.nextBatchInMs));
  }

  /** What the sources have left, up to the bound of a batch; what is older than what was told of its key is left out. */
  private gather(): KeyedRecord[] {
    const { pieceBytes } = this.options.settings;
    const records: KeyedRecord[] = [];
    let bytes = 0;
    for (;;) {
      const delivery = this.mailbox.take(
        (waiting) => this.mayTell(waiting) && (bytes === 0 || bytes + waiting.bytes <= pieceBytes),
      );
      if (delivery === undefined) return records;
      const { group, nodeId, outcome } = delivery;
      if ('error' in outcome) {
        this.onLost(delivery, outcome.error);
        this.findSource(group);
        continue;
      }
      const news = outcome.piece.records.filter(({ key, record }) => this.told.admit(key, record));
      if (news.length > 0) bytes += delivery.bytes;
      records.push(...news);
      group.advance(nodeId, outcome.piece);
      if (outcome.piece.marks.size > 0) {
        this.told.forgetBelow(Math.min(...this.groups.map(({ lowestMark }) => lowestMark)));
      }
    }
  }

  /** The first message of a stream from now on says that every change from then on is told: nothing comes before it. */
  private mayTell({ group }: Delivery): boolean {
    return this.established || !group.live || this.groups.every(({ fresh }) => !fresh);
  }

  private onLost({ group, nodeId, start }: Delivery, error: unknown): void {
    this.running.delete(group);
    group.live = false;
    const outOfRange = error instanceof KvError && error.code === 'OUT_OF_RANGE';
    if (outOfRange && start.kind === 'state') throw error;
    if (outOfRange) {
      group.place = undefined;
      return;
    }
    group.failures += 1;
    if (group.failures >= MOST_FAILURES) {
      throw new KvError('UNAVAILABLE', `no replica can tell some partitions: ${messageOf(error)}`, {
        cause: error,
      });
    }
    this.avoided.set(nodeId, this.options.clock.monotonicMs() + this.options.settings.avoidMs);
  }

  private findSource(group: WatchedGroup): void {
    const { clock, settings } = this.options;
    const nowMs = clock.monotonicMs();
    if (this.running.has(group) || nowMs - group.startedMs < settings.retryMs) return;
    const { place } = group;
    if (place !== undefined && group.attempts < LOG_ATTEMPTS) {
      const [there, elsewhere] = partition(group, (one) => this.isReadableAt(place.nodeId, one));
      if (there.length > 0) {
        if (elsewhere.length > 0) this.takeOver(this.split(group, elsewhere));
        group.attempts += 1;
        const { incarnation, sequence } = place;
        this.begin(group, place.nodeId, { kind: 'log', incarnation, sequence });
        return;
      }
    }
    this.takeOver(group);
  }

  /** Whoever is readable tells the partitions from their marks on. */
  private takeOver(group: WatchedGroup): void {
    const { topology } = this.options;
    if (!group.fresh && !this.told.reachesDownTo(group.lowestMark)) {
      throw new KvError(
        'UNAVAILABLE',
        'another replica has to take over, and more was told than is remembered: resume from the last token',
      );
    }
    const { cover, short } = findCover({
      topology,
      partitions: [...group.marks.keys()],
      required: () => 1,
      failed: this.avoidedNow(),
    });
    if (short.length > 0) {
      const orphans = short.map((one) => one.partition);
      const orphaned = orphans.length === group.marks.size ? group : this.split(group, orphans);
      this.checkOrphan(orphaned, orphans[0] ?? 0);
      if (orphaned === group) return;
    }
    const start: WatchStart = { kind: group.fresh ? 'now' : 'state' };
    for (const [nodeId, partitions] of cover) {
      const chosen = partitions.length === group.marks.size ? group : this.split(group, partitions);
      chosen.orphanSinceMs = undefined;
      this.begin(chosen, nodeId, start);
    }
  }

  private checkOrphan(group: WatchedGroup, partition: number): void {
    const { clock, settings } = this.options;
    group.orphanSinceMs ??= clock.monotonicMs();
    if (clock.monotonicMs() - group.orphanSinceMs < settings.orphanMs) return;
    throw new KvError(
      'UNAVAILABLE',
      `partition ${partition} has no readable replica in reach: resume from the last token, or at another node`,
    );
  }

  private split(group: WatchedGroup, partitions: readonly number[]): WatchedGroup {
    const taken = group.split(partitions);
    this.groups.push(taken);
    return taken;
  }

  private isReadableAt(nodeId: string, partition: number): boolean {
    const { topology } = this.options;
    if (nodeId === topology.nodeId) return topology.serves(partition);
    return topology.setsOf(partition).read.includes(nodeId) && topology.isServing(nodeId, partition);
  }

  private avoidedNow(): ReadonlySet<string> {
    const nowMs = this.options.clock.monotonicMs();
    for (const [nodeId, untilMs] of this.avoided) if (untilMs <= nowMs) this.avoided.delete(nodeId);
    return new Set(this.avoided.keys());
  }

  private begin(group: WatchedGroup, nodeId: string, start: WatchStart): void {
    group.startedMs = this.options.clock.monotonicMs();
    this.running.add(group);
    if (start.kind === 'state') this.options.metrics.count('watch_takeovers');
    void this.follow(group, nodeId, start);
  }

  /** Leaves what a source tells in the mailbox, and at last why it ended; never rejects. */
  private async follow(group: WatchedGroup, nodeId: string, start: WatchStart): Promise<void> {
    const { signal } = this.sources;
    const leave = (outcome: Delivery['outcome'], bytes: number): Promise<void> =>
      this.mailbox.put({ group, nodeId, start, outcome, bytes });
    try {
      const request = { prefix: this.prefix, start, marks: new Map(group.marks) };
      for await (const piece of this.options.open(nodeId, request, signal)) {
        await leave({ piece }, sizeOf(piece));
        if (signal.aborted) return;
      }
      throw new KvError('UNAVAILABLE', `${nodeId} ended its part of the watch`);
    } catch (error) {
      if (!signal.aborted) await leave({ error }, 0);
    }
  }
}

/** One for each log: of the places in it, the earliest. What that repeats is repeated only now, and one stream is enough. */
function bySource({ told }: WatchToken): readonly ToldThrough[] {
  const sources = Map.groupBy(told, ({ place }) =>
    place === undefined ? '' : `${place.nodeId}/${place.incarnation}`,
  );
  return [...sources.values()].map((same) => ({
    place: same
      .map(({ place }) => place)
      .reduce((a, b) => ((a?.sequence ?? 0) <= (b?.sequence ?? 0) ? a : b)),
    marks: new Map(same.flatMap(({ marks }) => [...marks])),
  }));
}

function unmarked(partitions: number): ReadonlyMap<number, number> {
  return new Map(Array.from({ length: partitions }, (_, partition) => [partition, 0]));
}

function partition(
  group: WatchedGroup,
  first: (partition: number) => boolean,
): readonly [number[], number[]] {
  const sides: readonly [number[], number[]] = [[], []];
  for (const one of group.marks.keys()) sides[first(one) ? 0 : 1].push(one);
  return sides;
}

function sizeOf({ records }: WatchPiece): number {
  return records.reduce((sum, { key, record }) => sum + key.length + record.bytes.length, 0);
}
