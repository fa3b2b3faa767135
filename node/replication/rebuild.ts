import type { Clock, Scheduler } from '../../common/clock.ts';
import { abortReason, sleep } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { RecordPosition as WirePosition, RecordsChunk } from '../../proto/gen/peer.ts';
import type { Standing } from '../cluster/standing.ts';
import type { KeyedRecord, Store } from '../storage/store.ts';
import type { HybridClock } from './hybrid-clock.ts';
import { mergeSources } from './merge-sources.ts';
import type { ReplicationMetrics } from './metrics.ts';
import { RecordSource } from './record-source.ts';
import type { Topology } from './topology.ts';

/** A peer that may be merged from: connected, with an intact store. */
export interface SourceCandidate {
  readonly peer: string;
  readonly incarnation: number;
}

export interface RebuildOptions {
  readonly store: Store;
  readonly standing: Standing;
  readonly topology: Topology;
  readonly hybridClock: HybridClock;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly metrics: ReplicationMetrics;
  readonly logger: Logger;
  /** Bytes of records applied, and then synced, at once. */
  readonly batchBytes: number;
  /** How many sources a merge needs. */
  readonly needed: () => number;
  readonly candidates: () => readonly SourceCandidate[];
  readonly open: (
    peer: string,
    after: WirePosition | undefined,
    signal: AbortSignal,
  ) => AsyncIterable<RecordsChunk>;
  /** Brings records to a source that lacks them; rejects when it cannot be reached. */
  readonly repair: (peer: string, records: readonly KeyedRecord[]) => Promise<void>;
  /** The peer's records are merged as of `head`; false when no stream to it is up. */
  readonly promote: (peer: string, incarnation: number, head: number) => Promise<boolean>;
}

const RESUME_AFTER_MS = 200;
const REPAIRED_PER_FRAME = 128;

/**
 * Makes a store that lost data, or missed what peers' logs no longer have, whole again: merges the full records of enough
 * intact peers (PROTOCOL 32), both ways, and only then lets the node serve reads. Live writes are taken meanwhile.
 */
export class Rebuild {
  private readonly options: RebuildOptions;
  /** Peers whose log has passed this node's cursor: a merge must include them. */
  private readonly missed = new Set<string>();
  private running: AbortController | undefined;
  private merged = 0;
  private started = false;

  constructor(options: RebuildOptions) {
    this.options = options;
  }

  private get missing(): readonly number[] {
    const { standing, topology } = this.options;
    return standing.begun ? topology.held.filter((partition) => !standing.isReadable(partition)) : [];
  }

  private get due(): boolean {
    return this.missing.length > 0 || this.missed.size > 0;
  }

  /** What is waited for or done, for a person; undefined when there is nothing to rebuild. */
  get reason(): string | undefined {
    if (!this.due) return undefined;
    const lost = this.missing.length > 0 ? 'this store lost data' : 'this store missed entries of a peer';
    if (this.running !== undefined)
      return `${lost} and merges from its peers (${this.merged} records so far)`;
    return `${lost} and ${this.waitingFor()}`;
  }

  start(): void {
    this.started = true;
    this.wake();
  }

  stop(): void {
    this.started = false;
    this.running?.abort(new Error('this node stops'));
  }

  /** A peer's log no longer reaches back to this node's cursor. */
  require(peer: string): void {
    this.missed.add(peer);
    this.wake();
  }

  /** Begins what is running anew: the ground it stood on has changed. */
  restart(reason: string): void {
    this.running?.abort(new Error(reason));
  }

  /** Looks whether a merge is due and possible; call when peers or the own state changed. */
  wake(): void {
    const { logger } = this.options;
    if (!this.started || this.running !== undefined || !this.due) return;
    const sources = this.sources();
    if (sources === undefined) return;
    const controller = new AbortController();
    this.running = controller;
    this.merged = 0;
    this.merge(sources, controller.signal)
      .catch((error: unknown) =>
        logger.warn({ error: messageOf(error) }, 'a merge was cut short and begins anew'),
      )
      .finally(() => {
        controller.abort(new Error('the merge ended'));
        this.running = undefined;
        // Not at once: whatever failed may fail again.
        this.options.scheduler.after(RESUME_AFTER_MS, () => this.wake());
      });
  }

