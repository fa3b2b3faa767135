import type { Clock, Scheduler } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import type { Version } from '../../model/version.ts';
import type { Heartbeat } from '../../proto/gen/peer.ts';
import type { VolumeIdentity } from '../cluster/identity.ts';
import type { PartitionSet } from '../cluster/partition-set.ts';
import type { Standing } from '../cluster/standing.ts';
import type { Mutation, Store, StoredRecord } from '../storage/store.ts';
import { type CollectionSettings, Collector } from './horizon/collector.ts';
import { Horizons } from './horizon/horizons.ts';
import { Disturbances, type Label } from './horizon/label.ts';
import { LowWater } from './horizon/low-water.ts';
import type { HorizonReport, MemberView } from './horizon/verdict.ts';
import type { HybridClock } from './hybrid-clock.ts';
import type { ReplicationMetrics } from './metrics.ts';
import { isDataLoss } from './request-handler.ts';
import type { SafetyRules } from './safety-rules.ts';
import type { Topology } from './topology.ts';

export interface CollectionOptions {
  readonly store: Store;
  readonly identity: VolumeIdentity;
  readonly standing: Standing;
  readonly topology: Topology;
  readonly hybridClock: HybridClock;
  /** What a connected member has said in its heartbeats; undefined before the first one. */
  readonly heard: (nodeId: string) => HorizonReport | undefined;
  /** Newest epoch that a connected member has announced. */
  readonly announced: (nodeId: string) => number | undefined;
  /** How far the own log is durable here and at every member that keeps a partition with this node. */
  readonly acknowledged: () => number;
  /** Partitions of which comparisons with all other replicas were completed under the present label. */
  readonly settled: () => PartitionSet;
  /** Whether this node's clock is not known to be off. */
  readonly clockIsSound: () => boolean;
  /** The wall clock of the member that is ahead of all, milliseconds since 1970. */
  readonly latestWallMs: () => number;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly settings: CollectionSettings;
  readonly ceilingStepMs: number;
  readonly metrics: ReplicationMetrics;
  readonly logger: Logger;
  readonly rules: SafetyRules;
}

const NO_LABEL = Buffer.alloc(0);

/**
 * Everything about horizons on this node (PROTOCOL 22-26): what it tells the others, what it concludes from what they
 * tell, what it collects, and what it takes from whom.
 */
export class Collection {
  readonly horizons: Horizons;
  readonly collector: Collector;
  private readonly options: CollectionOptions;
  private readonly disturbances: Disturbances;
  private readonly lowWater: LowWater;
  /** Asked for each partition and peer; what it depends on changes with events and heartbeats. */
  private known: { readonly map: ClusterMap; readonly label: Label } | undefined;
  /** Wall clock at which a member was last connected. */
  private readonly lastSeenMs = new Map<string, number>();

  constructor(options: CollectionOptions) {
    this.options = options;
    const { store, identity, standing, topology, hybridClock, clock, rules } = options;
    const { nodeId } = identity;
    this.horizons = new Horizons({
      store,
      isReadable: (partition) => standing.isReadable(partition),
      rules,
    });
    this.disturbances = new Disturbances({ nodeId, volume: () => identity, rules });
    this.lowWater = new LowWater({
      clock,
      mintClock: hybridClock,
      head: store.head,
      ceilingMs: () => store.clockCeilingMs,
      raiseCeiling: (wallMs) => store.raiseClockCeiling(wallMs),
      // An idle node writes its ceiling as often as that; a watch resumes from no earlier than that.
      lagMs: 2 * options.ceilingStepMs,
    });
    this.collector = new Collector({
      ...options,
      nodeId,
      horizons: this.horizons,
      map: () => topology.map,
      label: () => this.label(),
      member: (member) => this.memberView(member),
      isReadable: (partition) => standing.isReadable(partition),
    });
  }

  /** Hex; empty while it is not known. */
  labelText(): string {
    const label = this.label();
    return label.kind === 'known' ? label.bytes.toString('hex') : '';
  }

