import type { ClusterMap } from '../../model/cluster-map.ts';
import { type PeerFrame, StoreState } from '../../proto/gen/peer.ts';
import { partitionOf } from '../../model/key-hash.ts';
import { holdsPartition } from '../../model/replica-sets.ts';
import { compareVersions, formatVersion, NO_VERSION } from '../../model/version.ts';
import type { StoredRecord } from '../../node/storage/store.ts';
import { Checker, type Invariant } from './checker.ts';
import { requestName } from './request-name.ts';
import { Client } from './client.ts';
import { SimClock } from './clock.ts';
import { ClusterWatch } from './cluster-watch.ts';
import { Dice } from './dice.ts';
import { Faults } from './faults.ts';
import type { ClockBounds } from './key-history.ts';
import { MapWriter } from './map-writer.ts';
import { Member, type MemberContext } from './member.ts';
import { SimNetwork } from './network.ts';
import { Prober } from './prober.ts';
import { type PlantedRule, rulesWithout } from './planted-bugs.ts';
import { type Settings, settingsOf } from './settings.ts';
import { StoreWatch } from './store-watch.ts';
import { SimTime } from './time.ts';
import { Trace } from './trace.ts';
import { Volume } from './volume.ts';

export interface WorldOptions {
  readonly seed: number;
  readonly broken: PlantedRule | undefined;
  /** Keeps the lines of the history. */
  readonly keepTrace: boolean;
}

/** Sign of the coverage. */
const FELL_OFF = 'a readable replica that had acknowledged entries fell off the log';

/** A cluster of the real code with its clients and its misfortunes: everything in it follows from the seed. */
export class World {
  readonly settings: Settings;
  readonly time = new SimTime();
  readonly trace: Trace;
  readonly network: SimNetwork;
  readonly members: readonly Member[];
  readonly writer: MapWriter;
  readonly checker: Checker;
  readonly faults: Faults;
  private readonly watch: ClusterWatch;
  private readonly dice: Dice;
  private readonly clients: readonly Client[];
  private readonly prober: Prober;
  /** Members whose volume was lost, with what they must hold before they count as whole again. */
  private readonly suspects = new Map<Member, ReadonlyMap<string, StoredRecord['version']>>();
  private operationsLeft: number;

  constructor({ seed, broken, keepTrace }: WorldOptions) {
    const dice = new Dice(seed);
    this.settings = settingsOf(seed, dice.fork());
    this.dice = dice.fork();
    const { settings, time } = this;
    this.trace = new Trace(() => time.nowMs, keepTrace);
    this.checker = new Checker({
      now: () => time.nowMs,
      clocks: () => this.clockBounds(),
      memberOf: (incarnation) =>
        this.members.find(({ running }) => running?.replica.status().volume?.incarnation === incarnation)
          ?.nodeId,
    });
    this.watch = new ClusterWatch({
      members: () => this.members,
      map: () => this.map,
      now: () => time.nowMs,
      violated: (invariant, what, key) => this.violated(invariant, what, key),
    });
    this.network = this.makeNetwork();
    const rules = rulesWithout(broken);
    const context: MemberContext = {
      time,
      trace: this.trace,
      network: this.network,
      settings,
      rules: rules.safety,
      storageRules: rules.storage,
      names: () => this.names,
      isRetired: (nodeId) => this.map?.retired.some((retired) => retired.nodeId === nodeId) ?? false,
      lost: (nodeId) => this.noteLoss(nodeId),
      violated: (what) => this.violated('nodes do not stop by themselves', what),
      logged: (nodeId, message) => this.prober.onMessage(nodeId, message),
    };
    this.members = Array.from({ length: settings.nodes + settings.spares }, (_, index) =>
      this.makeMember(context, `kv-${index}`),
    );
    this.writer = new MapWriter({
      time,
      trace: this.trace,
      network: this.network,
      partitions: settings.partitions,
      dice: this.dice.fork(),
      wishes: {
        members: this.names.slice(0, settings.nodes),
        replicationFactor: settings.replicationFactor,
        batchPartitions: settings.batchPartitions,
        zones: new Map(this.names.map((name, index) => [name, zoneOf(index, settings.zones)])),
      },
      onPods: (names) => this.setPods(names),
      onPublished: () => this.faults.onMapChange(),
      awaitsMembers: rules.safety.awaitBarrier,
    });
    this.operationsLeft = settings.workload.operations;
    this.clients = Array.from({ length: settings.workload.clients }, (_, index) =>
      this.makeClient(`client-${index}`),
    );
    this.faults = new Faults(this, this.dice.fork());
    const { trace, network, checker } = this;
    this.prober = new Prober({ time, trace, network, checker, dice: this.dice.fork() });
  }

