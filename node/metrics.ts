import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { CallMetrics, rpcName } from './call-metrics.ts';
import type { Counted, Measured, PeerGauge, ReplicationMetrics } from './replication/metrics.ts';
import type { FreezeKind } from './replication/horizon/verdict.ts';
import type { Store } from './storage/store.ts';

/** From a quarter of a millisecond (a local read) to the longest deadline in use, seconds. */
const LATENCY_BUCKETS = [
  0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];
const GROUP_BUCKETS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

const REPLICATION_COUNTERS: Readonly<Record<Counted, string>> = {
  second_mints: 'Writes minted again because a replica held a newer version',
  unknown_outcomes: 'Writes whose outcome was unknown at their deadline',
  unavailable: 'Operations refused because too few replicas could be reached',
  repaired_records: 'Records written back to replicas by reads',
  returned_entries: 'Entries given back to a peer that had lost the unsynced end of its log',
  entries_received: 'Entries of peers applied here',
  entries_sent: 'Own entries sent to peers',
  retries_finished: 'Retried writes that were found, and finished at their version',
  retries_written: 'Retried writes that were not found, and written',
  retries_undecided: 'Retried writes that too few replicas could tell of',
  retries_refused: 'Retried writes that were too old',
  compared_partitions: 'Partitions compared with a peer',
  pulled_records: 'Records taken from peers by comparisons',
  pushed_records: 'Records brought to peers by comparisons',
  removed_ghosts: 'Records removed while a partition filled, because they are collected elsewhere',
  refused_records: 'Records not taken, because they are collected here',
  unresolved_records: 'Differences left for the next comparison, because a record is damaged on one side',
  wrong_digests: 'Digests that differ although the records under them are equal',
  failed_comparisons: 'Comparisons that ended early',
  scrubbed_records: 'Records whose checksum was checked in the background',
  damaged_records: 'Records found to fail their checksum',
  healed_records: 'Damaged records replaced by those of a peer',
  collected_records: 'Tombstones and expired records removed',
  watch_takeovers: 'Times that a replica told stored records because a log could not go on',
  bad_frames: 'Frames of peers that no sound peer sends',
  forwarded: 'Operations sent on to a readable replica of their key',
  map_conflicts: 'Cluster maps of an equal epoch with another hash: two writers of the map',
  skewed_versions: 'Foreign versions beyond the skew bound',
  refusals: 'Streams of peers refused',
};
const REPLICATION_GAUGES: Readonly<Record<Measured, readonly [string, string, number]>> = {
  in_flight_bytes: ['kv_in_flight_bytes', 'Bytes of writes under way', 1],
  readable: ['kv_readable', '1 when this node serves reads', 1],
  in_sync: ['kv_in_sync', '1 when the cursors cover the heads of all other members', 1],
  map_epoch: ['kv_map_epoch', 'Epoch of the cluster map', 1],
  clock_skew_ms: ['kv_clock_skew_seconds', "This node's clock less the median of the members'", 1 / 1000],
  clock_outlier: ['kv_clock_outlier', "1 when this node's clock is too far off to coordinate writes", 1],
  equal_partitions: ['kv_equal_partitions', 'Partitions whose digest equals that of every other replica', 1],
  differing_partitions: ['kv_differing_partitions', 'Partitions that differ from some other replica', 1],
  filling_partitions: ['kv_filling_partitions', 'Partitions that are not readable yet', 1],
  damaged_keys: ['kv_damaged_records', 'Damaged records that no peer has replaced yet', 1],
  collection_frozen_disconnected: frozenGauge('disconnected', 'a member is not connected'),
  collection_frozen_unknown: frozenGauge('unknown', 'something is not known of a member'),
  collection_frozen_unacknowledged: frozenGauge('unacknowledged', 'a replica is behind'),
  collection_frozen_moving: frozenGauge('moving', 'they move'),
  collection_frozen_unsettled: frozenGauge('unsettled', 'a replica has yet to compare them'),
  horizon_age_ms: ['kv_horizon_age_seconds', "This node's clock minus the lowest horizon", 1 / 1000],
  watches: ['kv_watches', 'Streams of changes to clients', 1],
  collectable_records: ['kv_collectable_records', 'Tombstones and records with an expiry', 1],
};
const PEER_GAUGES: Readonly<Record<PeerGauge, readonly [string, string, number]>> = {
  peer_connected: ['kv_peer_connected', '1 while the stream to the peer is up', 1],
  peer_behind: ['kv_peer_behind_entries', "Entries of the peer's log yet to be applied here", 1],
  peer_ahead: ['kv_peer_ahead_entries', 'Own entries yet to be acknowledged by the peer', 1],
  peer_clock_offset_ms: ['kv_peer_clock_offset_seconds', "Peer's wall clock minus this node's", 1 / 1000],
};

