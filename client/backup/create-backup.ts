import { type Clock, type Scheduler, sleep } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import type { Random } from '../../common/random.ts';
import { canonicalJson, type ClusterMap } from '../../model/cluster-map.ts';
import { StoreState } from '../../proto/gen/peer.ts';
import type { AdminClient } from '../admin-client.ts';
import { type MemberReport, type MemberSeeds, askMembers, findMap } from '../members.ts';
import { clusterDirectory, newBackupId } from './backup-path.ts';
import { BackupWriter, removeAbandoned } from './backup-writer.ts';
import { uncoveredPartitions } from './coverage.ts';
import { type PlacedRecord, mergeReplicas } from './merge.ts';
import { RecordSource } from './record-source.ts';

export interface CreateBackupOptions {
  readonly admin: AdminClient;
  readonly seeds: MemberSeeds;
  /** Directory under which backups of any number of clusters lie. */
  readonly target: string;
  /** How long to wait until enough members can be read, milliseconds. */
  readonly waitMs: number;
  readonly softwareVersion: string;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly signal: AbortSignal;
}

/** A finished backup. */
export interface CreatedBackup {
  readonly id: string;
  readonly directory: string;
  readonly clusterId: string;
  /** ISO 8601, UTC: every write acknowledged at QUORUM or ALL before it is contained. */
  readonly startedAt: string;
  readonly records: number;
  /** Of the chunk files. */
  readonly sizeBytes: number;
  readonly seconds: number;
  /** Members that were read to their end. */
  readonly sources: readonly string[];
}

const RETRY_MS = 1000;

/**
 * Streams the records of every readable member, merges them by version and writes them as one backup. Memory is bounded
 * by one chunk of the backup and one message per member.
 *
 * @throws KvError UNAVAILABLE naming the members that are missing when some partition has fewer than
 * |replicas| - Q + 1 readable replicas; nothing is left behind then. The signal's reason when it aborts.
 */
export async function createBackup(options: CreateBackupOptions): Promise<CreatedBackup> {
  const { clock, random, target } = options;
  const { map, readable, startedAtMs } = await awaitReadable(options);
  const id = newBackupId(startedAtMs, random);
  const parent = clusterDirectory(target, map);
  await removeAbandoned(parent, clock.wallMs());
  const writer = await BackupWriter.create(parent, id, map.partitions);
  try {
    const reading = openSources(options, map, readable);
    for await (const record of mergeReplicas(reading.streams)) await writer.add(record);
    const sources = reading.complete();
    await requireSamePlacement(options, map);
    const startedAt = new Date(startedAtMs).toISOString();
    const finishedAtMs = clock.wallMs();
    const manifest = await writer.commit({
      format: 1,
      kind: 'cluster',
      clusterId: map.clusterId,
      namespace: map.namespace,
      clusterName: map.name,
      epoch: map.epoch,
      partitions: map.partitions,
      startedAt,
      finishedAt: new Date(finishedAtMs).toISOString(),
      softwareVersion: options.softwareVersion,
      sources: sources.map((source) => ({
        nodeId: source.target.nodeId,
        incarnation: source.incarnation,
        head: source.head,
      })),
    });
    return {
      id,
      directory: `${parent}/${id}`,
      clusterId: map.clusterId,
      startedAt,
      records: manifest.records,
      sizeBytes: manifest.sizeBytes,
      seconds: Math.max(0, finishedAtMs - startedAtMs) / 1000,
      sources: sources.map((source) => source.target.nodeId),
    };
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}

interface ReadableMember {
  readonly report: MemberReport;
  readonly incarnation: number;
}

interface ReadableCluster {
  readonly map: ClusterMap;
  readonly readable: readonly ReadableMember[];
  /** Before the first stream is opened. */
  readonly startedAtMs: number;
}

/** Waits until every partition has enough readable replicas. */
async function awaitReadable(options: CreateBackupOptions): Promise<ReadableCluster> {
  const { admin, seeds, clock, scheduler, signal, waitMs } = options;
  const giveUpAtMs = clock.monotonicMs() + waitMs;
  for (;;) {
    try {
      const startedAtMs = clock.wallMs();
      const map = await findMap(admin, seeds, signal);
      const reports = await askMembers(admin, map, seeds, signal);
      const readable = reports.flatMap((report) => readableMember(report, map) ?? []);
      requireCoverage(map, new Set(readable.map(({ report }) => report.target.nodeId)), reports);
      return { map, readable, startedAtMs };
    } catch (error) {
      signal.throwIfAborted();
      const mayPass = error instanceof KvError && error.code === 'UNAVAILABLE';
      if (!mayPass || clock.monotonicMs() + RETRY_MS > giveUpAtMs) throw error;
      await sleep(scheduler, RETRY_MS, signal);
    }
  }
}

function readableMember(report: MemberReport, map: ClusterMap): ReadableMember | undefined {
  const { status } = report;
  if (status?.volume?.clusterId !== map.clusterId || status.state !== StoreState.READABLE) return undefined;
  return { report, incarnation: status.volume.incarnation };
}

function requireCoverage(
  map: ClusterMap,
  readable: ReadonlySet<string>,
  reports: readonly MemberReport[],
): void {
  const uncovered = uncoveredPartitions(map, readable);
  const [first] = uncovered;
  if (first === undefined) return;
  const missing = reports
    .filter(({ target }) => !readable.has(target.nodeId))
    .map(({ target, status, error }) => {
      const why = status === undefined ? messageOf(error) : status.notReadyReason || 'it serves no reads';
      return `${target.nodeId}: ${why}`;
    });
  throw new KvError(
    'UNAVAILABLE',
    `a backup needs ${first.needed} readable replicas of each partition and ${uncovered.length} of ` +
      `${map.partitions} have fewer; missing: ${missing.join('; ')}`,
  );
}

/** A partition that moved meanwhile may have been left out by the old owner and not yet begun by the new one. */
async function requireSamePlacement(
  { admin, seeds, signal }: CreateBackupOptions,
  map: ClusterMap,
): Promise<void> {
  const now = await findMap(admin, seeds, signal);
  if (placementOf(now) === placementOf(map)) return;
  throw new KvError('UNAVAILABLE', 'partitions moved while they were backed up: make the backup again');
}

function placementOf({ members, assignment, moving }: ClusterMap): string {
  return canonicalJson({ members: members.map(({ nodeId }) => nodeId), assignment, moving });
}

/** The members' streams; one that breaks is left out as long as the others suffice. */
function openSources(
  options: CreateBackupOptions,
  map: ClusterMap,
  readable: readonly ReadableMember[],
): { streams: readonly AsyncIterable<PlacedRecord>[]; complete: () => readonly RecordSource[] } {
  const { admin, scheduler, random, signal } = options;
  const sources = readable.map(({ report, incarnation }) => {
    const { target } = report;
    return new RecordSource({
      admin,
      target,
      incarnation,
      partitions: map.partitions,
      scheduler,
      random,
      signal,
    });
  });
  const alive = new Map(sources.map((source) => [source.target.nodeId, source]));
  async function* read(source: RecordSource): AsyncGenerator<PlacedRecord, void, undefined> {
    try {
      yield* source.records();
    } catch (error) {
      alive.delete(source.target.nodeId);
      const enough = uncoveredPartitions(map, new Set(alive.keys())).length === 0;
      if (signal.aborted || !enough) throw error;
    }
  }
  return { streams: sources.map(read), complete: () => [...alive.values()] };
}
