import { messageOf } from '../../common/errors.ts';
import { FatalError } from '../../node/cluster/fatal-error.ts';
import type { Replica } from '../../node/replication/engine.ts';
import type { SafetyRules } from '../../node/replication/safety-rules.ts';
import { createReplica } from '../../node/replication/replica.ts';
import { LogStore } from '../../node/storage/log-store.ts';
import type { StorageRules } from '../../node/storage/storage-rules.ts';
import { StoreCorrupt } from '../../node/storage/store-errors.ts';
import type { SimClock } from './clock.ts';
import type { Dice } from './dice.ts';
import { diskError, SimDisk } from './disk.ts';
import { SimLogger } from './logger.ts';
import type { SimNetwork } from './network.ts';
import { SimProcess } from './process.ts';
import type { Settings } from './settings.ts';
import { SimState } from './state.ts';
import type { StoreWatch } from './store-watch.ts';
import type { SimTime } from './time.ts';
import type { Trace } from './trace.ts';
import { Volume } from './volume.ts';

/** What all members share. */
export interface MemberContext {
  readonly time: SimTime;
  readonly trace: Trace;
  readonly network: SimNetwork;
  readonly settings: Settings;
  /** Where members look for each other. */
  readonly names: () => readonly string[];
  readonly rules: SafetyRules;
  readonly storageRules: StorageRules;
  /** Whether the map has retired a volume of that member. */
  readonly isRetired: (nodeId: string) => boolean;
  /** The member has set a volume aside that nobody had retired. */
  readonly lost: (nodeId: string) => void;
  readonly violated: (what: string) => void;
  readonly logged: (nodeId: string, message: string) => void;
}

export interface Running {
  readonly process: SimProcess;
  readonly store: LogStore;
  readonly replica: Replica;
}

export const NAMESPACE = 'default';
export const CLUSTER_NAME = 'kv';

/** One member over its whole life: its volume and its clock stay, its processes come and go. */
export class Member {
  readonly nodeId: string;
  readonly clock: SimClock;
  readonly watch: StoreWatch;
  volume = new Volume();
  /** Multiplies the time that its disk takes. */
  diskSlowness = 1;
  /** How long a turn of the event loop takes in it, milliseconds. */
  turnMs = 0;
  /** Whether a process is to run on it. */
  isWanted = false;
  /** Its volume has been replaced by an earlier one. */
  rolledBack = false;
  /** Its disk is full, or was so during the life of its last process. */
  hasDiskTrouble = false;
  private readonly context: MemberContext;
  private readonly dice: Dice;
  private roomBytes: number | undefined;
  private process: SimProcess | undefined;
  private current: Running | undefined;
  private failedStarts = 0;
  /** A start that is planned counts only while nothing else has happened to the member. */
  private life = 0;

  constructor(
    context: MemberContext,
    options: { nodeId: string; clock: SimClock; watch: StoreWatch; dice: Dice },
  ) {
    this.context = context;
    this.nodeId = options.nodeId;
    this.clock = options.clock;
    this.watch = options.watch;
    this.dice = options.dice;
  }

  /** The replica that runs and can be reached; undefined while there is none. */
  get running(): Running | undefined {
    return this.current;
  }

  /** Whether a process exists, open for business or not. */
  get isUp(): boolean {
    return this.process !== undefined;
  }

  startAfter(delayMs: number): void {
    this.life += 1;
    const { life } = this;
    this.context.time.after(delayMs, () => {
      if (life === this.life && this.process === undefined && this.isWanted) this.start();
    });
  }

  /** A process begins; it opens the store, and then serves. */
  start(): void {
    this.life += 1;
    const process = new SimProcess(this.context.time);
    process.turnMs = this.turnMs;
    this.process = process;
    this.open(process).then(
      () => {
        this.failedStarts = 0;
        if (this.roomBytes === undefined) this.hasDiskTrouble = false;
      },
      (error: unknown) => {
        if (this.process === process) this.startFailed(error);
      },
    );
  }

  /** The process dies at once. With a power cut, what was not synced is at the mercy of the dice. */
  kill(how: 'killed' | 'power-cut'): void {
    const { process } = this;
    this.life += 1;
    if (process !== undefined) {
      process.kill();
      this.context.network.detach(this.nodeId, how);
    }
    this.process = this.current = undefined;
    this.volume = how === 'killed' ? this.volume.afterKill(this.dice) : this.volume.afterPowerCut(this.dice);
  }

  /** Stops in good order, as SIGTERM does, and starts again; killed when stopping takes too long. */
  restart(withinMs: number, backAfterMs: number): void {
    const { current, process } = this;
    if (current === undefined || process === undefined) return;
    const again = (): void => {
      if (this.process !== process) return;
      this.kill('killed');
      this.startAfter(backAfterMs);
    };
    this.context.time.after(withinMs, again);
    const { replica, store } = current;
    replica.drain();
    replica
      .idle()
      .then(() => replica.stop())
      .then(() => store.close())
      .then(again, again);
  }

