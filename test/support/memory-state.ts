import { byteString } from '../../common/bytes.ts';
import type { Scheduler } from '../../common/clock.ts';
import {
  rowBytes,
  type IndexedState,
  type StateRow,
  type StateStatistics,
  type StateTransaction,
} from '../../node/storage/state.ts';
import type { KeyRange } from '../../node/storage/store.ts';

interface Content {
  /** By partition, then by byteString(key). */
  readonly partitions: Map<number, Map<string, Buffer>>;
  readonly meta: Map<string, Buffer>;
}

/** What an in-memory state lives in: survives crashes, as the volume would. */
export class MemoryStateVolume {
  content: Content = { partitions: new Map(), meta: new Map() };
  /** Called when a transaction begins and when it is durable. */
  readonly observer: { begin(transaction: StateTransaction): void; end(): void } | undefined;
  /** The next transactions fail with this. */
  failure: Error | undefined;
  /** Transactions do not settle while it is set. */
  stalled = false;
  private waiting: (() => void)[] = [];

  constructor(observer?: { begin(transaction: StateTransaction): void; end(): void }) {
    this.observer = observer;
  }

  /** Transactions settle again, those that waited first. */
  resume(): void {
    this.stalled = false;
    for (const run of this.waiting.splice(0)) run();
  }

  /** Runs `action`, now or when transactions settle again. */
  whenRunning(action: () => void): void {
    if (this.stalled) this.waiting.push(action);
    else action();
  }

  /** Applies a whole transaction, durably. */
  apply({ records, meta }: StateTransaction): void {
    for (const { partition, key, bytes } of records) {
      let keys = this.content.partitions.get(partition);
      if (keys === undefined) this.content.partitions.set(partition, (keys = new Map<string, Buffer>()));
      if (bytes === undefined) keys.delete(byteString(key));
      else keys.set(byteString(key), Buffer.from(bytes));
    }
    for (const [name, value] of meta) this.content.meta.set(name, Buffer.from(value));
  }
}

/** The indexed state in memory, with the same contract as the one in LMDB (test/contract/state.ts). */
export class MemoryState implements IndexedState {
  private readonly volume: MemoryStateVolume;
  private readonly scheduler: Scheduler;
  private committing: Promise<void> = Promise.resolve();
  private closed = false;

  constructor(volume: MemoryStateVolume, scheduler: Scheduler) {
    this.volume = volume;
    this.scheduler = scheduler;
  }

  get(partition: number, key: Buffer): Buffer | undefined {
    const bytes = this.content().partitions.get(partition)?.get(byteString(key));
    return bytes === undefined ? undefined : Buffer.from(bytes);
  }

  scan(partition: number, { after, from, before, limit, maxBytes = Infinity }: KeyRange): StateRow[] {
    const keys = [...(this.content().partitions.get(partition)?.entries() ?? [])];
    let bytesBefore = 0;
    return keys
      .map(([key, bytes]) => ({ key: Buffer.from(key, 'latin1'), bytes: Buffer.from(bytes) }))
      .filter(({ key }) => after === undefined || Buffer.compare(key, after) > 0)
      .filter(({ key }) => from === undefined || Buffer.compare(key, from) >= 0)
      .filter(({ key }) => before === undefined || Buffer.compare(key, before) < 0)
      .sort((a, b) => Buffer.compare(a.key, b.key))
      .slice(0, limit)
      .filter((row) => {
        const isWithin = bytesBefore < maxBytes;
        bytesBefore += rowBytes(row);
        return isWithin;
      });
  }

  keys(partition: number, range: KeyRange): Buffer[] {
    return this.scan(partition, { ...range, maxBytes: undefined }).map(({ key }) => key);
  }

  readAllMeta(): Map<string, Buffer> {
    return new Map([...this.content().meta].map(([name, value]) => [name, Buffer.from(value)]));
  }

  commit(transaction: StateTransaction): Promise<void> {
    this.content();
    this.volume.observer?.begin(transaction);
    this.committing = new Promise((resolve, reject) => {
      const finish = (): void => {
        // A process that has been killed commits nothing more.
        if (this.closed) return;
        if (this.volume.failure !== undefined) {
          reject(this.volume.failure);
          return;
        }
        this.volume.apply(transaction);
        this.volume.observer?.end();
        resolve();
      };
      this.scheduler.soon(() => {
        this.volume.whenRunning(finish);
      });
    });
    return this.committing;
  }

  statistics(): StateStatistics {
    const { partitions } = this.content();
    let records = 0;
    let bytes = 0;
    for (const keys of partitions.values()) {
      records += keys.size;
      for (const [key, value] of keys) bytes += key.length + value.length;
    }
    return { records, bytes, liveBytes: bytes };
  }

  async close(): Promise<void> {
    if (this.volume.stalled || this.closed) return;
    await this.committing.catch(() => undefined);
    this.closed = true;
  }

  /** The process is gone: a transaction under way is lost. */
  crash(): void {
    this.closed = true;
  }

  private content(): Content {
    if (this.closed) throw new Error('the state is closed');
    return this.volume.content;
  }
}
