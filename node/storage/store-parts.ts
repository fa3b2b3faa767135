import type { Clock, Scheduler } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { Random } from '../../common/random.ts';
import { ApplyLog } from './apply-log.ts';
import { Ceilings } from './ceilings.ts';
import type { Disk } from './disk.ts';
import { EntryWriter } from './entry-writer.ts';
import { DEFAULT_LIMITS, type StoreLimits } from './limits.ts';
import { recover, type Recovered } from './recovery.ts';
import { isNoSpace, Reserve } from './reserve.ts';
import { STORE_ID_BYTES } from './segment.ts';
import { APPLIED_NAME, encodeApplied, encodeIdentity, sealMeta, STORE_NAME } from './state-meta.ts';
import type { IndexedState } from './state.ts';
import { STORAGE_RULES, type StorageRules } from './storage-rules.ts';
import { StoreUnsupported } from './store-errors.ts';
import { fitted } from './volume.ts';

export interface LogStoreOptions {
  /** Where the segments of the log are. */
  readonly disk: Disk;
  /** Closed with the store, also when opening fails. */
  readonly state: IndexedState;
  /** Number of hash partitions, 1..65536; an existing store must have been created with the same number. */
  readonly partitions: number;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly logger: Logger;
  /** @default DEFAULT_LIMITS */
  readonly limits?: Partial<StoreLimits>;
  /** @default STORAGE_RULES */
  readonly rules?: StorageRules;
  /** Told of every sync of the log: entries made durable, and how long write and sync took. */
  readonly observeSync?: (entries: number, seconds: number) => void;
  /**
   * Called when the store is to be set aside at its next start; resolves when that is durable.
   *
   * @default it only fails
   */
  readonly condemn?: (reason: string) => Promise<void>;
  /** Called once when everything is closed, whatever happened before. */
  readonly release?: () => Promise<void>;
}

/** What a running store is made of. */
export interface StoreParts extends LogStoreOptions {
  readonly recovered: Recovered;
  readonly storeId: Buffer;
  /** With defaults, and such that the log fits its volume. */
  readonly allLimits: StoreLimits;
  readonly reserve: Reserve;
  readonly log: ApplyLog;
  readonly ceilings: Ceilings;
}

/**
 * Recovers what is there, or creates it, and begins the log of this run. When it fails everything is closed.
 *
 * @throws as `LogStore.open`.
 */
export async function prepareParts(options: LogStoreOptions): Promise<StoreParts> {
  try {
    const wanted = { ...DEFAULT_LIMITS, ...options.limits };
    const allLimits = fitted(wanted, await options.disk.space());
    const reserve = new Reserve(options.disk, allLimits);
    const opened = await withReserve(reserve, () => openLog(options, allLimits));
    if (opened.recovered.identity === undefined) await createState(options, opened);
    return { ...options, ...opened, allLimits, reserve };
  } catch (error) {
    await options.state.close().catch(() => undefined);
    await options.release?.();
    throw error;
  }
}

/** Tries again with the room of the reserve when a volume is full. */
async function withReserve<T>(reserve: Reserve, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (error) {
    if (!isNoSpace(error) || !(await reserve.release())) throw error;
    return open();
  }
}

type OpenedLog = Pick<StoreParts, 'recovered' | 'log' | 'ceilings' | 'storeId'>;

async function openLog(options: LogStoreOptions, limits: StoreLimits): Promise<OpenedLog> {
  const { disk, state, rules = STORAGE_RULES } = options;
  const recovered = await recover(disk, state, { layerRecords: limits.checkpointRecords, rules });
  checkPartitions(options.partitions, recovered.identity?.partitions);
  const storeId = recovered.identity?.storeId ?? options.random.bytes(STORE_ID_BYTES);
  const steps = { sequence: limits.sequenceStep, clockMs: limits.clockStepMs };
  const ceilings = new Ceilings(recovered.ceilings, steps);
  const log = new ApplyLog({ ...options, storeId, segments: recovered.segments, limits });
  try {
    await beginLog(log, ceilings, recovered.startAfter);
  } catch (error) {
    await log.close().catch(() => undefined);
    throw error;
  }
  return { recovered, storeId, log, ceilings };
}

function checkPartitions(wanted: number, found: number | undefined): void {
  if (!Number.isInteger(wanted) || wanted < 1 || wanted > 65_536) {
    throw new KvError('INVALID_ARGUMENT', `a store has 1 to 65536 partitions, not ${wanted}`);
  }
  if (found !== undefined && found !== wanted) {
    throw new StoreUnsupported(
      `the store was created with ${found} partitions and cannot be opened with ${wanted}: the number is fixed`,
    );
  }
}

/** A first group with nothing but ceilings: from now on the end is not clean, and the sequences to come are reserved. */
async function beginLog(log: ApplyLog, ceilings: Ceilings, startAfter: number): Promise<void> {
  const values = ceilings.forGroup(startAfter);
  await log.write({ sequence: startAfter, buffers: [], bytes: 0 }, values);
  ceilings.noteSynced(values);
}

/** The last group: sequences go on right behind it. */
export async function endLog(log: ApplyLog, ceilings: Ceilings, lastSequence: number): Promise<void> {
  const writer = new EntryWriter(log.seed);
  writer.cleanEnd(lastSequence);
  const values = { sequence: ceilings.sequence, clockMs: ceilings.clockMs };
  await log.write({ sequence: lastSequence, buffers: writer.finish(), bytes: writer.bytes }, values);
}

/** After the log: a state with an identity always has one (find-segments.ts). */
async function createState(options: LogStoreOptions, { storeId, log, ceilings }: OpenedLog): Promise<void> {
  const applied = {
    sequence: 0,
    head: 0,
    ceilings: { sequence: ceilings.sequence, clockMs: ceilings.clockMs },
  };
  const identity = encodeIdentity({ storeId, partitions: options.partitions });
  const meta = new Map([
    [STORE_NAME, sealMeta(STORE_NAME, identity)],
    [APPLIED_NAME, sealMeta(APPLIED_NAME, encodeApplied(applied))],
  ]);
  try {
    await options.state.commit({ records: [], meta });
  } catch (error) {
    await log.close().catch(() => undefined);
    throw error;
  }
}