  /** The process stands still. */
  pause(forMs: number): void {
    this.process?.pause(forMs);
  }

  setTurn(turnMs: number): void {
    this.turnMs = turnMs;
    if (this.process !== undefined) this.process.turnMs = turnMs;
  }

  /** Its disk takes so many more bytes, or as many as there are. */
  limitDisk(roomBytes: number | undefined): void {
    this.roomBytes = roomBytes;
    if (roomBytes !== undefined) this.hasDiskTrouble = true;
    this.applyLimit();
  }

  /** The member has another volume from now on, which holds less than what it has acknowledged. Not while it is up. */
  replaceVolume(volume: Volume): void {
    this.volume = volume;
    this.applyLimit();
    this.watch.forget();
  }

  private setAside(): void {
    this.replaceVolume(new Volume());
    this.context.lost(this.nodeId);
  }

  private applyLimit(): void {
    const { files, rows } = this.volume;
    const { roomBytes = Number.MAX_SAFE_INTEGER } = this;
    files.capacityBytes = files.usedBytes + roomBytes;
    rows.capacityBytes = rows.bytes + roomBytes;
  }

  private async open(process: SimProcess): Promise<void> {
    const { settings, network, trace } = this.context;
    const logger = new SimLogger(trace, this.nodeId, (message) => this.context.logged(this.nodeId, message));
    const common = { clock: this.clock, scheduler: process, random: this.dice.fork(), logger };
    const store = await LogStore.open({
      ...common,
      rules: this.context.storageRules,
      ...this.opening(process),
      partitions: settings.partitions,
      limits: settings.limits,
    });
    this.watch.opened(store);
    const replica = await createReplica({
      ...common,
      nodeId: this.nodeId,
      namespace: NAMESPACE,
      name: CLUSTER_NAME,
      store,
      transport: network.transport(this.nodeId, process),
      discovery: {
        locate: () =>
          Promise.resolve(this.context.names().map((name) => ({ nodeId: name, host: name, port: 50052 }))),
      },
      settings: settings.replication,
      rules: this.context.rules,
      metrics: {
        count: (name, amount = 1) => trace.count(name, amount),
        gauge: (name, value) => {
          if (name === 'clock_outlier' && value > 0) trace.count('a clock is off', 1);
        },
        gaugePeer: () => undefined,
      },
    });
    this.current = { process, store, replica };
    network.attach({ name: this.nodeId, process, replica, monotonicMs: () => this.clock.monotonicMs() });
    trace.note('started', () => this.nodeId);
    replica.fatal.catch((error: unknown) => {
      if (this.process === process) this.failed(error);
    });
  }

  private opening(process: SimProcess): { disk: SimDisk; state: SimState } {
    const { files, rows } = this.volume;
    const { disk: pace } = this.context.settings;
    const vary = (meanMs: number): number => meanMs * this.diskSlowness * (0.5 + this.dice.fraction());
    return {
      disk: new SimDisk(files, process, {
        operation: () => vary(pace.operationMs),
        sync: () => vary(pace.syncMs),
      }),
      state: new SimState({
        rows,
        process,
        commitMs: () => vary(pace.commitMs),
        failure: () => (rows.bytes >= rows.capacityBytes ? diskError('ENOSPC', 'state') : undefined),
      }),
    };
  }

  private startFailed(error: unknown): void {
    const { trace, violated } = this.context;
    trace.note('start failed', () => `${this.nodeId}: ${messageOf(error)}`);
    this.kill('killed');
    if (error instanceof StoreCorrupt) {
      violated(
        `the store of ${this.nodeId} is corrupt after crashes that it must survive: ${messageOf(error)}`,
      );
      this.setAside();
    }
    this.failedStarts += 1;
    this.startAfter(Math.min(50 * 2 ** this.failedStarts, 1000));
  }

  /** The process cannot go on and exits, to be started anew. */
  private failed(error: unknown): void {
    const { trace, violated } = this.context;
    trace.note('exited', () => `${this.nodeId}: ${messageOf(error)}`);
    this.kill('killed');
    const kind = error instanceof FatalError ? error.kind : undefined;
    const retired = kind === 'retired' && this.context.isRetired(this.nodeId);
    if (retired) this.replaceVolume(new Volume());
    else if (kind === 'retired') this.setAside();
    // A volume that was rolled back may look like a copy of what came after it.
    const rolledBack = (kind === 'retired' || kind === 'copied-volume') && this.rolledBack;
    if (retired || rolledBack) this.startAfter(50);
    else if (kind !== 'store-failed') violated(`${this.nodeId} had to stop: ${messageOf(error)}`);
    else if (!this.hasDiskTrouble)
      violated(`the store of ${this.nodeId} failed without a fault of its disk: ${messageOf(error)}`);
    this.startAfter(50);
  }
}
