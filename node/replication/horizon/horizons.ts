import { KvError } from '../../../common/errors.ts';
import { NO_VERSION, type Version } from '../../../model/version.ts';
import type { Store, StoredRecord } from '../../storage/store.ts';
import type { SafetyRules } from '../safety-rules.ts';
import { type Admission, isCovered, judgeForeign, newestCovered } from './rules.ts';

export interface HorizonsOptions {
  readonly store: Pick<Store, 'partitions' | 'readMeta' | 'writeMeta' | 'latest'>;
  /** Whether this node holds everything of a partition that it has to. */
  readonly isReadable: (partition: number) => boolean;
  readonly rules: SafetyRules;
}

const META = 'horizons';
const FORMAT = 1;
const RUN_BYTES = 8;

/**
 * The horizon of each partition here, milliseconds of the versions' clock: durable before anything is collected or
 * refused by it, and never lowered. Of a partition that is not readable here it counts as 0: such a replica vouches for
 * nothing, and takes whatever comes.
 */
export class Horizons {
  private readonly options: HorizonsOptions;
  private readonly durable: Float64Array;
  /** What is being written, or waits for it. */
  private readonly wanted: Float64Array;
  private writing: Promise<void> | undefined;
  private next: Promise<void> | undefined;

  /** @throws KvError FAILED_PRECONDITION when a newer version of the software wrote what is stored. */
  constructor(options: HorizonsOptions) {
    this.options = options;
    const { store } = options;
    this.durable = decodeHorizons(store.readMeta(META), store.partitions);
    this.wanted = this.durable.slice();
  }

  /** What this node's records of a partition are sent with, and records of others are judged by. */
  effectiveMs(partition: number): number {
    return this.options.isReadable(partition) ? this.storedMs(partition) : 0;
  }

  /** Whether or not the partition is readable. */
  storedMs(partition: number): number {
    return this.durable[partition] ?? 0;
  }

  /** Resolves when each partition's horizon is durably at least the value given for it, and counts. */
  async raise(horizons: Iterable<readonly [partition: number, horizonMs: number]>): Promise<void> {
    let needed = false;
    for (const [partition, horizonMs] of horizons) {
      if (horizonMs <= this.storedMs(partition) || partition >= this.wanted.length) continue;
      this.wanted[partition] = Math.max(this.wanted[partition] ?? 0, horizonMs);
      needed = true;
    }
    if (!needed) return;
    // What comes while one write is under way goes with the next, all together.
    this.next ??= (this.writing ?? Promise.resolve()).then(() => this.write());
    await this.next;
  }

  /**
   * Decides about a record from outside the live log (PROTOCOL 24).
   *
   * @param senderHorizonMs the sender's horizon of the partition, from before it read the record.
   */
  admit(key: Buffer, partition: number, record: StoredRecord, senderHorizonMs: number): Admission {
    const ownHorizonMs = this.effectiveMs(partition);
    if (!this.options.rules.judgeByHorizon || !isCovered(record.version, ownHorizonMs)) return 'apply';
    return judgeForeign({ record, known: this.knows(key), senderHorizonMs, ownHorizonMs });
  }

  /**
   * What an entry of the live log is answered to be superseded by, when its key is unknown here and its version lies
   * below the horizon; undefined when it is to be applied. It should never come: a peer whose log is sent anew, or that
   * mints below what it had promised because its volume was lost, is the reason to look.
   */
  supersederOf(key: Buffer, partition: number, record: StoredRecord): Version | undefined {
    const ownHorizonMs = this.effectiveMs(partition);
    if (!isCovered(record.version, ownHorizonMs) || this.knows(key)) return undefined;
    return newestCovered(ownHorizonMs);
  }

  /** What every version minted here must exceed. */
  mintFloor(partition: number): Version {
    const horizonMs = this.effectiveMs(partition);
    return horizonMs === 0 ? NO_VERSION : newestCovered(horizonMs);
  }

  private knows(key: Buffer): boolean {
    try {
      return this.options.store.latest(key) !== undefined;
    } catch (error) {
      // A damaged record is no proof that there was nothing: what comes may mend it.
      if (error instanceof KvError && error.code === 'DATA_LOSS') return true;
      throw error;
    }
  }

  private write(): Promise<void> {
    const snapshot = this.wanted.slice();
    const written = this.options.store
      .writeMeta(META, encodeHorizons(snapshot))
      .then(() => this.durable.set(snapshot));
    this.next = undefined;
    this.writing = written.catch(() => undefined); // Whoever asked for it sees the rejection.
    return written;
  }
}

/** Format u8, then runs of equal values: count u16, milliseconds u48. */
function encodeHorizons(horizons: Float64Array): Buffer {
  const runs: { count: number; horizonMs: number }[] = [];
  for (const horizonMs of horizons) {
    const last = runs.at(-1);
    if (last?.horizonMs === horizonMs && last.count < 0xffff) last.count += 1;
    else runs.push({ count: 1, horizonMs });
  }
  const bytes = Buffer.alloc(1 + runs.length * RUN_BYTES);
  bytes.writeUInt8(FORMAT, 0);
  for (const [index, { count, horizonMs }] of runs.entries()) {
    bytes.writeUInt16BE(count, 1 + index * RUN_BYTES);
    bytes.writeUIntBE(horizonMs, 3 + index * RUN_BYTES, 6);
  }
  return bytes;
}

function decodeHorizons(bytes: Buffer | undefined, partitions: number): Float64Array {
  const horizons = new Float64Array(partitions);
  if (bytes === undefined) return horizons;
  if (bytes[0] !== FORMAT) {
    throw new KvError(
      'FAILED_PRECONDITION',
      `the stored horizons have format ${bytes[0] ?? 0}, and this version knows ${FORMAT}: use the version that wrote them`,
    );
  }
  let partition = 0;
  for (let at = 1; at + RUN_BYTES <= bytes.length; at += RUN_BYTES) {
    const end = partition + bytes.readUInt16BE(at);
    horizons.fill(bytes.readUIntBE(at + 2, 6), partition, end);
    partition = end;
  }
  return horizons;
}
