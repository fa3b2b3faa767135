import { createLogger } from '../../common/log.ts';
import type { Scheduler } from '../../common/clock.ts';
import { type ClusterMap, sealMap } from '../../model/cluster-map.ts';
import { place } from '../../model/placement.ts';
import type { LiveValue, Replica } from '../../node/replication/engine.ts';
import type { Counted } from '../../node/replication/metrics.ts';
import { createReplica } from '../../node/replication/replica.ts';
import type { ReplicationSettings } from '../../node/replication/settings.ts';
import { LogStore } from '../../node/storage/log-store.ts';
import type { StoreLimits } from '../../node/storage/limits.ts';
import { ManualTime } from './manual-time.ts';
import { type CrashFates, MemoryDisk, MemoryVolume, volumeAfterCrash } from './memory-disk.ts';
import { MemoryNetwork } from './memory-network.ts';
import { MemoryState, MemoryStateVolume } from './memory-state.ts';
import { seededRandom } from './seeded-random.ts';
import { memberNamed } from './member.ts';

export const PARTITIONS = 8;

interface Volumes {
  readonly log: MemoryVolume;
  readonly state: MemoryStateVolume;
}

interface Running {
  readonly replica: Replica;
  readonly store: LogStore;
  readonly scheduler: Scheduler & { stop(): void };
  readonly clock: { skewMs: number };
}

/** One member over its whole life: its volume stays, its processes come and go. */
export interface Node {
  readonly nodeId: string;
  volumes: Volumes;
  running: Running | undefined;
  /** What its last process was stopped by. */
  fatal: Error | undefined;
  skewMs: number;
  /** What each operation of its disk takes. */
  diskMs: number;
  /** Where it listens. */
  host: string;
  readonly counters: Map<Counted, number>;
}

export interface ClusterOptions {
  readonly settings?: Partial<ReplicationSettings>;
  readonly limits?: Partial<StoreLimits>;
  readonly seed?: number;
  /** @default everybody holds everything */
  readonly replicationFactor?: number;
  /** What each operation of a disk takes. @default 0 */
  readonly diskMs?: number;
}

/** Replicas with real stores and the real protocol in one process, over a network, disks and a clock in memory. */
export class ReplicaCluster {
  readonly time = new ManualTime();
  readonly network: MemoryNetwork;
  readonly nodes: readonly Node[];
  readonly options: ClusterOptions;
  /** Where members are said to listen, by name. */
  readonly directory = new Map<string, string>();
  private readonly random;
  private epoch = 0;
  private clusterMap: ClusterMap | undefined;

  constructor(size: number, options: ClusterOptions = {}) {
    this.options = options;
    this.random = seededRandom(options.seed ?? 1);
    this.network = new MemoryNetwork(this.time.scheduler());
    this.nodes = Array.from({ length: size }, (_, index) => ({
      nodeId: `kv-${index}`,
      volumes: blankVolumes(),
      running: undefined,
      fatal: undefined,
      skewMs: 0,
      diskMs: options.diskMs ?? 0,
      host: `kv-${index}`,
      counters: new Map<Counted, number>(),
    }));
  }

  get names(): readonly string[] {
    return this.nodes.map(({ nodeId }) => nodeId);
  }

  get map(): ClusterMap {
    if (this.clusterMap === undefined) throw new Error('no map was made');
    return this.clusterMap;
  }

