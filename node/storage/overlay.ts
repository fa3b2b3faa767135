import { leafOf, weightOf } from './digest.ts';
import type { DigestChange } from './digests.ts';
import type { LogCursor, StoredRecord } from './store.ts';

/** A record on its way into the state. */
export interface OverlayRecord extends DigestChange {
  readonly key: Buffer;
  /** Undefined: the key is to have none any more. */
  readonly record: StoredRecord | undefined;
  /** What the key has beneath the layer counts for this. */
  replaced: number | undefined;
}

/** A record above one that counts for `replaced`; no record: a removal. */
export function overlayRecord(
  place: { partition: number; key: Buffer; keyDigest: number },
  record: StoredRecord | undefined,
  replaced: number | undefined,
): OverlayRecord {
  const { partition, key, keyDigest } = place;
  const weight = record === undefined ? 0 : weightOf(keyDigest, record);
  return { partition, key, record, leaf: leafOf(keyDigest), weight, replaced };
}

/** Changes that go into the state together: the newest record of each key, cursors and metas. */
export interface Layer {
  /** By byteString(key). */
  readonly records: Map<string, OverlayRecord>;
  /** By cursorName (state-meta.ts). */
  readonly cursors: Map<string, LogCursor>;
  readonly meta: Map<string, Buffer>;
  /** Of keys and records, replaced ones included. */
  bytes: number;
  /** The log up to this sequence is in this layer and those beneath it. */
  through: number;
  /** Sequence of the newest own record up to `through`. */
  head: number;
  /** Being checkpointed: nothing may be added. */
  sealed: boolean;
  /** Records that were loaded without the log are durable, and may be read, only when the state has them. */
  readonly loaded: boolean;
  /** It has removals: what they removed is back after a crash. */
  removes: boolean;
}

export function emptyLayer(through: number, head: number, loaded = false): Layer {
  return {
    records: new Map(),
    cursors: new Map(),
    meta: new Map(),
    bytes: 0,
    through,
    head,
    sealed: false,
    loaded,
    removes: false,
  };
}

/**
 * What the state does not have yet, newest last: layers that wait for their sync, one for each group, above layers that
 * wait for a checkpoint. Those are synced, or hold what was loaded or removed without the log. Reads look at the ones that
 * are durable, the next version of a key is decided on all of them.
 */
export class Overlay {
  /** Bytes that wait for a checkpoint. */
  waitingBytes = 0;
  /** Bytes that wait for a sync. */
  pendingBytes = 0;
  private readonly pending: Layer[] = [];
  private readonly waiting: Layer[] = [];
  private readonly layerRecords: number;
  private readonly layerBytes: number;
  private through: number;
  private head: number;

  /** A waiting layer with so many records or bytes takes no more. `through` and `head` as in the state. */
  constructor(options: { layerRecords: number; layerBytes: number; through: number; head: number }) {
    this.layerRecords = options.layerRecords;
    this.layerBytes = options.layerBytes;
    this.through = options.through;
    this.head = options.head;
  }

  /** Adds a layer for the group that collects now. */
  addPending(layer: Layer): void {
    this.pending.push(layer);
  }

  /** Puts a record into the newest pending layer. */
  put(layer: Layer, keyString: string, record: OverlayRecord): void {
    setRecord(layer, keyString, record);
    this.grow(layer, bytesOf(record));
  }

  /** Counts bytes of a pending layer. */
  grow(layer: Layer, bytes: number): void {
    layer.bytes += bytes;
    this.pendingBytes += bytes;
  }

  /** Puts a record that is not in the log above everything that waits; nothing pending may have its key. */
  putUnlogged(keyString: string, record: OverlayRecord): void {
    const layer = this.unloggedLayer(record.record !== undefined);
    layer.removes ||= record.record === undefined;
    setRecord(layer, keyString, record);
    layer.bytes += bytesOf(record);
    this.waitingBytes += bytesOf(record);
  }

  /** The unsynced layer that holds the newest record of a key, if one does. */
  pendingLayer(keyString: string): Layer | undefined {
    return this.pending.findLast((layer) => layer.records.has(keyString));
  }

  /** The first unsynced layer that moves a cursor at least this far. */
  pendingLayerOfCursor(name: string, sequence: number): Layer | undefined {
    return this.pending.find((layer) => (layer.cursors.get(name)?.sequence ?? -1) >= sequence);
  }

