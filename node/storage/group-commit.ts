import type { Scheduler } from '../../common/clock.ts';
import { ChunkPool, EntryWriter } from './entry-writer.ts';
import { emptyLayer, type Layer } from './overlay.ts';

/** Entries that are written and synced together. */
export interface CommitGroup {
  /** Counts the groups; unlike sequences it differs for groups that hold nothing but ceilings. */
  readonly order: number;
  /** Sequence of the entry before its first. */
  readonly sequence: number;
  readonly writer: EntryWriter;
  readonly layer: Layer;
  /** Resolves when the group is synced: one promise for all of its entries. */
  readonly durable: Promise<void>;
  readonly settle: { resolve(): void; reject(error: Error): void };
}

/** What carries a group out. */
export interface GroupSink {
  /** Whether the next group may begin; `kick` when that changes. */
  mayBegin(): boolean;
  /** Writes and syncs. */
  write(group: CommitGroup): Promise<void>;
  /** The group is synced; its promise resolves after this. */
  synced(group: CommitGroup): void;
  /** Nothing more can be written. */
  failed(error: unknown): void;
}

/**
 * Group commit: one write and sync at a time, and what arrives meanwhile is the next group. A lone entry waits for
 * nothing but the end of the turn of the event loop it came in.
 */
export class GroupCommit {
  private readonly sink: GroupSink;
  private readonly scheduler: Scheduler;
  private readonly seed: number;
  private readonly chunks = new ChunkPool();
  /** Oldest first; the first one is being written when `writing`. */
  private readonly groups: CommitGroup[] = [];
  private begun = 0;
  private writing = false;
  private scheduled = false;
  private failure: Error | undefined;
  private readonly idleWaiters: (() => void)[] = [];

  constructor(options: { sink: GroupSink; scheduler: Scheduler; seed: number }) {
    this.sink = options.sink;
    this.scheduler = options.scheduler;
    this.seed = options.seed;
  }

  /** The group that collects now, if there is one. */
  get collecting(): CommitGroup | undefined {
    return this.groups.length > (this.writing ? 1 : 0) ? this.groups.at(-1) : undefined;
  }

  /** Begins a further group. `sequence` and `head`: of the newest entry, the newest own record. */
  begin(sequence: number, head: number): CommitGroup {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    // Whoever waits hears of a failure; that nobody waits is no reason to end the process.
    promise.catch(() => undefined);
    const settle = { resolve: () => resolve(undefined), reject };
    const writer = new EntryWriter(this.seed, this.chunks);
    this.begun += 1;
    const group = {
      order: this.begun,
      sequence,
      writer,
      layer: emptyLayer(sequence, head),
      durable: promise,
      settle,
    };
    this.groups.push(group);
    if (!this.scheduled) {
      this.scheduled = true;
      this.scheduler.soon(() => {
        this.scheduled = false;
        this.kick();
      });
    }
    return group;
  }

  /** The group whose layer it is; undefined when it is synced. */
  groupOf(layer: Layer): CommitGroup | undefined {
    return this.groups.find((group) => group.layer === layer);
  }

  /** Begins to write when something waits and nothing is in the way. */
  kick(): void {
    if (this.writing || this.failure !== undefined) return;
    const group = this.groups[0];
    if (group === undefined || !this.sink.mayBegin()) return;
    this.writing = true;
    this.sink.write(group).then(
      () => this.onSynced(group),
      (error: unknown) => this.sink.failed(error),
    );
  }

  private onSynced(group: CommitGroup): void {
    if (this.failure !== undefined) return;
    this.groups.shift();
    this.writing = false;
    group.writer.release();
    this.sink.synced(group);
    group.settle.resolve();
    this.kick();
    if (this.groups.length === 0) for (const resolve of this.idleWaiters.splice(0)) resolve();
  }

  /** Resolves when nothing waits or the log has failed. */
  idle(): Promise<void> {
    if (this.groups.length === 0 || this.failure !== undefined) return Promise.resolve();
    return new Promise((resolve) => {
      this.idleWaiters.push(resolve);
    });
  }

  /** Rejects everything that waits; nothing is written any more. */
  fail(error: Error): void {
    this.failure = error;
    for (const group of this.groups.splice(0)) group.settle.reject(error);
    for (const resolve of this.idleWaiters.splice(0)) resolve();
  }
}
