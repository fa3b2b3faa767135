import { leafOf, weightOf } from './digest.ts';
import type { DigestChange } from './digests.ts';
import type { LogCursor, StoredRecord } from './store.ts';

/** A record on its way into the state. */
export interface OverlayRecord extends DigestChange {
  readonly key: Buffer;
  readonly record: StoredRecord;
  /** What the key has beneath the layer counts for this. */
  replaced: number | undefined;
}

/** A record above one that counts for `replaced`. */
export function overlayRecord(
  place: { partition: number; key: Buffer; keyDigest: number },
  record: StoredRecord,
  replaced: number | undefined,
): OverlayRecord {
  const { partition, key, keyDigest } = place;
  return { partition, key, record, leaf: leafOf(keyDigest), weight: weightOf(keyDigest, record), replaced };
}

/** What a stretch of the log did: the newest record of each key, cursors and metas. */
export interface Layer {
  /** By byteString(key). */
  readonly records: Map<string, OverlayRecord>;
  /** By cursorName (state-meta.ts). */
  readonly cursors: Map<string, LogCursor>;
  readonly meta: Map<string, Buffer>;
  /** Of keys and records, replaced ones included. */
  bytes: number;
  /** Sequence of its newest entry. */
  through: number;
  /** Sequence of the newest own record up to `through`. */
  head: number;
  /** Being checkpointed: nothing may be added. */
  sealed: boolean;
}

export function emptyLayer(through: number, head: number): Layer {
  return { records: new Map(), cursors: new Map(), meta: new Map(), bytes: 0, through, head, sealed: false };
}

export function isEmptyLayer(layer: Layer): boolean {
  return layer.records.size === 0 && layer.cursors.size === 0 && layer.meta.size === 0;
}

/**
 * What is in the log and not yet in the state, newest last: layers that wait for their sync, one for each group, then
 * layers that are synced and wait for a checkpoint. Reads look at the synced ones, the next version of a key is decided
 * on all of them.
 */
export class Overlay {
  /** Synced bytes that wait for a checkpoint. */
  syncedBytes = 0;
  /** Bytes that wait for a sync. */
  pendingBytes = 0;
  private readonly pending: Layer[] = [];
  private readonly synced: Layer[] = [];
  private readonly layerRecords: number;

  /** A synced layer with `layerRecords` records takes no more. */
  constructor(layerRecords: number) {
    this.layerRecords = layerRecords;
  }

  /** Adds a layer for the group that collects now. */
  addPending(layer: Layer): void {
    this.pending.push(layer);
  }

  /** Puts a record into the newest pending layer. */
  put(layer: Layer, keyString: string, record: OverlayRecord): void {
    setRecord(layer, keyString, record);
    this.grow(layer, record.key.length + record.record.bytes.length);
  }

  /** Counts bytes of a pending layer. */
  grow(layer: Layer, bytes: number): void {
    layer.bytes += bytes;
    this.pendingBytes += bytes;
  }

  /** The unsynced layer that holds the newest record of a key, if one does. */
  pendingLayer(keyString: string): Layer | undefined {
    return this.pending.findLast((layer) => layer.records.has(keyString));
  }

  /** The first unsynced layer that moves a cursor at least this far. */
  pendingLayerOfCursor(name: string, sequence: number): Layer | undefined {
    return this.pending.find((layer) => (layer.cursors.get(name)?.sequence ?? -1) >= sequence);
  }

  /** Newest synced record of a key that is not in the state. */
  get(keyString: string): OverlayRecord | undefined {
    for (let index = this.synced.length - 1; index >= 0; index -= 1) {
      const found = this.synced[index]?.records.get(keyString);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Every synced record that is not in the state, oldest first. */
  *syncedChanges(): Generator<OverlayRecord> {
    for (const layer of this.synced) yield* layer.records.values();
  }

  /** The oldest pending layer is synced now. */
  promote(layer: Layer): void {
    if (this.pending.shift() !== layer) throw new Error('groups are synced in order');
    this.pendingBytes -= layer.bytes;
    this.addSynced(layer);
  }

  /** Adds a synced layer behind the others; an empty one has nothing to say. */
  addSynced(layer: Layer): void {
    if (isEmptyLayer(layer)) return;
    this.syncedBytes += layer.bytes;
    const newest = this.synced.at(-1);
    if (newest === undefined || newest.sealed || newest.records.size >= this.layerRecords) {
      this.synced.push(layer);
    } else {
      merge(layer, newest);
    }
  }

  /** The layer to be checkpointed last. */
  get newest(): Layer | undefined {
    return this.synced.at(-1);
  }

  /** The layer to be checkpointed next. */
  get oldest(): Layer | undefined {
    return this.synced[0];
  }

  /** Whether a full layer waits. */
  get hasFullLayer(): boolean {
    return this.synced.length > 1 || (this.oldest?.records.size ?? 0) >= this.layerRecords;
  }

  /** Records in synced layers, the same key counted once per layer. */
  get syncedRecords(): number {
    return this.synced.reduce((sum, layer) => sum + layer.records.size, 0);
  }

  /** The oldest layer is in the state now. */
  drop(layer: Layer): void {
    if (this.synced.shift() !== layer) throw new Error('layers are checkpointed in order');
    this.syncedBytes -= layer.bytes;
  }

  /** Newest synced record of each key of a partition that `wanted` accepts. */
  recordsOf(partition: number, wanted: (key: Buffer) => boolean): Map<string, OverlayRecord> {
    const found = new Map<string, OverlayRecord>();
    for (const layer of this.synced) {
      for (const [keyString, record] of layer.records) {
        if (record.partition === partition && wanted(record.key)) found.set(keyString, record);
      }
    }
    return found;
  }
}

/** The newer record replaces, in one step, what the older one was to replace. */
export function setRecord(layer: Layer, keyString: string, record: OverlayRecord): void {
  const older = layer.records.get(keyString);
  if (older !== undefined) record.replaced = older.replaced;
  layer.records.set(keyString, record);
}

function merge(from: Layer, into: Layer): void {
  for (const [keyString, record] of from.records) setRecord(into, keyString, record);
  for (const [name, cursor] of from.cursors) into.cursors.set(name, cursor);
  for (const [name, value] of from.meta) into.meta.set(name, value);
  into.bytes += from.bytes;
  into.through = from.through;
  into.head = from.head;
}
