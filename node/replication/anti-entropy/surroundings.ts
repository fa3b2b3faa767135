import type { Clock, Scheduler } from '../../../common/clock.ts';
import type { Logger } from '../../../common/log.ts';
import { type ClusterMap, memberOf } from '../../../model/cluster-map.ts';
import { holdsPartition, partitionsHeldBy } from '../../../model/replica-sets.ts';
import type { Store, StoredRecord } from '../../storage/store.ts';
import type { SafetyRules } from '../safety-rules.ts';
import type { AntiEntropyMetrics } from './metrics.ts';
import type { AntiEntropySettings } from './settings.ts';

/** Which partitions this node holds everything of. */
export interface StandingView {
  isReadable(partition: number): boolean;
  /** Resolves when the marks are durable. */
  markReadable(partitions: Iterable<number>): Promise<void>;
}

/** Below the horizon of a partition, tombstones and expired records are gone (PROTOCOL 22). */
export interface HorizonView {
  /** What counts, milliseconds: 0 while the partition is not readable here. */
  of(partition: number): number;
  /**
   * Takes over a readable replica's horizon for a partition that is readable here, where it is larger, and resolves when
   * whatever the horizon covers is out of the digest.
   */
  follow(partition: number, horizonMs: number): Promise<unknown>;
  /** Makes these horizons durable for partitions that are about to become readable: those of the replicas they were filled from. */
  inherit(horizons: readonly (readonly [partition: number, horizonMs: number])[]): Promise<void>;
  /**
   * Whether a record that comes outside of the live log is to be applied: not when it is purged here (PROTOCOL 24). Asked
   * in the turn in which it is applied.
   */
  admits(key: Buffer, partition: number, record: StoredRecord, senderHorizonMs: number): boolean;
}

/** The cluster as this node knows it. */
export interface ClusterView {
  readonly nodeId: string;
  readonly map: ClusterMap | undefined;
  /** Epoch that every member not marked down has announced; 0 when there is none. */
  barrierEpoch(): number;
  /** What comparisons must have begun under to permit a larger horizon (PROTOCOL 23); empty: not known. */
  label(): string;
}

/** Everything that comparisons, fills and scrubbing stand on. */
export interface Surroundings {
  readonly store: Store;
  readonly standing: StandingView;
  readonly horizons: HorizonView;
  readonly cluster: ClusterView;
  /** A record of somebody else is about to be applied: its version is one to stay above. */
  readonly onReceived: (partition: number, record: StoredRecord) => void;
  /** It was applied, with nothing newer there. */
  readonly onApplied: (partition: number, record: StoredRecord) => void;
  /** A record of this node fails its checksum. */
  readonly onDamaged: (key: Buffer) => void;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly settings: AntiEntropySettings;
  readonly metrics: AntiEntropyMetrics;
  readonly logger: Logger;
  readonly rules: SafetyRules;
}

/** Partitions that this node keeps, ascending; none without a map that lists it. */
export function heldPartitions({ map, nodeId }: ClusterView): readonly number[] {
  return map === undefined || memberOf(map, nodeId) === undefined ? [] : partitionsHeldBy(map, nodeId);
}

/** Whether this node and a peer both keep a partition. */
export function sharesPartition({ map, nodeId }: ClusterView, peer: string, partition: number): boolean {
  return map !== undefined && holdsPartition(map, nodeId, partition) && holdsPartition(map, peer, partition);
}

/**
 * Brings a readable partition to the larger of both horizons before its leaves are compared, so that purging does not
 * look like a difference. A horizon beyond the own wall clock is no proof of anything: horizons are in the past.
 */
export async function followHorizon(
  { standing, horizons, clock }: Pick<Surroundings, 'standing' | 'horizons' | 'clock'>,
  partition: number,
  horizonMs: number,
): Promise<void> {
  if (!standing.isReadable(partition) || horizonMs > clock.wallMs()) return;
  await horizons.follow(partition, Math.max(horizonMs, horizons.of(partition)));
}

/** Lets other work of the event loop run. */
export function nextTurn(scheduler: Scheduler): Promise<void> {
  return new Promise((resolve) => {
    scheduler.soon(resolve);
  });
}
