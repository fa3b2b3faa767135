import {
  type AntiEntropySettings,
  DEFAULT_ANTI_ENTROPY_SETTINGS,
} from '../../node/replication/anti-entropy/settings.ts';
import { DEFAULT_COLLECTION_SETTINGS } from '../../node/replication/horizon/collector.ts';
import type { ReplicationSettings } from '../../node/replication/settings.ts';
import type { StoreLimits } from '../../node/storage/limits.ts';
import type { Dice } from './dice.ts';
import { FAULT_KINDS, type FaultKind } from './fault-kinds.ts';

/** What clients do, as shares of their operations. */
export interface WorkloadSettings {
  readonly clients: number;
  /** Of all clients together. */
  readonly operations: number;
  /** Mean pause of a client between operations, milliseconds. */
  readonly thinkMs: number;
  /** Written over and over. */
  readonly hotKeys: number;
  readonly coldKeys: number;
  /** Share of operations on hot keys. */
  readonly hot: number;
  readonly put: number;
  readonly delete: number;
  readonly list: number;
  /** Share of puts that expire. */
  readonly ttl: number;
  readonly largestValueBytes: number;
  /** Share of operations at ONE and at ALL; the rest is at QUORUM. */
  readonly one: number;
  readonly all: number;
  /** Share of writes that are sent again when their outcome is unknown. */
  readonly retried: number;
  readonly timeoutMs: number;
}

/** Everything that a seed decides before the world begins. */
export interface Settings {
  readonly seed: number;
  /** Members at the beginning. */
  readonly nodes: number;
  /** Machines that could become members. */
  readonly spares: number;
  readonly replicationFactor: number;
  readonly partitions: number;
  /** Partitions that move at once at most. */
  readonly batchPartitions: number;
  readonly zones: number;
  readonly network: { readonly baseMs: number; readonly jitterMs: number; readonly highWaterBytes: number };
  readonly disk: { readonly operationMs: number; readonly syncMs: number; readonly commitMs: number };
  /** Largest offset of a wall clock at the beginning, milliseconds. */
  readonly clockOffsetMs: number;
  readonly replication: Partial<ReplicationSettings>;
  readonly limits: Partial<StoreLimits>;
  readonly workload: WorkloadSettings;
  readonly faults: readonly FaultKind[];
  /** Mean time between faults of all kinds together, milliseconds. */
  readonly faultEveryMs: number;
  /** How many volumes may be lost or rolled back at the same time, as far as copies permit. */
  readonly losses: number;
}

const FEWEST_FAULTS = 5;
const MOST_NODES = 7;

export function settingsOf(seed: number, dice: Dice): Settings {
  const nodes = dice.pick([3, 3, 3, 3, 4, 5, 5, 6, MOST_NODES]);
  // In some seeds everything hurries to collect, and comparisons, which it must wait for, take their time.
  const eager = dice.chance(0.35);
  // Heartbeats and timeouts of a tenth to a half of the defaults: more faults in the same number of events.
  const pace = dice.spread(0.1, eager ? 0.2 : 0.5);
  // Few kinds in some seeds: what one of them leads to is often undone by the next.
  const most = dice.chance(0.4) ? 6 : FAULT_KINDS.length;
  const kinds = Math.max(FEWEST_FAULTS, 2 + dice.below(most - 1));
  const faults = dice.shuffled(FAULT_KINDS).slice(0, kinds);
  const clients = 3 + dice.below(6);
  // Three of whatever there is, mostly; otherwise everybody, or two.
  const replicationFactor = dice.pick([3, 3, 3, 3, nodes, nodes, 2]);
  const settings: Settings = {
    seed,
    nodes,
    spares: Math.min(2, MOST_NODES - nodes),
    replicationFactor,
    batchPartitions: dice.pick([1, 2, 8, 64]),
    zones: dice.pick([1, 1, 2, 3]),
    partitions: dice.pick([4, 8, 16]),
    network: {
      baseMs: dice.spread(0.1, 5),
      jitterMs: dice.spread(0.1, 5),
      highWaterBytes: Math.round(dice.spread(2_000, 1_000_000)),
    },
    disk: {
      operationMs: dice.spread(0.01, 0.2),
      syncMs: dice.spread(0.2, 8),
      commitMs: dice.spread(0.5, 15),
    },
    clockOffsetMs: dice.pick([0, 5, 50, 400]),
    replication: replicationOf(dice, pace, eager),
    limits: limitsOf(dice, eager),
    workload: workloadOf(dice, clients, eager),
    faults,
    // So that what one fault leads to has time to show before the next.
    faultEveryMs: eager ? dice.spread(300, 2500) : dice.spread(80, 800),
    losses: dice.pick([0, 1, 1, 1, 1, 1, 1, 3, 3, 3]),
  };
  return focused(settings);
}

/**
 * Two of ten seeds look closely at what takes several things at once, which chance alone hardly brings about: a volume that
 * is lost while another replica is away, and entries that many have and their writer has not. They have fewer kinds of
 * faults, and come on top of the seeds that CI and sweeps have to run.
 */