  /** Of all machines there are. */
  get names(): readonly string[] {
    return this.members.map(({ nodeId }) => nodeId);
  }

  /** Machines that are members, or shall become some. */
  get pods(): readonly Member[] {
    return this.members.filter(({ isWanted }) => isWanted);
  }

  get map(): ClusterMap | undefined {
    return this.writer.map;
  }

  violated(invariant: Invariant, what: string, key?: string): void {
    this.trace.line(`VIOLATED ${invariant}: ${what}`);
    this.checker.violated(invariant, what, key);
  }

  /** Every process and the writer of the map begin. */
  start(): void {
    this.setPods(this.writer.wishes.members);
    this.writer.start();
  }

  /** Resolves when every client is done. */
  async work(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.run()));
  }

  /** Whether the map is as wished, and every member runs, serves, and has everything of all others. */
  get inSync(): boolean {
    return (
      this.writer.idle &&
      this.members.every(({ isWanted, isUp, running }) => {
        if (!isWanted) return !isUp;
        if (running === undefined || running.replica.notReadyReason !== undefined) return false;
        return running.replica.map?.epoch === this.map?.epoch && running.replica.status().inSync;
      })
    );
  }

  /** Whether the member runs and has been accepted by all others. */
  isConnected({ running }: Member): boolean {
    return running?.replica.status().peers.every(({ connected }) => connected) ?? false;
  }

  /** How many volumes may be lost at the same time: as many as leave one of every majority, by any map there may be soon. */
  get losses(): number {
    const { map, writer, settings } = this;
    if (map?.initialised !== true) return 0;
    const { wishes } = writer;
    const copies = Math.min(
      map.replicationFactor,
      wishes.replicationFactor,
      map.members.filter(({ state }) => state !== 'draining').length,
      wishes.members.length,
      ...map.assignment.map(({ length }) => length),
    );
    return Math.min(settings.losses, Math.floor(copies / 2));
  }

  /** Whether another volume may be lost now without losing what a majority acknowledged. */
  mayLose(member: Member): boolean {
    for (const [suspect, due] of this.suspects) if (isWhole(suspect, due)) this.suspects.delete(suspect);
    return this.losses > 0 && (this.suspects.has(member) || this.suspects.size < this.losses);
  }

  /** The member comes back with this volume, which holds less than it acknowledged. */
  lose(member: Member, volume: Volume): void {
    member.replaceVolume(volume);
    this.noteLoss(member.nodeId);
  }

  private setPods(names: readonly string[]): void {
    for (const member of this.members) {
      const isWanted = names.includes(member.nodeId);
      if (isWanted === member.isWanted) continue;
      member.isWanted = isWanted;
      if (isWanted) member.startAfter(this.dice.between(0, 50));
      else this.time.after(this.dice.between(0, 100), () => this.retire(member));
    }
  }

  /** The machine is not needed any more; its volume may be kept. */
  private retire(member: Member): void {
    if (member.isWanted) return;
    member.kill('killed');
    if (this.dice.chance(0.4)) member.replaceVolume(new Volume());
    this.suspects.delete(member);
  }

  private noteLoss(nodeId: string): void {
    const member = this.members.find((each) => each.nodeId === nodeId);
    if (member !== undefined) this.suspects.set(member, this.checker.acknowledged());
    this.checker.noteLoss(nodeId);
    this.watch.forget(nodeId);
  }

  private makeNetwork(): SimNetwork {
    const { time, trace, settings } = this;
    const { baseMs, jitterMs, highWaterBytes } = settings.network;
    return new SimNetwork({
      time,
      dice: this.dice.fork(),
      baseMs,
      jitterMs,
      highWaterBytes,
      connectTimeoutMs: settings.replication.handshakeMs ?? 1000,
      onDelivered: (frame, bytes, from, to) => {
        trace.mixBytes(bytes, 3);
        if (frame.body?.$case === 'entries' && frame.body.value.provisional) this.noteGap(from, to);
        this.watch.delivered(frame, from);
        if (trace.keeps) trace.line(`${from} > ${to} ${describeFrame(frame)} ${bytes.length} bytes`);
      },
    });
  }

  /** Entries of `from` arrive beyond a gap: because its log was cut, or because `to` has no volume of before. */
  private noteGap(from: string, to: string): void {
    const running = this.members.find(({ nodeId }) => nodeId === to)?.running;
    if (running === undefined || this.trace.seen.has(FELL_OFF)) return;
    const cursor = running.store.cursors().find(({ origin }) => origin === from)?.sequence ?? 0;
    const hasAll = running.replica.status().state === StoreState.READABLE;
    this.trace.count(hasAll && cursor > 0 ? FELL_OFF : 'a stream to a replica without data', 1);
  }

  private makeMember(context: MemberContext, nodeId: string): Member {
    const { dice, time, settings, checker } = this;
    const range = settings.clockOffsetMs;
    return new Member(context, {
      nodeId,
      dice: dice.fork(),
      clock: new SimClock(time, {
        offsetMs: Math.round(dice.between(-range, range)),
        monotonicBaseMs: Math.floor(dice.between(0, 1e6)),
      }),
      watch: new StoreWatch({
        nodeId,
        violated: (what, key) => this.violated('versions never go down', what, key),
        applied: (operationId, version) => checker.noteApplied(operationId, version),
        appended: (sequence, key, version) => this.watch.appended(nodeId, sequence, key, version),
        horizonsRisen: () => this.watch.horizonsRisen(nodeId),
        removed: (partition, key, record) => this.watch.removed(nodeId, partition, key, record),
        minted: (requestId, version, isFirst) => {
          // A first attempt that was long on its way asks nobody.
          if (requestId.attempt > 0 || !isFirst) checker.noteMinted(requestName(requestId), version);
        },
        line: (text) => {
          if (this.trace.keeps) this.trace.line(text());
        },
      }),
    });
  }

  private makeClient(name: string): Client {
    const { time, trace, network, checker, settings } = this;
    return new Client({
      name,
      dice: this.dice.fork(),
      ...{ time, trace, network, checker },
      workload: settings.workload,
      nodes: () => this.writer.wishes.members,
      take: () => this.operationsLeft-- > 0,
    });
  }

  private clockBounds(): ClockBounds {
    let lowestMs = 0;
    let highestMs = 0;
    for (const { clock } of this.members) {
      clock.note();
      lowestMs = Math.min(lowestMs, clock.lowestOffsetMs);
      highestMs = Math.max(highestMs, clock.highestOffsetMs);
    }
    return { lowestMs, highestMs };
  }
}