  /** What the heartbeat says of horizons. */
  report(): Pick<Heartbeat, 'lowWaterMs' | 'label' | 'settled'> {
    const { lowWaterMs, label, settled } = this.ownReport();
    return { lowWaterMs, label, settled: settled.toBytes() };
  }

  /** To be called at every heartbeat. */
  beat(): void {
    const { topology, clock, heard, acknowledged, clockIsSound } = this.options;
    this.known = undefined;
    for (const nodeId of topology.others) {
      if (heard(nodeId) !== undefined) this.lastSeenMs.set(nodeId, clock.wallMs());
    }
    this.lowWater.note(acknowledged(), clockIsSound());
    this.collector.beat();
  }

  /** A stream with the member has begun, and everything that came on earlier ones is synced. */
  onConnected(nodeId: string, volume: { readonly incarnation: number; readonly uncleanBoot: number }): void {
    this.disturbances.heard(nodeId, volume);
    this.known = undefined;
  }

  /** This node goes on as a new incarnation. */
  onRenewed(): void {
    this.lowWater.restart();
    this.known = undefined;
  }

  /** An own entry was appended, in the turn in which its version was minted. */
  onOwnEntry(sequence: number, { key, record }: Pick<Mutation, 'key' | 'record'>): void {
    this.lowWater.appended(sequence, record.version.wallMs);
    this.note(key, record);
  }

  /** A record was applied. */
  note(key: Buffer, record: StoredRecord): void {
    this.collector.note(this.options.topology.partitionOf(key), record);
  }

  /** What an entry of a peer's log is superseded by because its key was collected here; undefined: nothing. */
  supersederOf(key: Buffer, record: StoredRecord): Version | undefined {
    return this.horizons.supersederOf(key, this.options.topology.partitionOf(key), record);
  }

  /** Whether a record from outside the live log may be applied here (PROTOCOL 24). */
  admits(key: Buffer, { record }: Pick<Mutation, 'record'>, senderHorizonMs: number): boolean {
    const partition = this.options.topology.partitionOf(key);
    return this.horizons.admit(key, partition, record, senderHorizonMs) === 'apply';
  }

  /**
   * Whether an own entry of the log is of a key that is not stored any more: it has been collected, or given to others with
   * everything they have to have of it. Nobody needs the entry, and to whoever gets the log anew it may look like news.
   */
  isOutlived(key: Buffer): boolean {
    return !this.isStored(key);
  }

  /** The member that mints with this incarnation now, if there is one. */
  memberOf(incarnation: number): string | undefined {
    return this.disturbances.memberOf(incarnation);
  }

  private isStored(key: Buffer): boolean {
    try {
      return this.options.store.latest(key) !== undefined;
    } catch (error) {
      // A damaged record is one that is there.
      if (isDataLoss(error)) return true;
      throw error;
    }
  }

  stop(): void {
    this.collector.stop();
  }

  private label(): Label {
    const { topology, announced, identity } = this.options;
    const { map } = topology;
    if (map === undefined) return { kind: 'unknown', member: identity.nodeId, why: 'has no map' };
    if (this.known?.map !== map) this.known = { map, label: this.disturbances.label(map, announced) };
    return this.known.label;
  }

  private ownReport(): HorizonReport {
    const { rules, identity, standing, settled } = this.options;
    // What was settled before a start is not remembered: only without the rule it is taken for granted.
    const startCounts = rules.freezeAfterUncleanStart || identity.uncleanBoot < identity.bootCounter;
    const label = this.label();
    return {
      lowWaterMs: this.lowWater.valueMs,
      label: label.kind === 'known' ? label.bytes : NO_LABEL,
      settled: startCounts ? settled() : standing.readable,
    };
  }

  private memberView(nodeId: string): MemberView {
    if (nodeId === this.options.identity.nodeId) return { kind: 'heard', report: this.ownReport() };
    const report = this.options.heard(nodeId);
    if (report === undefined) return { kind: 'silent', sinceMs: this.lastSeenMs.get(nodeId) };
    return { kind: 'heard', report };
  }
}