function focused(settings: Settings): Settings {
  const { replication, workload } = settings;
  const { collection = DEFAULT_COLLECTION_SETTINGS, antiEntropy = DEFAULT_ANTI_ENTROPY_SETTINGS } =
    replication;
  const eager: Settings = {
    ...settings,
    replication: {
      ...replication,
      ceilingStepMs: 30,
      collection: { ...collection, ageMs: 20, stepMs: 5 },
      antiEntropy: { ...antiEntropy, backgroundMs: 6000, groupPartitions: 1, pageKeys: 1 },
    },
    workload: { ...workload, delete: 0.3, put: 0.4 },
  };
  switch (settings.seed % 10) {
    case 1:
      return {
        ...eager,
        nodes: 3,
        replicationFactor: 3,
        faults: ['relay', 'disk-loss'],
        losses: 1,
        faultEveryMs: 1500,
      };
    case 9:
      return {
        ...eager,
        nodes: 5,
        replicationFactor: 5,
        faults: ['slow-disk', 'bridge', 'relay'],
        faultEveryMs: 700,
      };
    default:
      return settings;
  }
}

function replicationOf(dice: Dice, pace: number, eager: boolean): Partial<ReplicationSettings> {
  return {
    heartbeatMs: 500 * pace,
    failureDetectionMs: 2000 * pace,
    haltMs: 250 * pace,
    handshakeMs: 5000 * pace,
    ceilingStepMs: Math.round(dice.spread(20, eager ? 100 : 500)),
    reconnect: { initialMs: 100 * pace, maxMs: 2000 * pace },
    peerMemoryMs: 1000 * pace,
    entriesFrameBytes: Math.round(dice.spread(200, 50_000)),
    maxUnackedBytes: Math.round(dice.spread(2_000, 500_000)),
    chunkBytes: Math.round(dice.spread(500, 50_000)),
    readHedgeMs: dice.spread(5, 100),
    answerMs: 15_000 * pace,
    antiEntropy: antiEntropyOf(dice, pace, eager),
    collection: {
      // Shorter than operations take, so that deletes and their collection meet.
      ageMs: Math.round(dice.spread(5, eager ? 100 : 3000)),
      stepMs: Math.round(dice.spread(5, eager ? 20 : 500)),
      slowMs: 2000,
      recordsPerSecond: 20_000,
      lookAgainMs: Math.round(dice.spread(50, 2000)),
    },
  };
}

function antiEntropyOf(dice: Dice, pace: number, eager: boolean): AntiEntropySettings {
  return {
    ...DEFAULT_ANTI_ENTROPY_SETTINGS,
    backgroundMs: dice.spread(eager ? 2000 : 100, eager ? 10_000 : 3000),
    pauseMs: 500 * pace,
    retry: { initialMs: 200 * pace, maxMs: 2000 * pace },
    concurrentRuns: dice.pick([1, 2]),
    groupPartitions: dice.pick(eager ? [1] : [1, 4, 32]),
    looks: dice.pick([1, 2, 3]),
    lookMs: 200 * pace,
    pageKeys: dice.pick(eager ? [1, 5] : [1, 5, 50, 2048]),
    pageScans: dice.pick([2, 20, 16_384]),
    fetchKeys: dice.pick([1, 10, 512]),
    batchBytes: Math.round(dice.spread(500, 100_000)),
    loadBytes: Math.round(dice.spread(500, 100_000)),
    maxLag: dice.pick([10, 10_000]),
    lagPatienceMs: 5000 * pace,
    scrubPauseMs: 10_000,
    healMs: 2000 * pace,
  };
}

function limitsOf(dice: Dice, eager: boolean): Partial<StoreLimits> {
  const limits = {
    segmentBytes: Math.round(dice.spread(3_000, eager ? 6_000 : 100_000)),
    // Small enough to fall off in some seeds, and to never do it in others.
    logBytes: Math.round(dice.spread(6_000, eager ? 30_000 : 3_000_000)),
    checkpointMs: dice.spread(5, 200),
    checkpointRecords: dice.pick([5, 50, 1000]),
    tailBytes: Math.round(dice.spread(1_000, 1_000_000)),
    overlayBytes: Math.round(dice.spread(20_000, 2_000_000)),
    sequenceStep: dice.pick([4, 64, 4096]),
    clockStepMs: dice.pick([5, 50, 500]),
  };
  return { ...limits, transactionRecords: Math.max(5, limits.checkpointRecords / 5) };
}

function workloadOf(dice: Dice, clients: number, eager: boolean): WorkloadSettings {
  const operations = 1000 + dice.below(200);
  return {
    clients,
    operations,
    // A run of some seconds, as long as nothing keeps clients waiting.
    thinkMs: (dice.spread(2_500, 12_000) * clients) / operations,
    hotKeys: 1 + dice.below(6),
    coldKeys: 20 + dice.below(200),
    hot: dice.between(0.2, 0.8),
    put: dice.between(0.3, 0.6),
    delete: dice.between(0.03, eager ? 0.35 : 0.2),
    list: dice.between(0, 0.02),
    ttl: dice.pick([0, 0.1, 0.3]),
    largestValueBytes: dice.pick([20, 200, 2_000, 20_000]),
    one: dice.pick([0, 0.2, 0.5]),
    all: dice.pick([0, 0.05, 0.2]),
    retried: dice.pick([0, 0.5, 0.9]),
    timeoutMs: dice.spread(200, 2000),
  };
}
