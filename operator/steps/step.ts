import type { AdminClient } from '../../client/admin-client.ts';
import type { Clock } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import type { Random } from '../../common/random.ts';
import type { KVClusterSpec } from '../../model/kvcluster.ts';
import type { ClusterMemory } from '../cluster-memory.ts';
import type { NodeView } from '../nodes.ts';
import type { ClusterIdentity } from '../resources/names.ts';
import type { KubernetesApi } from '../runtime/api.ts';
import type { Writer } from '../runtime/apply.ts';
import type { Cache } from '../runtime/cache.ts';

/** Why a reconciliation is not finished: the reasons of the condition Progressing. */
export type ProgressReason = 'Bootstrapping' | 'Adopting' | 'RollingUpdate' | 'Scaling';

/** What a step came to. Its reason and message are what status and log show. */
export type StepResult =
  | { readonly kind: 'continue' }
  /** Not done: come back after this time, or when something changes. */
  | {
      readonly kind: 'requeueAfter';
      readonly delayMs: number;
      readonly reason: ProgressReason;
      readonly message: string;
    }
  /** Cannot go on until a person does something. */
  | { readonly kind: 'blocked'; readonly reason: string; readonly message: string };

export const proceed: StepResult = { kind: 'continue' };

export function requeueAfter(delayMs: number, reason: ProgressReason, message: string): StepResult {
  return { kind: 'requeueAfter', delayMs, reason, message };
}

export function blocked(reason: string, message: string): StepResult {
  return { kind: 'blocked', reason, message };
}

/** What every step works with. */
export interface Runtime {
  readonly api: KubernetesApi;
  readonly cache: Cache;
  readonly writer: Writer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Image of the nodes of new clusters that name none. */
  readonly defaultImage: string;
  readonly clusterDomain: string;
  /** Whether the Lease is held, by the local clock: asked before every destructive act. */
  readonly isLeader: () => boolean;
  readonly connectAdmin: (secret: Buffer) => AdminClient;
}

/** One reconciliation of one cluster. */
export interface StepContext extends Runtime {
  readonly cluster: ClusterIdentity;
  readonly spec: KVClusterSpec;
  readonly image: string;
  /** Pods that there should be; more than `spec.replicas` when a taken over map has more members. */
  readonly replicas: number;
  /** Nodes that each pod should run; more than `spec.workersPerPod` until the map has no member for them any more. */
  readonly workers: number;
  /** Its nodes have not all served at the same time yet. */
  readonly isStarting: boolean;
  /** The nodes as they were when the reconciliation began. */
  readonly nodes: readonly NodeView[];
  /** What this process remembers of the cluster. */
  readonly memory: ClusterMemory;
  readonly signal: AbortSignal;
}

export type Step = (context: StepContext) => Promise<StepResult>;

/**
 * Called before anything is deleted.
 *
 * @throws when another process may be leading by now.
 */
export function assertLeading(context: Pick<Runtime, 'isLeader'>): void {
  if (!context.isLeader()) throw new Error('the Lease is no longer held: nothing is deleted');
}
