import { byteString } from '../../common/bytes.ts';
import type { Clock } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { compareVersions, type Version } from '../../model/version.ts';
import type { Damage } from './damage.ts';
import { weightOf } from './digest.ts';
import type { Layer, Overlay } from './overlay.ts';
import { damagedRecord, decodeIfSound, seemingVersion } from './record.ts';
import { scanKeys, scanRecords, visiblePage, type VisiblePage } from './scan.ts';
import { isFullPage, type IndexedState } from './state.ts';
import type { StoreHealth } from './store-health.ts';
import type { KeyedRecord, KeyRange, ScanRange, ScrubResult, StoredRecord } from './store.ts';
import { supersedes } from './supersedes.ts';

/** What a newer record of a key would replace. */
export interface ReplacedRecord {
  readonly record: StoredRecord | undefined;
  /** What it counts for in the digest, 0 for no record; undefined when it is damaged. */
  readonly weight: number | undefined;
  /** The layer that has it when it waits for a sync, or was loaded and waits for its checkpoint: it is not durable yet. */
  readonly layer: Layer | undefined;
  /** What a damaged record seems to have been: an older one must not take its place unasked. */
  readonly floor?: Version | undefined;
}

const PLAUSIBLE_AHEAD_MS = 24 * 3_600_000;

export interface RecordsOptions {
  readonly partitions: number;
  readonly overlay: Overlay;
  readonly state: IndexedState;
  readonly health: StoreHealth;
  readonly damage: Damage;
  readonly clock: Clock;
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

  /** What a record of the key replaces; a damaged one counts as none (PROTOCOL 35). */
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
    if (record !== undefined) return { record, weight: weightOf(keyDigest, record), layer: undefined };
    this.noteDamage(key);
    return { record: undefined, weight: undefined, layer: undefined, floor: this.plausibleVersion(bytes) };
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
    const onDamaged = (key: Buffer): void => {
      this.options.damage.note(partition, key);
      if (range.onDamaged === undefined) throw damagedRecord();
      range.onDamaged(key);
    };
    return this.options.health.guard(() => scanRecords(this.options, partition, range, onDamaged));
  }

  /** Keys of synced records of a partition within the range. */
  keys(partition: number, range: KeyRange): Buffer[] {
    return this.options.health.guard(() => scanKeys(this.options, partition, range));
  }

  /** One page of what readers see of a partition. */
  visiblePage(partition: number, range: KeyRange): VisiblePage {
    const page = this.options.health.guard(() => visiblePage(this.options, partition, range));
    for (const { key, record } of page.rows)
      if (record === undefined) this.options.damage.note(partition, key);
    return page;
  }

  /** Checks records of the state; one that is about to be replaced does not count. */
  scrub(partition: number, range: KeyRange): ScrubResult {
    const { state, overlay, health, damage } = this.options;
    const rows = health.guard(() => state.scan(partition, range));
    const damaged = rows
      .filter(({ key, bytes }) => decodeIfSound(key, bytes) === undefined)
      .map(({ key }) => key)
      .filter((key) => overlay.get(byteString(key)) === undefined);
    for (const key of damaged) damage.note(partition, key);
    return { records: rows.length, damaged, last: isFullPage(rows, range) ? rows.at(-1)?.key : undefined };
  }

  private inState(key: Buffer): StoredRecord | undefined {
    const bytes = this.bytesInState(key);
    if (bytes === undefined) return undefined;
    const record = decodeIfSound(key, bytes);
    if (record !== undefined) return record;
    this.noteDamage(key);
    throw damagedRecord();
  }

  private noteDamage(key: Buffer): void {
    this.options.damage.note(partitionOf(key, this.options.partitions), key);
  }

  /** Of a damaged record. Were it far ahead of the clock, it would stand in the way of every sound one. */
  private plausibleVersion(bytes: Buffer): Version | undefined {
    const version = seemingVersion(bytes);
    const latestMs = this.options.clock.wallMs() + PLAUSIBLE_AHEAD_MS;
    return version !== undefined && version.wallMs <= latestMs ? version : undefined;
  }

  private bytesInState(key: Buffer): Buffer | undefined {
    const { state, health, partitions } = this.options;
    return health.guard(() => state.get(partitionOf(key, partitions), key));
  }
}
