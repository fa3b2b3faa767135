import { byteString } from '../../common/bytes.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { weightOf } from './digest.ts';
import type { Layer, Overlay } from './overlay.ts';
import { decodeIfSound, decodeRecord } from './record.ts';
import { scanRecords } from './scan.ts';
import type { IndexedState } from './state.ts';
import type { StoreHealth } from './store-health.ts';
import type { KeyedRecord, KeyRange, StoredRecord } from './store.ts';

/** The newest record of a key, and the layer it is in when it is not synced. */
export interface FoundRecord {
  readonly record: StoredRecord | undefined;
  readonly layer: Layer | undefined;
}

/** What a newer record of a key would replace. */
export interface ReplacedRecord extends FoundRecord {
  /** What it counts for in the digest, 0 for no record; undefined when it is damaged. */
  readonly weight: number | undefined;
}

export interface RecordsOptions {
  readonly partitions: number;
  readonly overlay: Overlay;
  readonly state: IndexedState;
  readonly health: StoreHealth;
}

/** The records of a store: those of the state, and over them what the log has beyond it. */
export class Records {
  private readonly options: RecordsOptions;

  constructor(options: RecordsOptions) {
    this.options = options;
  }

  /** Newest synced record of a key. */
  synced(key: Buffer): StoredRecord | undefined {
    return this.options.overlay.get(byteString(key))?.record ?? this.inState(key);
  }

  /** Newest record of a key, synced or not. */
  newest(key: Buffer): StoredRecord | undefined {
    const keyString = byteString(key);
    const { overlay } = this.options;
    const pending = overlay.pendingLayer(keyString)?.records.get(keyString);
    return (pending ?? overlay.get(keyString))?.record ?? this.inState(key);
  }

  /** What a record of the key replaces. A damaged one counts as none: whatever a peer has replaces it (PROTOCOL 35). */
  toReplace(key: Buffer, keyString: string, keyDigest: number): ReplacedRecord {
    const { overlay } = this.options;
    const layer = overlay.pendingLayer(keyString);
    const newer = layer === undefined ? overlay.get(keyString) : layer.records.get(keyString);
    if (newer !== undefined) return { record: newer.record, layer, weight: newer.weight };
    const bytes = this.bytesInState(key);
    if (bytes === undefined) return { record: undefined, layer, weight: 0 };
    const record = decodeIfSound(key, bytes);
    return { record, layer, weight: record === undefined ? undefined : weightOf(keyDigest, record) };
  }

  /** Synced records of a partition within the range. */
  scan(partition: number, range: KeyRange): KeyedRecord[] {
    return this.options.health.guard(() => scanRecords(this.options, partition, range));
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
