import { abortReason } from '../../../../common/clock.ts';
import { KvError } from '../../../../common/errors.ts';
import { type ClusterMap, type MapContent, sealMap } from '../../../../model/cluster-map.ts';
import { partitionOf } from '../../../../model/key-hash.ts';
import { holdsPartition } from '../../../../model/replica-sets.ts';
import type { ComparablePeer } from '../../../../node/replication/anti-entropy/comparable-peer.ts';
import { DigestAnswers } from '../../../../node/replication/anti-entropy/digest-answers.ts';
import type {
  AntiEntropyCounter,
  AntiEntropyGauge,
} from '../../../../node/replication/anti-entropy/metrics.ts';
import type { SentRecord } from '../../../../node/replication/repairs.ts';
import {
  type AntiEntropySettings,
  DEFAULT_ANTI_ENTROPY_SETTINGS,
} from '../../../../node/replication/anti-entropy/settings.ts';
import type {
  HorizonView,
  StandingView,
  Surroundings,
} from '../../../../node/replication/anti-entropy/surroundings.ts';
import { streamRecords } from '../../../../node/replication/record-stream.ts';
import { SAFETY_RULES, type SafetyRules } from '../../../../node/replication/safety-rules.ts';
import type { StoreLimits } from '../../../../node/storage/limits.ts';
import { liveRecord, tombstoneRecord } from '../../../../node/storage/record.ts';
import type { Store, StoredRecord } from '../../../../node/storage/store.ts';
import { ReadResult_Outcome, type ReadResult, type RecordPosition } from '../../../../proto/gen/peer.ts';
import { ManualTime } from '../../../support/manual-time.ts';
import { memberNamed } from '../../../support/member.ts';
import { MemoryMachine, silentLogger, SMALL_LIMITS } from '../../../support/memory-store.ts';

export const PARTITIONS = 4;

/** Pages and batches of a few records, so that a few dozen meet every bound. */
export const SMALL_STEPS: Partial<AntiEntropySettings> = {
  pageKeys: 3,
  pageScans: 7,
  fetchKeys: 4,
  batchBytes: 200,
  loadBytes: 300,
  groupPartitions: 2,
};

export interface Write {
  readonly key: string;
  readonly wallMs: number;
  /** Undefined: a tombstone. */
  readonly value?: string;
  readonly writer?: number;
  readonly expiresAtMs?: number;
}

export function recordOf({ key, wallMs, value, writer = 1, expiresAtMs }: Write): StoredRecord {
  const version = { wallMs, counter: 0, writer };
  const bytes = Buffer.from(key);
  return value === undefined
    ? tombstoneRecord(bytes, version)
    : liveRecord(bytes, Buffer.from(value), version, expiresAtMs);
}

/** What a comparison asks of a peer. */
export type Question = 'digests' | 'leaves' | 'fetch' | 'repair' | 'pull';

/** One node as far as comparisons see it: a real store, and simple stand-ins for what surrounds it. */
export class ComparedNode {
  readonly nodeId: string;
  readonly store: Store;
  readonly cluster: ComparedCluster;
  readonly readable = new Set<number>();
  readonly damaged: string[] = [];
  readonly counters = new Map<AntiEntropyCounter, number>();
  readonly gauges = new Map<AntiEntropyGauge, number>();
  readonly answers: DigestAnswers;
  readonly surroundings: Surroundings;
  /** Of each peer's log: what `promote` was last called with. */
  readonly promoted = new Map<string, number>();
  /** Peers whose log this node has fallen off. */
  readonly fellOffOf = new Set<string>();
  incarnation = 1;
  head = 7;
  barrierEpoch = 0;
  label = '';
  rules: SafetyRules = SAFETY_RULES;
  readonly horizonsMs = new Map<number, number>();

  constructor(
    cluster: ComparedCluster,
    nodeId: string,
    store: Store,
    settings: Partial<AntiEntropySettings>,
  ) {
    this.cluster = cluster;
    this.nodeId = nodeId;
    this.store = store;
    for (let partition = 0; partition < PARTITIONS; partition += 1) this.readable.add(partition);
    const node = (): ComparedNode => this;
    this.surroundings = {
      store,
      standing: this.standing(),
      horizons: this.horizons(),
      cluster: {
        nodeId,
        get map() {
          return cluster.map;
        },
        barrierEpoch: () => this.barrierEpoch,
        label: () => this.label,
      },
      onReceived: () => undefined,
      onApplied: () => undefined,
      onDamaged: (key) => void this.damaged.push(key.toString()),
      clock: cluster.time.clock(),
      scheduler: cluster.time.scheduler(),
      settings: { ...DEFAULT_ANTI_ENTROPY_SETTINGS, ...settings },
      metrics: {
        count: (name, amount = 1) => this.counters.set(name, (this.counters.get(name) ?? 0) + amount),
        gauge: (name, value) => this.gauges.set(name, value),
      },
      logger: silentLogger,
      get rules() {
        return node().rules;
      },
    };
    this.answers = new DigestAnswers({ ...this.surroundings, durableHead: () => this.head });
  }