/** The first zone has no name; one zone is none. */
function zoneOf(index: number, zones: number): string {
  return index % zones === 0 ? '' : `zone-${index % zones}`;
}

/** A frame for a person. */
function describeFrame({ body }: PeerFrame): string {
  if (body?.$case === 'entries') {
    const { after, through, entries, provisional } = body.value;
    return `entries ${entries.length} of (${after}, ${through}]${provisional ? ' provisional' : ''}`;
  }
  if (body?.$case === 'ack') {
    const { applied, superseded, provisional } = body.value;
    return `ack ${applied}${superseded.length === 0 ? '' : ` superseded ${superseded.length}`}${provisional ? ' provisional' : ''}`;
  }
  if (body?.$case === 'hello') {
    const { bootCounter, head, logStart, logBase, applied, ackedByRecipient } = body.value;
    const cursors = applied.map(({ incarnation, sequence }) => `${sequence} of ${incarnation}`).join(', ');
    return `hello boot ${bootCounter} log (${logStart}, ${head}] base ${logBase} cursor ${cursors} acked ${ackedByRecipient}`;
  }
  if (body?.$case === 'lookup')
    return `lookup ${body.value.requestId?.number ?? 0} ${body.value.key.toString()}`;
  if (body?.$case === 'lookupReply') {
    const { found, unknown, version } = body.value;
    return `lookupReply ${found ? 'found' : unknown ? 'unknown' : 'not held'} ${formatVersion(version ?? NO_VERSION)}`;
  }
  return body?.$case ?? 'nothing';
}

/** Whether the member serves again, has been judged by all others, and has everything that it must have. */
function isWhole({ nodeId, running }: Member, due: ReadonlyMap<string, StoredRecord['version']>): boolean {
  const map = running?.replica.map;
  if (running === undefined || map === undefined || running.replica.notReadyReason !== undefined)
    return false;
  if (!running.replica.status().inSync) return false;
  for (const [key, version] of due) {
    if (!holdsPartition(map, nodeId, partitionOf(Buffer.from(key, 'latin1'), map.partitions))) continue;
    const held = running.store.get(Buffer.from(key, 'latin1'))?.version ?? NO_VERSION;
    if (compareVersions(held, version) < 0) return false;
  }
  return true;
}
