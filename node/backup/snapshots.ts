import { join } from 'node:path';
import {
  BACKUP_FORMAT,
  ChunkBuilder,
  chunkName,
  encodeChunk,
  encodeManifest,
  MANIFEST_NAME,
  type BackupManifest,
  type BackupRecord,
  type ChunkDescription,
} from '../../common/backup-format.ts';
import { abortReason, type Clock } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { syncDirectory } from '../../common/synced-files.ts';
import { partitionOf } from '../../model/key-hash.ts';
import type { Replica } from '../replication/engine.ts';
import {
  listSnapshots,
  makeDirectory,
  removeSnapshot,
  snapshotName,
  writeDurably,
  type DiskSpace,
} from './snapshot-directory.ts';

/** Finished snapshots that are kept. */
const KEEP_LAST = 2;
/** Below this free share of the volume no snapshot is made: the store needs the room more. */
const MIN_FREE_SHARE = 0.2;

/** What was written. */
export interface SnapshotResult {
  /** Directory within the backup directory. */
  readonly name: string;
  /** Tombstones and expired records included. */
  readonly records: number;
  /** Of the chunk files. */
  readonly sizeBytes: number;
}

export interface SnapshotsOptions {
  readonly replica: Pick<Replica, 'map' | 'nodeId' | 'streamRecords'>;
  readonly directory: string;
  readonly softwareVersion: string;
  readonly diskSpace: (directory: string) => Promise<DiskSpace>;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Run {
  readonly controller: AbortController;
  waiting: number;
  readonly result: Promise<SnapshotResult>;
}

/**
 * Node-local snapshots: every record of this node, in the backup format, one directory each, the newest two kept. One is
 * made at a time; calls that come meanwhile share the next one, which begins after all of them.
 */
export class Snapshots {
  private readonly options: SnapshotsOptions;
  private running: Run | undefined;
  private next: Run | undefined;

  constructor(options: SnapshotsOptions) {
    this.options = options;
  }