  /** The layer that holds the newest record of a key that waits for a checkpoint, if one does. */
  waitingLayer(keyString: string): Layer | undefined {
    return this.waiting.findLast((layer) => layer.records.has(keyString));
  }

  /** What readers see of a key before they look into the state. */
  get(keyString: string): OverlayRecord | undefined {
    for (let index = this.waiting.length - 1; index >= 0; index -= 1) {
      const layer = this.waiting[index];
      const found = layer?.loaded === false ? layer.records.get(keyString) : undefined;
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Everything that readers see before they look into the state, oldest first. */
  *visibleChanges(): Generator<OverlayRecord> {
    for (const layer of this.waiting) if (!layer.loaded) yield* layer.records.values();
  }

  /** The oldest pending layer is synced now. */
  promote(layer: Layer): void {
    if (this.pending.shift() !== layer) throw new Error('groups are synced in order');
    this.pendingBytes -= layer.bytes;
    this.addSynced(layer);
  }

  /** Adds a synced layer above the others; an empty one has nothing to say. */
  addSynced(layer: Layer): void {
    this.through = layer.through;
    this.head = layer.head;
    if (isEmptyLayer(layer)) return;
    this.waitingBytes += layer.bytes;
    const newest = this.openLayer(false);
    if (newest === undefined) this.waiting.push(layer);
    else merge(layer, newest);
  }

  /** The layer to be checkpointed last. */
  get newest(): Layer | undefined {
    return this.waiting.at(-1);
  }

  /** The layer to be checkpointed next. */
  get oldest(): Layer | undefined {
    return this.waiting[0];
  }

  /** Whether a layer waits that takes no more. */
  get hasFullLayer(): boolean {
    const { oldest } = this;
    return this.waiting.length > 1 || (oldest !== undefined && this.isFull(oldest));
  }

  /** Whether a removal waits for its checkpoint. */
  get removes(): boolean {
    return this.waiting.some((layer) => layer.removes);
  }

  /** Records that wait for a checkpoint, the same key counted once per layer. */
  get waitingRecords(): number {
    return this.waiting.reduce((sum, layer) => sum + layer.records.size, 0);
  }

  /** The oldest layer is in the state now. */
  drop(layer: Layer): void {
    if (this.waiting.shift() !== layer) throw new Error('layers are checkpointed in order');
    this.waitingBytes -= layer.bytes;
  }

  /** What readers see of each key of a partition that `wanted` accepts. */
  recordsOf(partition: number, wanted: (key: Buffer) => boolean): Map<string, OverlayRecord> {
    const found = new Map<string, OverlayRecord>();
    for (const layer of this.waiting) {
      if (layer.loaded) continue;
      for (const [keyString, record] of layer.records) {
        if (record.partition === partition && wanted(record.key)) found.set(keyString, record);
      }
    }
    return found;
  }

  private isFull(layer: Layer): boolean {
    return layer.records.size >= this.layerRecords || layer.bytes >= this.layerBytes;
  }

  private unloggedLayer(loaded: boolean): Layer {
    const open = this.openLayer(loaded);
    if (open !== undefined) return open;
    const layer = emptyLayer(this.through, this.head, loaded);
    this.waiting.push(layer);
    return layer;
  }

  /** The newest waiting layer, when it is of that kind and takes more. */
  private openLayer(loaded: boolean): Layer | undefined {
    const { newest } = this;
    const isOpen = newest !== undefined && newest.loaded === loaded && !newest.sealed && !this.isFull(newest);
    return isOpen ? newest : undefined;
  }
}

/** The newer record replaces, in one step, what the older one was to replace. */
export function setRecord(layer: Layer, keyString: string, record: OverlayRecord): void {
  const older = layer.records.get(keyString);
  if (older !== undefined) record.replaced = older.replaced;
  layer.records.set(keyString, record);
}

function bytesOf({ key, record }: OverlayRecord): number {
  return key.length + (record?.bytes.length ?? 0);
}

function isEmptyLayer(layer: Layer): boolean {
  return layer.records.size === 0 && layer.cursors.size === 0 && layer.meta.size === 0;
}

function merge(from: Layer, into: Layer): void {
  for (const [keyString, record] of from.records) setRecord(into, keyString, record);
  for (const [name, cursor] of from.cursors) into.cursors.set(name, cursor);
  for (const [name, value] of from.meta) into.meta.set(name, value);
  into.bytes += from.bytes;
  into.through = from.through;
  into.head = from.head;
}