  /** Applies writes as if they had come by the log. */
  async write(...writes: readonly Write[]): Promise<void> {
    const mutations = writes.map((write) => ({
      key: Buffer.from(write.key),
      record: recordOf(write),
      own: false,
    }));
    await this.cluster.time.run(this.store.apply(mutations).durable);
  }

  /** What is stored: `key@wallMs=value`, `key@wallMs` for a tombstone, in order. */
  async contents(partitions?: readonly number[]): Promise<readonly string[]> {
    const lines: string[] = [];
    for (let partition = 0; partition < PARTITIONS; partition += 1) {
      if (partitions !== undefined && !partitions.includes(partition)) continue;
      const range = {
        limit: 100_000,
        onDamaged: (key: Buffer) => void lines.push(`${key.toString()} damaged`),
      };
      const records = await this.cluster.time.run(this.store.scan(partition, range));
      for (const { key, record } of records) {
        const value = record.tombstone ? '' : `=${record.value.toString()}`;
        lines.push(`${key.toString()}@${record.version.wallMs}${value}`);
      }
    }
    return lines.sort();
  }

  /** Removes what a horizon collects, as every replica at that horizon does. */
  async purge(partition: number, horizonMs: number): Promise<void> {
    this.horizonsMs.set(partition, Math.max(horizonMs, this.horizonsMs.get(partition) ?? 0));
    await this.store.removeWhere(partition, (_key, record) => {
      if (record === undefined || record.version.wallMs >= horizonMs) return false;
      return record.tombstone || (record.expiresAtMs !== undefined && record.expiresAtMs < horizonMs);
    });
  }

  private standing(): StandingView {
    return {
      isReadable: (partition) => this.readable.has(partition),
      markReadable: (partitions) => {
        for (const partition of partitions) this.readable.add(partition);
        return Promise.resolve();
      },
    };
  }

  private horizons(): HorizonView {
    const of = (partition: number): number =>
      this.readable.has(partition) ? (this.horizonsMs.get(partition) ?? 0) : 0;
    return {
      of,
      follow: (partition, horizonMs) => this.purge(partition, horizonMs),
      inherit: (horizons) => {
        for (const [partition, ms] of horizons) {
          this.horizonsMs.set(partition, Math.max(ms, this.horizonsMs.get(partition) ?? 0));
        }
        return Promise.resolve();
      },
      admits: (key, partition, { version }, senderHorizonMs) => {
        if (!this.rules.judgeByHorizon || version.wallMs >= of(partition)) return true;
        try {
          return this.store.latest(key) !== undefined || senderHorizonMs >= of(partition);
        } catch {
          return true;
        }
      },
    };
  }
}

/** A peer as one node has it: asks the other one directly. */
export class DirectPeer implements ComparablePeer {
  mutual = true;
  lag = 0;
  /** Called before each question reaches the peer; may throw. */
  before: (question: Question) => Promise<void> | void = () => undefined;
  /** Called before each answer reaches the asker; may throw. */
  after: (question: Question) => Promise<void> | void = () => undefined;
  readonly asked: Question[] = [];
  /** Partitions whose record stream was asked for. */
  readonly pulled: number[] = [];
  private readonly from: ComparedNode;
  readonly to: ComparedNode;

  constructor(from: ComparedNode, to: ComparedNode) {
    this.from = from;
    this.to = to;
  }

  get nodeId(): string {
    return this.to.nodeId;
  }

  get incarnation(): number {
    return this.to.incarnation;
  }

  get fellOff(): boolean {
    return this.from.fellOffOf.has(this.to.nodeId);
  }

  readableAt(partition: number): boolean {
    return this.to.readable.has(partition);
  }

  digests(request: Parameters<ComparablePeer['digests']>[0]): ReturnType<ComparablePeer['digests']> {
    return this.ask('digests', () => this.to.answers.digests(request));
  }

  leaves(request: Parameters<ComparablePeer['leaves']>[0]): ReturnType<ComparablePeer['leaves']> {
    return this.ask('leaves', () => this.to.answers.leaves(request));
  }

  fetch(keys: readonly Buffer[]): Promise<readonly ReadResult[]> {
    // At most two at a time: an answer may be shorter than the question.
    return this.ask('fetch', () => keys.slice(0, 2).map((key) => storedOf(this.to, key)));
  }

  repair(records: readonly SentRecord[]): Promise<void> {
    return this.ask('repair', async () => {
      const { horizons } = this.to.surroundings;
      const admitted = records.filter(({ key, record, horizonMs }) =>
        horizons.admits(key, partitionOf(key, PARTITIONS), record, horizonMs),
      );
      await this.to.store.apply(admitted.map(({ key, record }) => ({ key, record, own: false }))).durable;
    });
  }