  node(index: number): Node {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`no node ${index}`);
    return node;
  }

  replica(index: number): Replica {
    const running = this.node(index).running;
    if (running === undefined) throw new Error(`node ${index} is not running`);
    return running.replica;
  }

  store(index: number): LogStore {
    const running = this.node(index).running;
    if (running === undefined) throw new Error(`node ${index} is not running`);
    return running.store;
  }

  /** A further map of this cluster. */
  nextMap(change: Partial<ClusterMap> = {}): ClusterMap {
    const members = this.names.map(memberNamed);
    const replicationFactor = this.options.replicationFactor ?? Math.max(3, members.length);
    this.epoch += 1;
    this.clusterMap = sealMap({
      clusterId: 'c0ffee00c0ffee00c0ffee00c0ffee00',
      namespace: 'default',
      name: 'kv',
      epoch: this.epoch,
      partitions: PARTITIONS,
      replicationFactor,
      initialised: true,
      members,
      retired: [],
      assignment: place({ members, partitions: PARTITIONS, replicationFactor }),
      ...change,
    });
    return this.clusterMap;
  }

  /** Starts all nodes, gives them their first map, marks it initialised, and waits until all are connected. */
  async begin(change: Partial<ClusterMap> = {}): Promise<void> {
    for (const index of this.nodes.keys()) await this.start(index);
    const first = this.nextMap({ ...change, initialised: false });
    for (const index of this.nodes.keys()) await this.propose(index, first);
    const second = this.nextMap(change);
    for (const index of this.nodes.keys()) await this.propose(index, second);
    await this.connected();
  }

  async propose(index: number, map: ClusterMap): Promise<ReturnType<Replica['proposeMap']>> {
    return this.time.run(this.replica(index).proposeMap(map, { epoch: map.epoch - 1, hash: '' }));
  }

  async start(index: number, volumes = this.node(index).volumes): Promise<Running> {
    const node = this.node(index);
    node.volumes = volumes;
    node.fatal = undefined;
    const running = await this.launch(node, node.nodeId, volumes);
    node.running = running;
    this.network.attach(node.host, running.replica);
    return running;
  }

  /** A process for a node that is not attached to the network: a second one on a copy, for example. */
  async launch(node: Node, nodeId: string, volumes: Volumes): Promise<Running> {
    const scheduler = this.time.scheduler();
    const clock = this.time.clock(node.skewMs);
    const logger = createLogger({
      level: process.env['REPLICA_LOG'] === undefined ? 'silent' : 'debug',
      fields: { node: nodeId },
    });
    const { random, time, options } = this;
    const { host } = node;
    const store = await time.run(
      LogStore.open({
        disk: new MemoryDisk(
          volumes.log,
          slowed(scheduler, () => node.diskMs),
        ),
        state: new MemoryState(volumes.state, scheduler),
        partitions: PARTITIONS,
        clock,
        scheduler,
        random,
        logger,
        ...(options.limits === undefined ? {} : { limits: options.limits }),
      }),
    );
    const replica = await time.run(
      createReplica({
        nodeId,
        namespace: 'default',
        name: 'kv',
        store,
        transport: this.network.transport(host),
        discovery: {
          locate: () =>
            Promise.resolve(
              this.names.map((name) => ({
                nodeId: name,
                host: this.directory.get(name) ?? name,
                port: 50052,
              })),
            ),
        },
        clock,
        scheduler,
        random,
        logger,
        ...(options.settings === undefined ? {} : { settings: options.settings }),
        metrics: {
          count: (name, amount = 1) => node.counters.set(name, (node.counters.get(name) ?? 0) + amount),
          gauge: () => undefined,
          gaugePeer: () => undefined,
        },
      }),
    );
    replica.fatal.catch((error: unknown) => {
      if (node.running?.replica === replica) node.fatal = error as Error;
    });
    return { replica, store, scheduler, clock };
  }

  /** kill -9: what was written stays. With fates, power is lost and they decide about what was not synced. */
  kill(index: number, fates?: CrashFates): void {
    const node = this.node(index);
    node.running?.scheduler.stop();
    node.running = undefined;
    this.network.detach(node.host);
    const { log, state } = node.volumes;
    node.volumes = { log: fates === undefined ? log : volumeAfterCrash(log.events, fates), state };
  }

  /** Stops a node as SIGTERM does. */
  async stop(index: number): Promise<void> {
    const node = this.node(index);
    const running = node.running;
    if (running === undefined) return;
    await this.time.run(running.replica.stop());
    await this.time.run(running.store.close());
    running.scheduler.stop();
    node.running = undefined;
    this.network.detach(node.host);
  }

  /** All nodes listen elsewhere from now on, running or not; what the directory says of them stays. */
  move(hosts: readonly string[]): void {
    for (const { host } of this.nodes) this.network.detach(host);
    for (const [index, node] of this.nodes.entries()) {
      node.host = hosts[index] ?? node.host;
      if (node.running !== undefined) this.network.attach(node.host, node.running.replica);
    }
  }

  /** Stops everything that still runs, so that nothing is left for the next test. */
  end(): void {
    for (const index of this.nodes.keys()) this.kill(index);
  }

  wipe(index: number): void {
    this.node(index).volumes = blankVolumes();
  }

  /** A copy of the volume as it is now. */
  copyOfVolumes(index: number): Volumes {
    const { log, state } = this.node(index).volumes;
    const copy = volumeAfterCrash(log.events, {
      write: () => 'kept',
      name: () => 'kept',
      sector: () => true,
    });
    const stateCopy = new MemoryStateVolume();
    stateCopy.content = structuredState(state.content);
    return { log: copy, state: stateCopy };
  }

  connected(): Promise<void> {
    return this.time.until('all running nodes are connected', () =>
      this.runningReplicas().every((replica) => {
        const others = this.runningReplicas().length - 1;
        return replica.status().peers.filter(({ connected }) => connected).length === others;
      }),
    );
  }

  /** All nodes run, serve, and hold everything of all others. */
  inSync(limitMs = 60_000): Promise<void> {
    return this.time.until(
      'all nodes are ready and in sync',
      () =>
        this.runningReplicas().length === this.nodes.length &&
        this.runningReplicas().every(
          (replica) => replica.notReadyReason === undefined && replica.status().inSync,
        ),
      limitMs,
    );
  }

  runningReplicas(): readonly Replica[] {
    return this.nodes.flatMap(({ running }) => running?.replica ?? []);
  }

  put(
    index: number,
    key: string,
    value: string,
    options: Partial<Parameters<Replica['engine']['put']>[0]> = {},
  ) {
    return this.time.run(
      this.replica(index).engine.put({
        key: Buffer.from(key),
        value: Buffer.from(value),
        ttlMs: undefined,
        requestId: undefined,
        consistency: 'QUORUM',
        deadlineMs: this.time.monotonicMs + 5000,
        ...options,
      }),
    );
  }

  delete(index: number, key: string, consistency: 'ONE' | 'QUORUM' | 'ALL' = 'QUORUM') {
    return this.time.run(
      this.replica(index).engine.delete({
        key: Buffer.from(key),
        requestId: undefined,
        consistency,
        deadlineMs: this.time.monotonicMs + 5000,
      }),
    );
  }

  async live(
    index: number,
    key: string,
    options: Partial<Parameters<Replica['engine']['get']>[0]> = {},
  ): Promise<LiveValue | undefined> {
    return this.time.run(
      this.replica(index).engine.get({
        key: Buffer.from(key),
        minVersion: undefined,
        consistency: 'QUORUM',
        deadlineMs: this.time.monotonicMs + 5000,
        ...options,
      }),
    );
  }

  async get(index: number, key: string, consistency: 'ONE' | 'QUORUM' | 'ALL' = 'QUORUM') {
    return (await this.live(index, key, { consistency }))?.value.toString();
  }

  /** Everything a node's store holds, tombstones included: `key=value@version`, sorted. */
  async contents(index: number): Promise<readonly string[]> {
    const store = this.store(index);
    const rows: string[] = [];
    for (let partition = 0; partition < PARTITIONS; partition += 1) {
      for (const { key, record } of await this.time.run(store.scan(partition, { limit: 1_000_000 }))) {
        const { wallMs, counter, writer } = record.version;
        const what = record.tombstone ? 'deleted' : record.value.toString();
        rows.push(`${key.toString()}=${what}@${wallMs}.${counter}.${writer}`);
      }
    }
    return rows.sort();
  }
}

/** Later turns come only after a time, so that frames of the network can overtake writes to the disk. */
function slowed(scheduler: Scheduler, delayMs: () => number): Scheduler {
  return {
    after: (afterMs, task) => scheduler.after(afterMs, task),
    soon(task) {
      if (delayMs() === 0) scheduler.soon(task);
      else scheduler.after(delayMs(), task);
    },
  };
}

function blankVolumes(): Volumes {
  return { log: new MemoryVolume(), state: new MemoryStateVolume() };
}

function structuredState(content: MemoryStateVolume['content']): MemoryStateVolume['content'] {
  return {
    partitions: new Map([...content.partitions].map(([partition, keys]) => [partition, new Map(keys)])),
    meta: new Map(content.meta),
  };
}