/** What a node measures, in a registry of its own; names and labels are listed in docs/api_reference.md. */
export interface NodeMetrics {
  readonly registry: Registry;
  readonly replication: ReplicationMetrics;
  /** A finished call; `path` is the full gRPC method. */
  observeCall(path: string, code: string, seconds: number): void;
  /** A call of the peer or admin service without a good proof, or ended for what came on it. */
  countRefusedCall(path: string, reason: string): void;
  /** A snapshot that was made, or not. */
  countSnapshot(succeeded: boolean): void;
  /** One sync of the apply log. */
  observeSync(entries: number, seconds: number): void;
  /** Shows the store's sizes from now on. */
  watchStore(store: Pick<Store, 'statistics'>): void;
  /** 1 when `ready` says so at the time of a scrape. */
  watchReadiness(ready: () => boolean): void;
  /** The store has failed; the process is about to end. */
  storeFailed(): void;
}

/** Makes the metrics of one node. */
export function createNodeMetrics(): NodeMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const counter = <Label extends string>(
    name: string,
    help: string,
    ...labelNames: Label[]
  ): Counter<Label> => new Counter({ name, help, labelNames, registers });
  const gauge = <Label extends string>(name: string, help: string, ...labelNames: Label[]): Gauge<Label> =>
    new Gauge({ name, help, labelNames, registers });

  const calls = new CallMetrics(LATENCY_BUCKETS);
  calls.register(registry);
  const refused = counter(
    'kv_refused_calls_total',
    'Peer and admin calls without a good proof, or ended for what came on them',
    'rpc',
    'reason',
  );
  const snapshots = counter('kv_snapshots_total', 'Node-local snapshots asked for, by result', 'result');
  const groups = new Histogram({
    name: 'kv_sync_group_entries',
    help: 'Entries of the apply log made durable by one sync',
    buckets: GROUP_BUCKETS,
    registers,
  });
  const syncs = new Histogram({
    name: 'kv_sync_duration_seconds',
    help: 'Duration of one write and sync of the apply log',
    buckets: LATENCY_BUCKETS,
    registers,
  });
  const failed = gauge('kv_store_failed', '1 when the store has failed and the node is about to exit');
  failed.set(0);

  return {
    registry,
    replication: replicationMetrics(registers, gauge),
    observeCall: (path, code, seconds) => calls.observe(path, code, seconds),
    countRefusedCall: (path, reason) => refused.inc({ rpc: rpcName(path), reason }),
    countSnapshot: (succeeded) => snapshots.inc({ result: succeeded ? 'ok' : 'failed' }),
    observeSync(entries, seconds) {
      groups.observe(entries);
      syncs.observe(seconds);
    },
    watchStore: (store) => watchStore(registry, store),
    watchReadiness(ready) {
      const name = 'kv_ready';
      const help = '1 when /readyz says yes';
      new Gauge({
        name,
        help,
        registers,
        collect: function () {
          this.set(Number(ready()));
        },
      });
    },
    storeFailed: () => failed.set(1),
  };
}

function frozenGauge(kind: FreezeKind, why: string): readonly [string, string, number] {
  const help = `Partitions whose tombstones are not collected because ${why}`;
  return [`kv_collection_frozen_${kind}_partitions`, help, 1];
}

function replicationMetrics(
  registers: Registry[],
  gauge: (name: string, help: string, ...labels: 'peer'[]) => Gauge<'peer'>,
): ReplicationMetrics {
  // Counted for every operation, and read now and then.
  const counts = mapValues(REPLICATION_COUNTERS, () => 0) as Record<Counted, number>;
  for (const [name, help] of Object.entries(REPLICATION_COUNTERS) as [Counted, string][]) {
    new Counter({
      name: `kv_replication_${name}_total`,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(counts[name]);
      },
    });
  }
  const values = mapValues(REPLICATION_GAUGES, () => 0) as Record<Measured, number>;
  for (const [measured, [name, help, unit]] of Object.entries(REPLICATION_GAUGES) as [
    Measured,
    readonly [string, string, number],
  ][]) {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(values[measured] * unit);
      },
    });
  }
  const peers = mapValues(PEER_GAUGES, ([name, help, unit]) => ({ unit, gauge: gauge(name, help, 'peer') }));
  return {
    count: (name, amount = 1) => {
      counts[name] += amount;
    },
    gauge: (name, value) => {
      values[name] = value;
    },
    gaugePeer: (name, peer, value) => peers[name].gauge.set({ peer }, value * peers[name].unit),
  };
}

function mapValues<Name extends string, From, To>(
  record: Readonly<Record<Name, From>>,
  convert: (value: From, name: Name) => To,
): Readonly<Record<Name, To>> {
  const entries = (Object.entries(record) as [Name, From][]).map(([name, value]) => [
    name,
    convert(value, name),
  ]);
  return Object.fromEntries(entries) as Record<Name, To>;
}

function watchStore(registry: Registry, store: Pick<Store, 'statistics'>): void {
  const sizes = {
    kv_store_records: ['Records in the indexed state, tombstones and expired ones included', 'records'],
    kv_store_state_bytes: ['Size of the indexed state', 'stateBytes'],
    kv_store_log_bytes: ['Size of the apply log', 'logBytes'],
    kv_store_overlay_bytes: ['Records not yet in the indexed state', 'overlayBytes'],
    kv_store_version_conflicts: [
      'Records that met another one of the same version since the start: must stay 0',
      'versionConflicts',
    ],
  } as const;
  for (const [name, [help, field]] of Object.entries(sizes)) {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect: function () {
        this.set(store.statistics()[field]);
      },
    });
  }
}
