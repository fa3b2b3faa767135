import { sleep, type Scheduler } from '../../common/clock.ts';
import type { Random } from '../../common/random.ts';
import type { Mutation, Store } from '../../node/storage/store.ts';
import { indexOf, keyAt, recordAt } from './expected.ts';
import type { Told } from './messages.ts';

/** Whose log is applied besides own writes. */
export const PEER = { origin: 'peer', incarnation: 77 };

export interface WritersOptions {
  readonly store: Store;
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** How many there are. */
  readonly keys: number;
  /** @default 24 */
  readonly writers?: number;
  /** Numbers of the records begin after it. */
  readonly firstNumber: number;
  readonly tell: (told: Told) => void;
}

/** Most records of one `apply`. */
const BATCH = 12;
const LOADED = 60;

/** Writes as a node does: own records, a peer's log, loads, removals, cursors and metadata, all at the same time. */
export class Writers {
  private readonly options: WritersOptions;
  private stopped = false;
  private number: number;
  private cursor: number;
  private meta: number;
  private running: Promise<unknown> = Promise.resolve();
  /** Numbers that are under way. */
  private readonly underWay = new Set<number>();

  constructor(options: WritersOptions) {
    const { store } = options;
    this.options = options;
    this.number = options.firstNumber;
    this.cursor = store.cursors().find(({ origin }) => origin === PEER.origin)?.sequence ?? 0;
    this.meta = store.readMeta('n')?.readUInt32BE() ?? 0;
  }

  start(): void {
    this.running = Promise.all([
      ...Array.from({ length: this.options.writers ?? 24 }, () => this.repeat(() => this.write())),
      this.repeat(() => this.follow()),
      this.repeat(() => this.load()),
      this.repeat(() => this.remove()),
      this.repeat(() => this.other()),
    ]);
    // The store tells why it failed.
    this.running.catch(() => undefined);
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.running;
  }

  private async repeat(action: () => Promise<void>): Promise<void> {
    while (!this.stopped) {
      await action();
      await this.pause(this.below(4));
    }
  }

  /** Own records. */
  private async write(): Promise<void> {
    const mutations = this.mutations(1 + this.below(BATCH), true);
    await this.options.store.apply(mutations).durable;
    this.written(mutations);
  }

  /** Entries of a peer's log, with the cursor that says how far it has been applied. */
  private async follow(): Promise<void> {
    const mutations = this.mutations(1 + this.below(BATCH), false);
    this.cursor += mutations.length;
    const sequence = this.cursor;
    await this.options.store.apply(mutations, { ...PEER, sequence }).durable;
    this.written(mutations);
    this.options.tell({ kind: 'cursor', sequence });
  }

  private async load(): Promise<void> {
    await this.pause(this.below(150));
    const mutations = this.mutations(LOADED, false);
    await this.options.store.load(mutations);
    this.written(mutations);
  }

  /** Tombstones that nothing which is under way can be about. */
  private async remove(): Promise<void> {
    await this.pause(this.below(300));
    const { store, tell } = this.options;
    const partition = this.below(store.partitions);
    const below = Math.min(this.number, ...this.underWay);
    tell({ kind: 'removing', partition, below });
    const accepted: Buffer[] = [];
    await store.removeWhere(partition, (key, record) => {
      const accepts = record?.tombstone === true && record.version.wallMs < below;
      if (accepts) accepted.push(key);
      return accepts;
    });
    // Others have a newer record under way, and were passed over.
    const gone = accepted.filter((key) => store.get(key) === undefined);
    tell({ kind: 'removed', indexes: gone.flatMap((key) => indexOf(key) ?? []) });
  }

  private async other(): Promise<void> {
    const { store, tell } = this.options;
    await this.pause(this.below(60));
    const dice = this.below(4);
    if (dice === 0) {
      this.meta += 1;
      const value = this.meta;
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(value);
      await store.writeMeta('n', bytes);
      tell({ kind: 'meta', value });
    } else if (dice === 1) {
      const wallMs = store.clockCeilingMs + this.below(100);
      await store.raiseClockCeiling(wallMs);
      tell({ kind: 'ceiling', wallMs });
    } else if (dice === 2) await store.checkpoint();
    else store.trimLog(this.below(store.head + 1));
  }

  /** Records of different keys, each with the next number; they are under way until `written`. */
  private mutations(count: number, own: boolean): (Mutation & { readonly index: number })[] {
    const indexes = new Set(Array.from({ length: count }, () => this.below(this.options.keys)));
    return [...indexes].map((index) => {
      this.number += 1;
      this.underWay.add(this.number);
      return { index, key: keyAt(index), record: recordAt(index, this.number), own };
    });
  }

  private written(mutations: readonly (Mutation & { readonly index: number })[]): void {
    const pairs = mutations.flatMap(({ index, record }) => [index, record.version.wallMs]);
    this.options.tell({ kind: 'written', pairs });
    for (const { record } of mutations) this.underWay.delete(record.version.wallMs);
  }

  private pause(milliseconds: number): Promise<void> {
    return sleep(this.options.scheduler, milliseconds);
  }

  private below(bound: number): number {
    return Math.floor(this.options.random.fraction() * bound);
  }
}