  /**
   * Makes a snapshot that holds every write this node held when the call came.
   *
   * @param signal ends the wait, and the work when nobody else waits for it.
   * @throws KvError RESOURCE_EXHAUSTED without enough room; UNAVAILABLE without a map; ABORTED by the signal.
   */
  async take(signal: AbortSignal): Promise<SnapshotResult> {
    if (signal.aborted) throw abortReason(signal);
    const run =
      this.running === undefined
        ? (this.running = this.begin())
        : (this.next ??= this.beginAfter(this.running));
    run.waiting += 1;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        run.waiting -= 1;
        if (run.waiting === 0) run.controller.abort(abortReason(signal));
        reject(abortReason(signal));
      };
      signal.addEventListener('abort', onAbort, { once: true });
      run.result.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
    });
  }

  private begin(): Run {
    const controller = new AbortController();
    return { controller, waiting: 0, result: this.finished(this.write(controller.signal)) };
  }

  private beginAfter(previous: Run): Run {
    const controller = new AbortController();
    const result = previous.result
      .catch(() => undefined)
      .then(() => {
        this.running = this.next;
        this.next = undefined;
        return this.write(controller.signal);
      });
    return { controller, waiting: 0, result: this.finished(result) };
  }

  private async finished(work: Promise<SnapshotResult>): Promise<SnapshotResult> {
    try {
      return await work;
    } finally {
      if (this.next === undefined) this.running = undefined;
    }
  }

  private async write(signal: AbortSignal): Promise<SnapshotResult> {
    const { clock, directory, logger, replica } = this.options;
    const { map } = replica;
    if (map === undefined) {
      throw new KvError('UNAVAILABLE', `${replica.nodeId} has no cluster map yet, and so nothing to back up`);
    }
    signal.throwIfAborted();
    const startedMs = clock.wallMs();
    await makeDirectory(directory);
    const { finished, unfinished } = await listSnapshots(directory);
    for (const name of unfinished) await removeSnapshot(directory, name);
    await this.checkRoom();
    const name = snapshotName(startedMs, finished);
    const target = join(directory, name);
    try {
      await makeDirectory(target);
      const { chunks, head, incarnation } = await this.writeChunks(target, map.partitions, signal);
      const manifest: BackupManifest = {
        format: BACKUP_FORMAT,
        kind: 'node',
        clusterId: map.clusterId,
        namespace: map.namespace,
        clusterName: map.name,
        epoch: map.epoch,
        partitions: map.partitions,
        startedAt: new Date(startedMs).toISOString(),
        finishedAt: new Date(clock.wallMs()).toISOString(),
        softwareVersion: this.options.softwareVersion,
        sources: [{ nodeId: replica.nodeId, incarnation, head }],
        records: sum(chunks, ({ records }) => records),
        sizeBytes: sum(chunks, ({ sizeBytes }) => sizeBytes),
        chunks,
      };
      await writeDurably(target, MANIFEST_NAME, encodeManifest(manifest));
      await syncDirectory(target);
      await syncDirectory(directory);
      for (const old of [...finished, name].slice(0, -KEEP_LAST)) await removeSnapshot(directory, old);
      const { records, sizeBytes } = manifest;
      logger.info(
        { snapshot: name, records, sizeBytes, tookMs: clock.wallMs() - startedMs },
        'snapshot written',
      );
      return { name, records, sizeBytes };
    } catch (error) {
      await removeSnapshot(directory, name).catch((cause: unknown) => {
        logger.warn({ snapshot: name, error: cause }, 'cannot remove an unfinished snapshot');
      });
      throw explained(error, directory);
    }
  }

  private async checkRoom(): Promise<void> {
    const { diskSpace, directory } = this.options;
    const { freeBytes, totalBytes } = await diskSpace(directory);
    if (freeBytes >= totalBytes * MIN_FREE_SHARE) return;
    const percent = Math.floor((freeBytes / totalBytes) * 100);
    throw new KvError(
      'RESOURCE_EXHAUSTED',
      `no snapshot: only ${percent} % of the volume of ${directory} is free and ${MIN_FREE_SHARE * 100} % are needed; make room, or give --backup-dir another volume`,
      { retryable: false },
    );
  }

  private async writeChunks(
    target: string,
    partitions: number,
    signal: AbortSignal,
  ): Promise<{ chunks: ChunkDescription[]; head: number; incarnation: number }> {
    const chunks: ChunkDescription[] = [];
    const builder = new ChunkBuilder();
    const flush = async (records: readonly BackupRecord[]): Promise<void> => {
      const name = chunkName(chunks.length);
      const { bytes, description } = await encodeChunk(name, records, (key) => partitionOf(key, partitions));
      await writeDurably(target, name, bytes);
      chunks.push(description);
    };
    let head = 0;
    let incarnation = 0;
    let complete = false;
    const request = { header: undefined, after: undefined, partitions: [] };
    for await (const chunk of this.options.replica.streamRecords(request, signal)) {
      head = chunk.head ?? head;
      if (chunk.incarnation !== 0) incarnation = chunk.incarnation;
      complete = chunk.complete;
      for (const record of chunk.records) if (builder.add(record)) await flush(builder.take());
      signal.throwIfAborted();
    }
    if (!complete) throw new KvError('UNAVAILABLE', 'the stream of records ended early; try again');
    const rest = builder.take();
    if (rest.length > 0) await flush(rest);
    return { chunks, head, incarnation };
  }
}

function sum(chunks: readonly ChunkDescription[], of: (chunk: ChunkDescription) => number): number {
  return chunks.reduce((total, chunk) => total + of(chunk), 0);
}

function explained(error: unknown, directory: string): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const message = `no snapshot: the volume of ${directory} is full (${messageOf(error)})`;
    return new KvError('RESOURCE_EXHAUSTED', message, { cause: error, retryable: false });
  }
  return error;
}
