import type { Clock, Scheduler } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import type { Random } from '../../common/random.ts';
import type { Store } from '../storage/store.ts';
import type { ReplicationMetrics } from './metrics.ts';
import type { SafetyRules } from './safety-rules.ts';
import type { ReplicationSettings } from './settings.ts';
import type { Discovery, PeerTransport } from './transport.ts';

/** What `createReplica` (replica.ts) builds a running `Replica` from. The store stays its opener's to close. */
export interface ReplicaOptions {
  /** Stable name of this member in the map. */
  readonly nodeId: string;
  /** Namespace and name of the cluster; a map of another is refused. */
  readonly namespace: string;
  readonly name: string;
  /** Opened, with the cluster's number of partitions. */
  readonly store: Store;
  readonly transport: PeerTransport;
  readonly discovery: Discovery;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly logger: Logger;
  /** @default DEFAULT_REPLICATION_SETTINGS */
  readonly settings?: Partial<ReplicationSettings>;
  /** @default nothing is measured */
  readonly metrics?: ReplicationMetrics;
  /** For tests that show that a broken rule is noticed. @default SAFETY_RULES */
  readonly rules?: SafetyRules;
}
