import { byteString } from '../../common/bytes.ts';
import type { Logger } from '../../common/log.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { compareVersions } from '../../model/version.ts';
import { weightOf } from './digest.ts';
import type { Layer, Overlay } from './overlay.ts';
import { decodeIfSound, decodeRecord } from './record.ts';
import { scanRecords, visiblePage, type VisiblePage } from './scan.ts';
import type { IndexedState } from './state.ts';
import type { StoreHealth } from './store-health.ts';
import type { KeyedRecord, KeyRange, ScanRange, StoredRecord } from './store.ts';
import { supersedes } from './supersedes.ts';

/** What a newer record of a key would replace. */
export interface ReplacedRecord {
  readonly record: StoredRecord | undefined;
  /** What it counts for in the digest, 0 for no record; undefined when it is damaged. */
  readonly weight: number | undefined;
  /** The layer that has it when it waits for a sync, or was loaded and waits for its checkpoint: it is not durable yet. */
  readonly layer: Layer | undefined;
}

export interface RecordsOptions {
  readonly partitions: number;
  readonly overlay: Overlay;
  readonly state: IndexedState;
  readonly health: StoreHealth;
  readonly logger: Logger;
}

/** The records of a store: those of the state, and over them what the log has beyond it. */
export class Records {
  /** Records refused or replaced because another one had the same version: must stay 0 (PROTOCOL 2). */
  versionConflicts = 0;
  private readonly options: RecordsOptions;

  constructor(options: RecordsOptions) {
    this.options = options;
  }

  /** Newest synced record of a key. */
  synced(key: Buffer): StoredRecord | undefined {
    const newer = this.options.overlay.get(byteString(key));
    return newer === undefined ? this.inState(key) : newer.record;
  }

  /** Newest record of a key, synced or not. */
  newest(key: Buffer): StoredRecord | undefined {
    const keyString = byteString(key);
    const { overlay } = this.options;
    const layer = overlay.pendingLayer(keyString) ?? overlay.waitingLayer(keyString);
    return layer === undefined ? this.inState(key) : layer.records.get(keyString)?.record;
  }

  /** What a record of the key replaces. A damaged one counts as none: whatever a peer has replaces it (PROTOCOL 35). */
  toReplace(key: Buffer, keyString: string, keyDigest: number): ReplacedRecord {
    const { overlay } = this.options;
    const pending = overlay.pendingLayer(keyString);
    const holding = pending ?? overlay.waitingLayer(keyString);
    const newer = holding?.records.get(keyString);
    if (newer !== undefined) {
      const layer = holding === pending || holding?.loaded === true ? holding : undefined;
      return { record: newer.record, weight: newer.weight, layer };
    }
    const bytes = this.bytesInState(key);
    if (bytes === undefined) return { record: undefined, weight: 0, layer: undefined };
    const record = decodeIfSound(key, bytes);
    return {
      record,
      weight: record === undefined ? undefined : weightOf(keyDigest, record),
      layer: undefined,
    };
  }

  /** Whether a record takes the place of another one; counts those that have the same version and are not the same. */
  wins(record: StoredRecord, other: StoredRecord): boolean {
    if (compareVersions(record.version, other.version) === 0 && record.checksum !== other.checksum) {
      this.versionConflicts += 1;
      const { version } = record;
      this.options.logger.error({ version }, 'two records have the same version: a writer id is used twice');
    }
    return supersedes(record, other);
  }

  /** Synced records of a partition within the range. */
  scan(partition: number, range: ScanRange): KeyedRecord[] {
    return this.options.health.guard(() => scanRecords(this.options, partition, range));
  }

  /** One page of what readers see of a partition. */
  visiblePage(partition: number, range: KeyRange): VisiblePage {
    return this.options.health.guard(() => visiblePage(this.options, partition, range));
  }

  private inState(key: Buffer): StoredRecord | undefined {
    const bytes = this.bytesInState(key);
    return bytes === undefined ? undefined : decodeRecord(key, bytes);
  }

  private bytesInState(key: Buffer): Buffer | undefined {
    const { state, health, partitions } = this.options;
    return health.guard(() => state.get(partitionOf(key, partitions), key));
  }
}
