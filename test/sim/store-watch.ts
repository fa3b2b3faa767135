import { byteString } from '../../common/bytes.ts';
import { compareVersions, formatVersion, NO_VERSION, type Version } from '../../model/version.ts';
import type { LogStore } from '../../node/storage/log-store.ts';
import type { ApplyResult, LogCursor, Mutation, StoredRecord } from '../../node/storage/store.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import { requestName } from './request-name.ts';
import { operationIdOf } from './values.ts';

export interface WatchOptions {
  readonly nodeId: string;
  readonly violated: (what: string, key?: string) => void;
  /** A value of this operation has been applied somewhere. */
  readonly applied: (operationId: number, version: Version) => void;
  /** A write with a request id has been given this version here: its first one by this process, or another one. */
  readonly minted: (requestId: RequestId, version: Version, isFirst: boolean) => void;
  /** An own entry was appended to the log. */
  readonly appended: (sequence: number, key: Buffer, version: Version) => void;
  /** A horizon has risen. */
  readonly horizonsRisen: () => void;
  /** A record was removed without a newer one in its place. */
  readonly removed: (partition: number, key: Buffer, record: StoredRecord | undefined) => void;
  /** For the history. */
  readonly line: (text: () => string) => void;
}

/** Under which horizons are kept. */
const HORIZONS = 'horizons';

/**
 * Watches one member's store over all its lives: what it once called durable stays, and versions of a key never go down
 * (PROTOCOL 2, 4), but for volumes that were lost.
 */
export class StoreWatch {
  private readonly options: WatchOptions;
  /** Newest version of each key that was called durable. */
  private durable = new Map<string, Version>();
  /** The writes with a request id that this process has minted, by requestName. */
  private minted = new Set<string>();
  /** Keys that were collected or given away, one after the other. */
  private readonly removed: string[] = [];

  constructor(options: WatchOptions) {
    this.options = options;
  }

  /** A process has opened the volume. */
  opened(store: LogStore): void {
    this.minted = new Set();
    for (const [key, version] of this.durable) {
      const held = store.get(Buffer.from(key, 'latin1'))?.version ?? NO_VERSION;
      if (compareVersions(held, version) >= 0) continue;
      this.options.violated(
        `${this.options.nodeId} called ${formatVersion(version)} of ${key} durable and holds ${formatVersion(held)} after a restart`,
        key,
      );
    }
    const apply = store.apply.bind(store);
    store.apply = (mutations, cursor) => this.watched(apply, mutations, cursor);
    const write = store.write.bind(store);
    store.write = (key, make, requestId) => {
      const result = write(key, make, requestId);
      if (result === undefined) return undefined;
      const { record, previous, sequence } = result;
      this.options.appended(sequence, key, record.version);
      this.noteWritten(
        { key, record, own: true, ...(requestId === undefined ? {} : { requestId }) },
        previous,
      );
      const { durable } = this;
      result.durable.then(
        () => raise(durable, byteString(key), record.version),
        () => undefined,
      );
      return result;
    };
    const load = store.load.bind(store);
    store.load = async (records) => {
      const { durable } = this;
      const before = this.removed.length;
      for (const { key, record } of records) {
        this.noteApplied(record);
        this.tell('loads', key, record);
      }
      const loaded = await load(records);
      const since = new Set(this.removed.slice(before));
      for (const { key, record } of records) {
        if (!since.has(byteString(key))) raise(durable, byteString(key), record.version);
      }
      return loaded;
    };
    const writeMeta = store.writeMeta.bind(store);
    store.writeMeta = async (name, value) => {
      await writeMeta(name, value);
      if (name === HORIZONS) this.options.horizonsRisen();
    };
    const removeWhere = store.removeWhere.bind(store);
    store.removeWhere = (partition, accepts) =>
      removeWhere(partition, (key, record) => {
        const accepted = accepts(key, record);
        // Collected, or given away.
        if (!accepted) return false;
        this.durable.delete(byteString(key));
        this.removed.push(byteString(key));
        this.options.removed(partition, key, record);
        this.tell('removes', key, record);
        return true;
      });
  }

  /** The volume is another one from now on. */
  forget(): void {
    this.durable = new Map();
  }

  private tell(what: string, key: Buffer, record: StoredRecord | undefined): void {
    this.options.line(() => {
      const held = record === undefined ? 'a damaged record' : formatVersion(record.version);
      const kind =
        record?.tombstone === true ? ' deleted' : record?.expiresAtMs === undefined ? '' : ' expiring';
      return `${this.options.nodeId} ${what} ${key.toString()} ${held}${kind}`;
    });
  }

  private noteApplied(record: StoredRecord): void {
    if (!record.tombstone) this.options.applied(operationIdOf(record.value), record.version);
  }

  private noteWritten(
    { key, record, own, requestId }: Mutation,
    previous: StoredRecord | undefined,
    cursor?: LogCursor,
  ): void {
    this.noteApplied(record);
    if (own && requestId !== undefined) this.noteMinted(requestId, record.version);
    this.tell(cursor === undefined ? 'applies' : `applies from ${cursor.origin}`, key, record);
    const before = previous?.version ?? NO_VERSION;
    if (compareVersions(record.version, before) > 0) return;
    this.options.violated(
      `${this.options.nodeId} replaced ${formatVersion(before)} of ${key.toString()} by ${formatVersion(record.version)}`,
      byteString(key),
    );
  }

  private noteMinted(requestId: RequestId, version: Version): void {
    const name = requestName(requestId);
    this.options.minted(requestId, version, !this.minted.has(name));
    this.minted.add(name);
  }

  private watched(
    apply: LogStore['apply'],
    mutations: readonly Mutation[],
    cursor: LogCursor | undefined,
  ): ApplyResult {
    const { durable } = this;
    const before = this.removed.length;
    const result = apply(mutations, cursor);
    mutations.forEach((mutation, index) => {
      const outcome = result.outcomes[index];
      if (outcome?.kind !== 'applied') return;
      const { own, key, record } = mutation;
      if (own) this.options.appended(outcome.sequence, key, record.version);
      this.noteWritten(mutation, outcome.previous, cursor);
    });
    result.durable.then(
      () => {
        // Given away while the sync was waited for.
        const since = new Set(this.removed.slice(before));
        mutations.forEach(({ record, key }, index) => {
          if (since.has(byteString(key))) return;
          const outcome = result.outcomes[index];
          const version = outcome?.kind === 'superseded' ? outcome.by : record.version;
          raise(durable, byteString(key), version);
        });
      },
      () => undefined,
    );
    return result;
  }
}

function raise(versions: Map<string, Version>, key: string, version: Version): void {
  const before = versions.get(key);
  if (before === undefined || compareVersions(version, before) > 0) versions.set(key, version);
}
