import type { Clock } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { compareVersions, formatVersion, NO_VERSION, type Version } from '../../model/version.ts';
import type { Store, StoredRecord } from '../storage/store.ts';
import { notServing } from './coordinator.ts';
import type { GetOperation, LiveValue } from './engine.ts';
import { liveValue } from './live-value.ts';
import type { ReplicationMetrics } from './metrics.ts';
import { requiredReplicas } from './quorum.ts';
import type { QuorumReader, RemoteReplica } from './quorum-reader.ts';
import type { RemoteRequests } from './remote-requests.ts';
import { isDataLoss } from './request-handler.ts';
import type { Topology } from './topology.ts';

export interface ReadsOptions {
  readonly store: Store;
  readonly topology: Topology;
  readonly quorum: QuorumReader;
  readonly clock: Clock;
  readonly metrics: ReplicationMetrics;
  /** Questions to a connected replica. */
  readonly remote: (nodeId: string) => RemoteRequests | undefined;
}

/** Reads of keys that this node is a readable replica of: at ONE from its own store, otherwise from R replicas. */
export class Reads {
  private readonly options: ReadsOptions;

  constructor(options: ReadsOptions) {
    this.options = options;
  }

  /** What this node answers at ONE by itself, without waiting for anything; undefined when others have to be asked. */
  atOnce({
    key,
    consistency,
    minVersion = NO_VERSION,
  }: GetOperation): { readonly value: LiveValue | undefined } | undefined {
    if (consistency !== 'ONE') return undefined;
    this.admit(this.options.topology.partitionOf(key));
    const { sound, record } = this.local(key);
    if (!sound || !reaches(record, minVersion)) return undefined;
    return { value: liveValue(record, this.options.clock.wallMs()) };
  }

  /** @throws as the engine. */
  async get(operation: GetOperation): Promise<LiveValue | undefined> {
    const record = await this.record(operation);
    return liveValue(record, this.options.clock.wallMs());
  }

  private async record(operation: GetOperation): Promise<StoredRecord | undefined> {
    const { topology } = this.options;
    const partition = topology.partitionOf(operation.key);
    for (;;) {
      this.admit(partition);
      const { read } = topology.setsOf(partition);
      const found = await this.readFrom(operation, read);
      // A quorum of replicas that a newer map reads no more from says nothing about what the newer ones hold.
      if (topology.map !== undefined && isSameSet(topology.setsOf(partition).read, read)) return found;
    }
  }

  private async readFrom(
    operation: GetOperation,
    replicas: readonly string[],
  ): Promise<StoredRecord | undefined> {
    const { key, consistency, deadlineMs } = operation;
    const floor = operation.minVersion ?? NO_VERSION;
    const others = this.readable(replicas, key);
    const required = requiredReplicas(consistency === 'ONE' ? 'QUORUM' : consistency, replicas.length);
    const found = await this.options.quorum.read({ key, required, deadlineMs, others });
    if (reaches(found, floor)) return found;
    // Written at ONE somewhere: whoever can be reached is asked before the read is refused.
    const everybody = await this.options.quorum.read({
      key,
      required: others.length + 1,
      deadlineMs,
      others,
    });
    if (reaches(everybody, floor)) return everybody;
    throw new KvError(
      'UNAVAILABLE',
      `no replica in reach holds version ${formatVersion(floor)} of the key or a newer one`,
    );
  }

  private admit(partition: number): void {
    const { topology, metrics } = this.options;
    if (topology.serves(partition)) return;
    metrics.count('unavailable');
    throw notServing(topology);
  }

  private local(key: Buffer): { sound: boolean; record: StoredRecord | undefined } {
    try {
      return { sound: true, record: this.options.store.get(key) };
    } catch (error) {
      // One damaged record: the others have it (PROTOCOL 35).
      if (!isDataLoss(error)) throw error;
      return { sound: false, record: undefined };
    }
  }

  private readable(replicas: readonly string[], key: Buffer): readonly RemoteReplica[] {
    const { topology, remote } = this.options;
    const partition = topology.partitionOf(key);
    return replicas.flatMap((nodeId) => {
      if (nodeId === topology.nodeId || !topology.isServing(nodeId, partition)) return [];
      const requests = remote(nodeId);
      return requests === undefined ? [] : [{ nodeId, remote: requests }];
    });
  }
}

function isSameSet(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((nodeId) => b.includes(nodeId)));
}

function reaches(record: StoredRecord | undefined, floor: Version): boolean {
  return compareVersions(record?.version ?? NO_VERSION, floor) >= 0;
}
