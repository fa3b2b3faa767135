import { byteString } from '../../common/bytes.ts';
import { digestKey, weightOf } from './digest.ts';
import type { LogEntry, RecordEntry } from './entry.ts';
import { emptyLayer, overlayRecord, setRecord, type Layer, type OverlayRecord } from './overlay.ts';
import { decodeIfSound } from './record.ts';
import { cursorName } from './state-meta.ts';
import type { IndexedState } from './state.ts';
import type { LogCursor, StoredRecord } from './store.ts';
import { supersedes } from './supersedes.ts';

/**
 * Gathers the entries of the log that the state does not have yet into layers of the size of a checkpoint.
 *
 * Each record is decided about once more, against what the state holds now: the state may be ahead of its applied sequence
 * in some keys, and records that were loaded or removed without the log may be missing or back. What an entry replaced when
 * it was written says nothing about that; what the state holds is what its digests count.
 */
export class Replay {
  readonly layers: Layer[] = [];
  /** Sequence of the newest own record. */
  head: number;
  private readonly state: IndexedState;
  private readonly layerRecords: number;
  private readonly newest = new Map<string, OverlayRecord>();

  constructor(options: { state: IndexedState; head: number; layerRecords: number }) {
    this.state = options.state;
    this.head = options.head;
    this.layerRecords = options.layerRecords;
  }

  add(entry: LogEntry): void {
    const layer = this.layerFor(entry.sequence);
    layer.through = entry.sequence;
    switch (entry.kind) {
      case 'record':
        if (entry.own) this.head = entry.sequence;
        layer.head = this.head;
        this.addRecord(layer, entry);
        break;
      case 'cursor':
        layer.cursors.set(cursorName(entry.cursor), entry.cursor);
        break;
      case 'meta':
        layer.meta.set(entry.name, entry.value);
        break;
    }
  }

  applyTo(cursors: Map<string, LogCursor>, meta: Map<string, Buffer>): void {
    for (const layer of this.layers) {
      for (const [name, cursor] of layer.cursors) cursors.set(name, cursor);
      for (const [name, value] of layer.meta) meta.set(name, value);
    }
  }

  private addRecord(layer: Layer, { partition, key, record }: RecordEntry): void {
    const keyString = byteString(key);
    const keyDigest = digestKey(key);
    const newest = this.newest.get(keyString);
    const { record: previous, weight } = newest ?? this.inState(partition, key, keyDigest);
    if (previous !== undefined && !supersedes(record, previous)) return;
    const replayed = overlayRecord({ partition, key, keyDigest }, record, weight);
    setRecord(layer, keyString, replayed);
    this.newest.set(keyString, replayed);
    layer.bytes += key.length + record.bytes.length;
  }

  private inState(
    partition: number,
    key: Buffer,
    keyDigest: number,
  ): { record: StoredRecord | undefined; weight: number | undefined } {
    const bytes = this.state.get(partition, key);
    if (bytes === undefined) return { record: undefined, weight: 0 };
    const record = decodeIfSound(key, bytes);
    return { record, weight: record === undefined ? undefined : weightOf(keyDigest, record) };
  }

  private layerFor(sequence: number): Layer {
    const newest = this.layers.at(-1);
    if (newest !== undefined && newest.records.size < this.layerRecords) return newest;
    const layer = emptyLayer(sequence, this.head);
    this.layers.push(layer);
    return layer;
  }
}