  /** All sources in reach, when they are enough. */
  private sources(): readonly SourceCandidate[] | undefined {
    const candidates = this.options.candidates();
    if (this.missing.length > 0 && candidates.length < this.options.needed()) return undefined;
    const reached = new Set(candidates.map(({ peer }) => peer));
    const members = new Set(this.options.topology.others);
    for (const peer of this.missed) if (members.has(peer) && !reached.has(peer)) return undefined;
    return candidates;
  }

  private waitingFor(): string {
    const needed = this.options.needed();
    const reached = new Set(this.options.candidates().map(({ peer }) => peer));
    const absent = this.options.topology.others.filter((nodeId) => !reached.has(nodeId));
    if (this.options.topology.others.length < needed)
      return 'no other member exists to merge from: the data is lost';
    const which = absent.length === 0 ? 'a moment' : `${absent.join(', ')} with intact stores`;
    return `needs ${needed} intact peers to merge from, has ${reached.size}, and waits for ${which}`;
  }

  private async merge(candidates: readonly SourceCandidate[], signal: AbortSignal): Promise<void> {
    const { standing, topology, logger, clock } = this.options;
    const begunMs = clock.monotonicMs();
    logger.info(
      { sources: candidates.map(({ peer }) => peer), missing: this.missing.length },
      'merging from peers',
    );
    const sources = candidates.map((candidate) => this.source(candidate, signal));
    try {
      await this.mergeAll(sources, signal);
    } finally {
      await Promise.all(sources.map((source) => source.close().catch(() => undefined)));
    }
    for (const source of sources) await this.finish(source);
    if (signal.aborted) throw abortReason(signal);
    if (this.missed.size > 0) throw new Error(`${[...this.missed].join(', ')} must be merged as well`);
    await standing.markReadable(topology.held);
    logger.info({ records: this.merged, tookMs: clock.monotonicMs() - begunMs }, 'merged; serving reads');
  }

  private source({ peer, incarnation }: SourceCandidate, signal: AbortSignal): RecordSource {
    const { store, scheduler, candidates, open, logger } = this.options;
    return new RecordSource({
      peer,
      incarnation,
      partitions: store.partitions,
      signal,
      open: (after, ended) => open(peer, after, ended),
      beforeResume: async (error) => {
        logger.warn({ peer, error: messageOf(error) }, 'a record stream broke and is resumed');
        await sleep(scheduler, RESUME_AFTER_MS, signal);
        const still = candidates().some((other) => other.peer === peer && other.incarnation === incarnation);
        if (!still) throw new KvError('ABORTED', `${peer} can no longer be merged from`, { cause: error });
      },
    });
  }

  private async mergeAll(sources: readonly RecordSource[], signal: AbortSignal): Promise<void> {
    const { batchBytes } = this.options;
    const stale = new Map<string, KeyedRecord[]>(sources.map(({ peer }) => [peer, []]));
    let batch: KeyedRecord[] = [];
    let bytes = 0;
    for await (const merged of mergeSources(sources)) {
      if (signal.aborted) throw abortReason(signal);
      const { key, record } = merged;
      batch.push({ key, record });
      bytes += key.length + record.bytes.length;
      for (const { peer } of merged.stale) stale.get(peer)?.push({ key, record });
      if (bytes < batchBytes) continue;
      await this.flush(batch, stale);
      batch = [];
      bytes = 0;
    }
    await this.flush(batch, stale);
  }

  private async flush(
    batch: readonly KeyedRecord[],
    stale: ReadonlyMap<string, KeyedRecord[]>,
  ): Promise<void> {
    const { store, hybridClock, metrics, repair } = this.options;
    for (const { record } of batch) hybridClock.observe(record.version);
    await store.apply(batch.map(({ key, record }) => ({ key, record, own: false }))).durable;
    this.merged += batch.length;
    metrics.count('rebuilt_records', batch.length);
    for (const [peer, records] of stale) {
      for (let some = records.splice(0, REPAIRED_PER_FRAME); some.length > 0;) {
        await repair(peer, some);
        metrics.count('repaired_records', some.length);
        some = records.splice(0, REPAIRED_PER_FRAME);
      }
    }
  }

  private async finish({ peer, incarnation, head }: RecordSource): Promise<void> {
    this.missed.delete(peer);
    const { promote, store } = this.options;
    if (await promote(peer, incarnation, head)) return;
    await store.apply([], { origin: peer, incarnation, sequence: head }).durable;
  }
}
