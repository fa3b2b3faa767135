/** What the operator reports in a KVCluster's status; fields as in deploy/crd/kvclusters.kvcluster.io.yaml. */
export interface KVClusterStatus {
  readonly observedGeneration?: number;
  readonly replicas?: number;
  readonly readyReplicas?: number;
  readonly inSyncReplicas?: number;
  /** Label selector of the pods, for the scale subresource. */
  readonly selector?: string;
  readonly clusterId?: string;
  /** A copy for people; never read back. */
  readonly epoch?: number;
  readonly image?: string;
  readonly nodes?: readonly NodeStatus[];
  readonly backup?: BackupStatus;
  readonly conditions?: readonly Condition[];
}

export type NodeState =
  /** There is no pod. */
  | 'Missing'
  /** The pod does not run yet, or not any more. */
  | 'Pending'
  /** The pod runs, but its node does not answer. */
  | 'Unreachable'
  /** It has no map and no data. */
  | 'Blank'
  /** It fills its volume from its peers and serves no reads. */
  | 'Rebuilding'
  | 'Active'
  /** It is about to stop. */
  | 'Draining';

/** A node, in what changes on events only. */
export interface NodeStatus {
  /** The member's: the pod's for the first worker of a pod. */
  readonly name: string;
  readonly nodeId?: string;
  /** Where it has another name. */
  readonly pod?: string;
  readonly state: NodeState;
  readonly inSync: boolean;
  readonly partitions?: number;
  readonly image?: string;
  readonly zone?: string;
}

export interface BackupStatus {
  readonly lastSuccessTime?: string;
  readonly lastSuccessName?: string;
  readonly lastSuccessSizeBytes?: number;
  readonly lastSuccessRecords?: number;
  readonly lastFailureTime?: string;
  readonly lastFailureMessage?: string;
}

export const CONDITION_TYPES = ['Ready', 'Available', 'Progressing', 'Degraded', 'BackupHealthy'] as const;
export type ConditionType = (typeof CONDITION_TYPES)[number];

export interface Condition {
  readonly type: ConditionType;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly observedGeneration?: number;
  readonly lastTransitionTime: string;
  readonly reason: string;
  readonly message: string;
}
