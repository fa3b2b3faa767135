import { byteString } from '../../common/bytes.ts';
import { KvError } from '../../common/errors.ts';
import { partitionOf } from '../../model/key-hash.ts';
import type { Layer, Overlay } from './overlay.ts';
import { decodeRecord } from './record.ts';
import { scanRecords } from './scan.ts';
import type { IndexedState } from './state.ts';
import type { StoreHealth } from './store-health.ts';
import type { KeyedRecord, KeyRange, StoredRecord } from './store.ts';

/** The newest record of a key, and the layer it is in when it is not synced. */
export interface FoundRecord {
  readonly record: StoredRecord | undefined;
  readonly layer: Layer | undefined;
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
    return this.syncedAs(key, byteString(key));
  }

  /** Newest record of a key, synced or not. */
  newest(key: Buffer, keyString = byteString(key)): FoundRecord {
    const layer = this.options.overlay.pendingLayer(keyString);
    if (layer !== undefined) return { record: layer.records.get(keyString)?.record, layer };
    return { record: this.syncedAs(key, keyString), layer: undefined };
  }

  /** As `newest`; a damaged record counts as none: whatever a peer has replaces it (PROTOCOL 35). */
  newestToReplace(key: Buffer, keyString: string): FoundRecord {
    try {
      return this.newest(key, keyString);
    } catch (error) {
      const { failure } = this.options.health;
      if (error instanceof KvError && error.code === 'DATA_LOSS' && failure === undefined) {
        return { record: undefined, layer: undefined };
      }
      throw error;
    }
  }

  /** Synced records of a partition within the range. */
  scan(partition: number, range: KeyRange): KeyedRecord[] {
    return this.options.health.guard(() => scanRecords(this.options, partition, range));
  }

  private syncedAs(key: Buffer, keyString: string): StoredRecord | undefined {
    const { overlay, state, health, partitions } = this.options;
    const newer = overlay.get(keyString);
    if (newer !== undefined) return newer;
    const bytes = health.guard(() => state.get(partitionOf(key, partitions), key));
    return bytes === undefined ? undefined : decodeRecord(key, bytes);
  }
}
