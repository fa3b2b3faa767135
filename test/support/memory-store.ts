import { expect } from 'chai';
import type { Logger } from '../../common/log.ts';
import type { Random } from '../../common/random.ts';
import { digestOfRecords } from '../../node/storage/digest.ts';
import type { StoreLimits } from '../../node/storage/limits.ts';
import { LogStore, type LogStoreOptions } from '../../node/storage/log-store.ts';
import type { StateTransaction } from '../../node/storage/state.ts';
import type { Store } from '../../node/storage/store.ts';
import { ManualTime } from './manual-time.ts';
import { MemoryDisk, MemoryVolume, volumeAfterCrash, type CrashFates } from './memory-disk.ts';
import { MemoryState, MemoryStateVolume } from './memory-state.ts';
import { seededRandom } from './seeded-random.ts';

/** Logs nothing. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger,
};

/** Small enough that a few dozen records meet every bound. */
export const SMALL_LIMITS: Partial<StoreLimits> = {
  segmentBytes: 4096,
  logBytes: 32 * 1024,
  logKeepMs: 0,
  groupBytes: 1500,
  overlayBytes: 4000,
  checkpointMs: 5,
  checkpointRecords: 8,
  transactionRecords: 8,
  tailBytes: 1000,
  sequenceStep: 16,
  clockStepMs: 50,
};

/** Fails unless the digest of every partition is that of the records that a scan finds. */
export async function expectTrueDigests(time: ManualTime, store: Store): Promise<void> {
  for (let partition = 0; partition < store.partitions; partition += 1) {
    const records = await time.run(store.scan(partition, { limit: 100_000 }));
    expect(store.digest(partition), `digest of partition ${partition}`).to.deep.equal(
      digestOfRecords(records),
    );
  }
}

interface Commit {
  readonly transaction: StateTransaction;
  /** Which of the disk's events mark that it began and that it was durable. */
  readonly beganAt: number;
  endedAt: number | undefined;
}

/** A machine with a disk and a state in memory, on which stores are opened, killed and opened again. */
export class MemoryMachine {
  readonly time: ManualTime;
  readonly disk: MemoryVolume;
  readonly stateVolume: MemoryStateVolume;
  private readonly random: Random;
  private readonly commits: Commit[] = [];
  private running: { disk: MemoryDisk; state: MemoryState; scheduler: { stop(): void } } | undefined;

  constructor(
    options: { time?: ManualTime; random?: Random; disk?: MemoryVolume; state?: MemoryStateVolume } = {},
  ) {
    this.time = options.time ?? new ManualTime();
    this.random = options.random ?? seededRandom(1);
    this.disk = options.disk ?? new MemoryVolume();
    this.stateVolume = new MemoryStateVolume({
      begin: (transaction) =>
        void this.commits.push({
          transaction: copied(transaction),
          beganAt: this.mark(),
          endedAt: undefined,
        }),
      end: () => {
        const commit = this.commits.at(-1);
        if (commit !== undefined) commit.endedAt = this.mark();
      },
    });
    if (options.state !== undefined) this.stateVolume.content = options.state.content;
    this.initial = snapshot(this.stateVolume);
  }

  private readonly initial: MemoryStateVolume;

  /** Number of events of the disk so far: a point in time that `crashedAt` can return to. */
  get now(): number {
    return this.disk.events.length;
  }

  private mark(): number {
    this.disk.events.push({ kind: 'mark' });
    return this.disk.events.length - 1;
  }

  async open(
    limits: Partial<StoreLimits> = SMALL_LIMITS,
    partitions = 8,
    more: Pick<LogStoreOptions, 'condemn' | 'rules'> = {},
  ): Promise<LogStore> {
    const { time, random } = this;
    const scheduler = time.scheduler();
    const disk = new MemoryDisk(this.disk, scheduler);
    const state = new MemoryState(this.stateVolume, scheduler);
    this.running = { disk, state, scheduler };
    const options = {
      disk,
      state,
      partitions,
      clock: time.clock(),
      scheduler,
      random,
      logger: silentLogger,
      limits,
      ...more,
    };
    return time.run(LogStore.open(options));
  }

  /** The process ends at once; the machine stays up, so everything written is still there. */
  kill(): void {
    this.running?.scheduler.stop();
    this.running?.disk.kill();
    this.running?.state.crash();
    this.running = undefined;
  }

  /** The machine as it comes up again after power was lost at that event. */
  crashedAt(event: number, fates: CrashFates): MemoryMachine {
    const disk = volumeAfterCrash(this.disk.events.slice(0, event), fates);
    const state = snapshot(this.initial);
    for (const { transaction, beganAt, endedAt } of this.commits) {
      const durable = endedAt !== undefined && endedAt < event;
      if (durable || (beganAt < event && fates.name() === 'kept')) state.apply(transaction);
      else break;
    }
    const time = new ManualTime();
    return new MemoryMachine({ time, random: this.random, disk, state });
  }
}

function copied({ records, meta }: StateTransaction): StateTransaction {
  return {
    records: records.map(({ partition, key, bytes }) => ({
      partition,
      key: Buffer.from(key),
      bytes: bytes === undefined ? undefined : Buffer.from(bytes),
    })),
    meta: new Map([...meta].map(([name, value]) => [name, Buffer.from(value)])),
  };
}

function snapshot(volume: MemoryStateVolume): MemoryStateVolume {
  const copy = new MemoryStateVolume();
  const { partitions, meta } = volume.content;
  copy.content = {
    partitions: new Map([...partitions].map(([partition, keys]) => [partition, new Map(keys)])),
    meta: new Map(meta),
  };
  return copy;
}