  async *pull(
    partitions: readonly number[],
    after: RecordPosition | undefined,
    signal: AbortSignal,
  ): ReturnType<ComparablePeer['pull']> {
    this.pulled.push(...partitions);
    const chunks = streamRecords(
      {
        store: this.to.store,
        durableHead: () => this.to.head,
        incarnation: () => this.to.incarnation,
        gives: (partition) => holdsPartition(this.to.cluster.map, this.to.nodeId, partition),
        horizonMs: (partition) => this.to.surroundings.horizons.of(partition),
        chunkBytes: this.from.surroundings.settings.batchBytes,
        onDamaged: this.to.surroundings.onDamaged,
      },
      { after, partitions: [...partitions] },
      signal,
    );
    for await (const chunk of chunks) {
      const aborted = new Promise<never>((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(abortReason(signal)), { once: true });
      });
      await Promise.race([this.ask('pull', () => undefined), aborted]);
      yield chunk;
    }
  }

  promote(head: number): Promise<void> {
    this.from.promoted.set(this.to.nodeId, head);
    this.from.fellOffOf.delete(this.to.nodeId);
    return Promise.resolve();
  }

  private async ask<T>(question: Question, answer: () => Promise<T> | T): Promise<T> {
    this.asked.push(question);
    await this.before(question);
    const answered = await answer();
    await this.after(question);
    return answered;
  }
}

function storedOf(node: ComparedNode, key: Buffer): ReadResult {
  const partition = partitionOf(key, PARTITIONS);
  const horizonMs = node.surroundings.horizons.of(partition);
  const nothing = Buffer.alloc(0);
  if (!holdsPartition(node.cluster.map, node.nodeId, partition)) {
    return { outcome: ReadResult_Outcome.WRONG_REPLICA, record: nothing, horizonMs, requestId: undefined };
  }
  try {
    const record = node.store.get(key);
    return record === undefined
      ? { outcome: ReadResult_Outcome.ABSENT, record: nothing, horizonMs, requestId: undefined }
      : { outcome: ReadResult_Outcome.RECORD, record: record.bytes, horizonMs, requestId: undefined };
  } catch (error) {
    if (!(error instanceof KvError) || error.code !== 'DATA_LOSS') throw error;
    return { outcome: ReadResult_Outcome.DATA_LOSS, record: nothing, horizonMs, requestId: undefined };
  }
}

/** Nodes that share one time and one map. */
export class ComparedCluster {
  readonly time = new ManualTime();
  readonly nodes: ComparedNode[] = [];
  readonly machines: MemoryMachine[] = [];
  map: ClusterMap;

  private constructor(size: number) {
    this.map = mapOf(size);
  }

  static async open(
    size: number,
    settings: Partial<AntiEntropySettings> = {},
    limits: Partial<StoreLimits> = SMALL_LIMITS,
  ): Promise<ComparedCluster> {
    const cluster = new ComparedCluster(size);
    for (let index = 0; index < size; index += 1) {
      const machine = new MemoryMachine({ time: cluster.time });
      cluster.machines.push(machine);
      const store = await machine.open(limits, PARTITIONS);
      cluster.nodes.push(new ComparedNode(cluster, `kv-${index}`, store, settings));
    }
    return cluster;
  }

  node(index: number): ComparedNode {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`no node ${index}`);
    return node;
  }

  /** One node as a peer of another one. */
  peer(from: number, to: number): DirectPeer {
    return new DirectPeer(this.node(from), this.node(to));
  }

  /** The bytes of a stored record change, as a disk may do it: the store only sees it when it reads them. */
  async damage(index: number, key: string): Promise<void> {
    await this.time.run(this.node(index).store.checkpoint());
    const partition = partitionOf(Buffer.from(key), PARTITIONS);
    const records = this.machines[index]?.stateVolume.content.partitions.get(partition);
    const bytes = records?.get(key);
    if (bytes === undefined) throw new Error(`${key} is not in the state`);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 0xff;
  }

  async close(): Promise<void> {
    for (const { store } of this.nodes) await this.time.run(store.close());
  }
}

/** A map in which every member keeps every partition, unless told otherwise. */
export function mapOf(size: number, change: Partial<MapContent> = {}): ClusterMap {
  const members = Array.from({ length: size }, (_, index) => memberNamed(`kv-${index}`));
  return sealMap({
    clusterId: 'c0ffee00c0ffee00c0ffee00c0ffee00',
    namespace: 'default',
    name: 'kv',
    epoch: 1,
    partitions: PARTITIONS,
    replicationFactor: size,
    initialised: true,
    members,
    retired: [],
    assignment: Array.from({ length: PARTITIONS }, () => members.map((_, index) => index)),
    ...change,
  });
}

/** Keys of one partition. */
export function keysOf(partition: number, count: number, prefix = 'key'): string[] {
  const keys: string[] = [];
  for (let number = 0; keys.length < count; number += 1) {
    const key = `${prefix}-${number}`;
    if (partitionOf(Buffer.from(key), PARTITIONS) === partition) keys.push(key);
  }
  return keys;
}
