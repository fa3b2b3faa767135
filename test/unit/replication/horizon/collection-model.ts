import { sealMap } from '../../../../model/cluster-map.ts';
import { compareVersions, newestVersion, NO_VERSION, type Version } from '../../../../model/version.ts';
import { PartitionSet } from '../../../../node/cluster/partition-set.ts';
import { HybridClock } from '../../../../node/replication/hybrid-clock.ts';
import { Horizons } from '../../../../node/replication/horizon/horizons.ts';
import { Disturbances } from '../../../../node/replication/horizon/label.ts';
import { LowWater } from '../../../../node/replication/horizon/low-water.ts';
import { isCollectable, isCovered } from '../../../../node/replication/horizon/rules.ts';
import { type HorizonReport, judgeCollection } from '../../../../node/replication/horizon/verdict.ts';
import type { SafetyRules } from '../../../../node/replication/safety-rules.ts';
import { liveRecord, tombstoneRecord } from '../../../../node/storage/record.ts';
import type { Store, StoredRecord } from '../../../../node/storage/store.ts';
import { memberNamed } from '../../../support/member.ts';

/*
 * Three replicas of one partition as a model: logs, cursors, syncs, crashes, lost disks and comparisons are a few lines
 * each, and everything that decides about horizons is the production code. Streams carry entries in order; repairs
 * travel alone and may arrive much later.
 */

export const KEYS: readonly string[] = ['a', 'b'];
export const START_MS = 1_800_000_000_000;

const NAMES = ['kv-0', 'kv-1', 'kv-2'];
const AGE_MS = 5_000;
const LAG_MS = 2_000;

const MAP = sealMap({
  clusterId: 'c0ffee00c0ffee00c0ffee00c0ffee00',
  namespace: 'default',
  name: 'kv',
  epoch: 1,
  partitions: 1,
  replicationFactor: 3,
  initialised: true,
  members: NAMES.map(memberNamed),
  retired: [],
  assignment: [[0, 1, 2]],
});

interface OwnEntry {
  readonly sequence: number;
  readonly key: string;
  readonly record: StoredRecord;
}

/** What is on disk, or about to be. */
export interface Volume {
  readonly incarnation: number;
  readonly boot: number;
  readonly uncleanBoot: number;
  readonly log: readonly OwnEntry[];
  readonly sequenceCeiling: number;
  readonly records: ReadonlyMap<string, StoredRecord>;
  /** By name and incarnation of the origin. */
  readonly cursors: ReadonlyMap<string, number>;
  readonly meta: ReadonlyMap<string, Buffer>;
  readonly clockMs: number;
  readonly readable: boolean;
}

interface Session {
  /** Newest report that came on it. */
  report: HorizonReport | undefined;
  acknowledged: number;
  sent: number;
}

interface InFlight {
  readonly to: ModelNode;
  readonly key: string;
  readonly record: StoredRecord;
  readonly horizonMs: number;
  readonly returned: boolean;
}

const cursorName = (name: string, incarnation: number): string => `${name} ${incarnation}`;

export class ModelNode {
  readonly name: string;
  readonly cluster: ModelCluster;
  now: Volume;
  synced: Volume;
  skewMs = 0;
  up = false;
  /** Sequences up to here may have been used before this start. */
  usedBefore = 0;
  readonly sessions = new Map<ModelNode, Session>();
  /** Entries of others that they had not announced as synced. */
  readonly tails = new Map<ModelNode, { incarnation: number; entries: OwnEntry[] }>();
  settledWith = new Map<string, string>();
  fillSources = new Map<string, number>();
  clock!: HybridClock;
  lowWater!: LowWater;
  horizons!: Horizons;
  disturbances!: Disturbances;

  constructor(cluster: ModelCluster, name: string) {
    this.cluster = cluster;
    this.name = name;
    this.now = this.synced = blankVolume(cluster.nextIncarnation(), true);
    this.start();
  }

  get wallMs(): number {
    return START_MS + this.cluster.nowMs + this.skewMs;
  }

  change(change: Partial<Volume>): void {
    this.now = { ...this.now, ...change };
  }

  sync(): void {
    const last = this.now.log.at(-1)?.sequence ?? 0;
    this.change({ sequenceCeiling: Math.max(this.now.sequenceCeiling, this.usedBefore + 5, last + 5) });
    this.synced = this.now;
  }

  start(): void {
    this.up = true;
    const clock = { wallMs: () => this.wallMs, monotonicMs: () => this.cluster.nowMs };
    const durable = this.synced;
    this.now = durable;
    this.usedBefore = durable.sequenceCeiling;
    // eslint-disable-next-line @typescript-eslint/no-this-alias -- the store is a view of the node
    const node = this;
    const store = {
      partitions: 1,
      get clockCeilingMs() {
        return node.synced.clockMs;
      },
      readMeta: (name: string) => node.synced.meta.get(name),
      writeMeta: (name: string, value: Buffer) => {
        node.change({ meta: new Map([...node.now.meta, [name, value]]) });
        node.sync();
        return Promise.resolve();
      },
      raiseClockCeiling: (wallMs: number) => {
        node.change({ clockMs: Math.max(node.now.clockMs, wallMs) });
        node.sync();
        return Promise.resolve();
      },
      latest: (key: Buffer) => node.now.records.get(key.toString()),
    };
    this.clock = new HybridClock({
      clock,
      store: store as unknown as Store,
      writer: () => this.now.incarnation,
      skewBoundMs: 2000,
      ceilingStepMs: 500,
    });
    this.lowWater = new LowWater({
      clock,
      mintClock: this.clock,
      head: durable.log.at(-1)?.sequence ?? 0,
      ceilingMs: () => store.clockCeilingMs,
      raiseCeiling: (wallMs) => store.raiseClockCeiling(wallMs),
      lagMs: LAG_MS,
    });
    this.horizons = new Horizons({ store, isReadable: () => this.now.readable, rules: this.cluster.rules });
    this.disturbances = new Disturbances({ nodeId: this.name, volume: () => this.now });
    this.settledWith = new Map();
    this.fillSources = new Map();
  }

  stop(): void {
    this.up = false;
    for (const peer of [...this.sessions.keys()]) this.disconnect(peer);
  }

  /** What was not synced is lost. */
  crash(): void {
    this.stop();
    const boot = this.synced.boot + 1;
    this.synced = { ...this.synced, boot, uncleanBoot: boot };
    this.start();
  }

  restart(): void {
    this.sync();
    this.stop();
    this.synced = { ...this.synced, boot: this.synced.boot + 1 };
    this.start();
  }

  /** A new volume, or an old one that goes on under a new incarnation. */
  lose(volume: Volume | undefined): void {
    this.stop();
    const incarnation = this.cluster.nextIncarnation();
    this.synced =
      volume === undefined
        ? blankVolume(incarnation, false)
        : { ...volume, incarnation, readable: false, boot: this.synced.boot + 1 };
    this.start();
    this.tails.clear();
  }

  label(): string {
    const label = this.disturbances.label(MAP, () => 1);
    return label.kind === 'known' ? label.bytes.toString('hex') : '';
  }

  report(): HorizonReport {
    const label = this.label();
    const others = NAMES.filter((name) => name !== this.name);
    const settled =
      label !== '' && this.now.readable && others.every((name) => this.settledWith.get(name) === label);
    return {
      lowWaterMs: this.lowWater.valueMs,
      label: Buffer.from(label, 'hex'),
      settled: PartitionSet.of(settled ? [0] : [], 1),
    };
  }

  /** A new version of a key by this node; undefined when it may not mint. */
  write(key: string, deleted: boolean): void {
    if (!this.up || !this.now.readable) return;
    const seen = newestVersion(this.now.records.get(key)?.version ?? NO_VERSION, this.horizons.mintFloor(0));
    let version = this.clock.mint(seen);
    if (version === undefined) {
      void this.clock.raise(seen);
      version = this.clock.mint(seen);
    }
    if (version === undefined) return;
    const bytes = Buffer.from(key);
    this.appendOwn(key, deleted ? tombstoneRecord(bytes, version) : liveRecord(bytes, bytes, version));
    this.cluster.minted.push({ key, version, deleted, acknowledged: false });
  }

  /** Whether it was newer than what is there. */
  apply(key: string, record: StoredRecord): boolean {
    const stored = this.now.records.get(key);
    if (stored !== undefined && compareVersions(stored.version, record.version) >= 0) return false;
    this.change({ records: new Map([...this.now.records, [key, record]]) });
    return true;
  }

  remove(keys: readonly string[]): void {
    const records = new Map(this.now.records);
    for (const key of keys) records.delete(key);
    this.change({ records });
  }

  appendOwn(key: string, record: StoredRecord): void {
    if (!this.apply(key, record)) return;
    const { log } = this.now;
    const sequence = Math.max(log.at(-1)?.sequence ?? 0, this.usedBefore) + 1;
    this.change({ log: [...log, { sequence, key, record }] });
    this.lowWater.appended(sequence, record.version.wallMs);
  }

  // What passes between two nodes

  connect(peer: ModelNode): void {
    if (!this.up || !peer.up || this === peer || this.sessions.has(peer)) return;
    for (const [one, other] of [
      [this, peer],
      [peer, this],
    ] as const) {
      one.sync(); // What came on earlier streams is synced before the new one counts.
      const tail = one.tails.get(other);
      const cursor = one.now.cursors.get(cursorName(other.name, other.now.incarnation)) ?? 0;
      one.disturbances.heard(other.name, other.now);
      other.sessions.set(one, { report: undefined, acknowledged: cursor, sent: cursor });
      if (tail?.incarnation === other.now.incarnation) one.returnTail(other, tail.entries);
      one.tails.set(other, { incarnation: other.now.incarnation, entries: [] });
    }
  }

  disconnect(peer: ModelNode): void {
    this.sessions.delete(peer);
    peer.sessions.delete(this);
  }

  private returnTail(to: ModelNode, entries: readonly OwnEntry[]): void {
    const head = to.now.log.at(-1)?.sequence ?? 0;
    for (const { key } of entries.filter(({ sequence }) => sequence > head)) {
      const record = this.now.records.get(key);
      if (record === undefined) continue;
      this.cluster.inFlight.push({
        to,
        key,
        record,
        horizonMs: this.horizons.effectiveMs(0),
        returned: true,
      });
    }
  }

  /** Own entries go to a peer; what it applied is not synced yet. */
  send(peer: ModelNode, most: number): void {
    const session = this.sessions.get(peer);
    if (session === undefined) return;
    // Beyond the durable ceiling an entry may get its sequence once more.
    const shown = this.now.log.filter(({ sequence }) => sequence <= this.synced.sequenceCeiling);
    for (const entry of shown.filter(({ sequence }) => sequence > session.sent).slice(0, most)) {
      const stored = this.now.records.get(entry.key);
      const newer = stored !== undefined && compareVersions(stored.version, entry.record.version) > 0;
      peer.receive(this, entry, newer ? stored : entry.record);
      session.sent = entry.sequence;
    }
  }

  private receive(from: ModelNode, entry: OwnEntry, record: StoredRecord): void {
    const { key, sequence } = entry;
    this.clock.observe(record.version);
    this.tails.get(from)?.entries.push(entry);
    if (this.horizons.supersederOf(Buffer.from(key), 0, record) === undefined) this.apply(key, record);
    const name = cursorName(from.name, from.now.incarnation);
    this.change({ cursors: new Map([...this.now.cursors, [name, sequence]]) });
  }

  acknowledge(origin: ModelNode): void {
    const session = origin.sessions.get(this);
    if (session === undefined) return;
    const cursor = this.synced.cursors.get(cursorName(origin.name, origin.now.incarnation)) ?? 0;
    session.acknowledged = Math.max(session.acknowledged, cursor);
  }

  /** What was acknowledged is remembered while a peer is away, for as long as it has the same volume. */
  private readonly remembered = new Map<string, number>();

  beat(): void {
    if (!this.up) return;
    const syncedHead = this.synced.log.at(-1)?.sequence ?? 0;
    const acknowledged = this.cluster.nodes.flatMap((peer) => {
      if (peer === this) return [];
      const name = `${peer.name} ${peer.now.incarnation} ${this.now.incarnation}`;
      const known = Math.max(this.remembered.get(name) ?? 0, this.sessions.get(peer)?.acknowledged ?? 0);
      this.remembered.set(name, known);
      return known;
    });
    this.lowWater.note(Math.min(syncedHead, ...acknowledged), this.sessions.size === NAMES.length - 1);
    const report = this.report();
    for (const [peer] of this.sessions) {
      const theirs = peer.sessions.get(this);
      if (theirs !== undefined) theirs.report = report;
    }
  }

  /** Raises the horizon as far as it may rise; true when it rose. */
  async decide(): Promise<boolean> {
    const label = this.disturbances.label(MAP, () => 1);
    const byName = new Map([...this.sessions].map(([peer, session]) => [peer.name, session.report]));
    const verdict = judgeCollection({
      nodeId: this.name,
      map: MAP,
      label,
      member: (name) => {
        const report = name === this.name ? this.report() : byName.get(name);
        return report === undefined ? { kind: 'silent', sinceMs: undefined } : { kind: 'heard', report };
      },
      wallMs: this.wallMs,
      latestWallMs: this.wallMs,
      ageMs: AGE_MS,
      stepMs: 1000,
      slowMs: 60_000,
      rules: this.cluster.rules,
    });
    const { targetMs } = verdict;
    if (!this.now.readable || targetMs <= this.horizons.storedMs(0) || verdict.freezeOf(0) !== undefined)
      return false;
    await this.horizons.raise([[0, targetMs]]);
    return true;
  }

  purge(): void {
    const horizonMs = this.horizons.effectiveMs(0);
    const due = [...this.now.records].flatMap(([key, record]) =>
      isCollectable(record, horizonMs) ? key : [],
    );
    this.remove(due);
    this.cluster.counts.collected += due.length;
  }

  private async follow(horizonMs: number): Promise<void> {
    if (!this.now.readable || this.label() === '' || horizonMs > this.wallMs) return;
    await this.horizons.raise([[0, horizonMs]]);
    this.purge();
  }

  /** All keys of both sides, at once; counts for both. */
  async compare(peer: ModelNode): Promise<void> {
    if (!this.sessions.has(peer) || (!this.now.readable && !peer.now.readable)) return;
    this.sync();
    peer.sync();
    const begun = [this.label(), peer.label()] as const;
    await this.follow(peer.horizons.effectiveMs(0));
    await peer.follow(this.horizons.effectiveMs(0));
    const equal = (): boolean =>
      KEYS.every((key) => sameRecord(this.now.records.get(key), peer.now.records.get(key)));
    this.pull(peer);
    peer.pull(this);
    this.sync();
    peer.sync();
    // Refused ghosts, and what only one side has collected, are as good as equal.
    if (!equal() && this.horizons.effectiveMs(0) === peer.horizons.effectiveMs(0)) {
      this.purge();
      peer.purge();
      if (!equal()) throw new Error('a comparison left a difference');
    }
    if (begun[0] !== '') this.settledWith.set(peer.name, begun[0]);
    if (begun[1] !== '') peer.settledWith.set(this.name, begun[1]);
    for (const [one, other] of [
      [this, peer],
      [peer, this],
    ] as const) {
      if (one.now.readable || !other.now.readable) continue;
      one.fillSources.set(other.name, other.horizons.effectiveMs(0));
      if (one.fillSources.size < 2) continue;
      await one.horizons.raise([[0, Math.max(...one.fillSources.values())]]);
      one.change({ readable: true });
      one.sync();
    }
  }

  private pull(peer: ModelNode): void {
    const horizonMs = peer.horizons.effectiveMs(0);
    for (const key of KEYS) {
      const theirs = peer.now.records.get(key);
      const mine = this.now.records.get(key);
      if (theirs !== undefined) {
        if (this.horizons.admit(Buffer.from(key), 0, theirs, horizonMs) === 'apply') this.apply(key, theirs);
      } else if (!this.now.readable && mine !== undefined && isCovered(mine.version, horizonMs)) {
        this.remove([key]);
      }
    }
  }

  /** Something reads a record here and brings it to others, some time. */
  offer(key: string, to: ModelNode): void {
    const record = this.synced.records.get(key);
    if (!this.sessions.has(to) || record === undefined) return;
    this.cluster.inFlight.push({ to, key, record, horizonMs: this.horizons.effectiveMs(0), returned: false });
  }
}

function blankVolume(incarnation: number, readable: boolean): Volume {
  return {
    incarnation,
    boot: 1,
    uncleanBoot: 0,
    log: [],
    sequenceCeiling: 0,
    records: new Map(),
    cursors: new Map(),
    meta: new Map(),
    clockMs: 0,
    readable,
  };
}

function sameRecord(a: StoredRecord | undefined, b: StoredRecord | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return compareVersions(a.version, b.version) === 0;
}

export class ModelCluster {
  readonly rules: SafetyRules;
  readonly nodes: readonly ModelNode[];
  nowMs = 0;
  inFlight: InFlight[] = [];
  readonly minted: { key: string; version: Version; deleted: boolean; acknowledged: boolean }[] = [];
  readonly counts = { raised: 0, collected: 0, refused: 0 };
  private incarnations = 0;

  constructor(rules: SafetyRules) {
    this.rules = rules;
    this.nodes = NAMES.map((name) => new ModelNode(this, name));
  }

  nextIncarnation(): number {
    this.incarnations += 1;
    return this.incarnations;
  }

  node(index: number): ModelNode {
    const node = this.nodes[index % this.nodes.length];
    if (node === undefined) throw new Error(`no node ${index}`);
    return node;
  }

  deliver(index: number): void {
    const message = this.inFlight.splice(index % Math.max(1, this.inFlight.length), 1)[0];
    if (message === undefined || !message.to.up) return;
    const { to, key, record, horizonMs, returned } = message;
    to.clock.observe(record.version);
    if (to.horizons.admit(Buffer.from(key), 0, record, horizonMs) !== 'apply') {
      this.counts.refused += 1;
      return;
    }
    if (returned) to.appendOwn(key, record);
    else to.apply(key, record);
  }

  /** What two replicas hold durably was, or could have been, acknowledged at QUORUM. */
  private noteAcknowledged(): void {
    for (const write of this.minted) {
      if (write.acknowledged) continue;
      const holders = this.nodes.filter(
        ({ synced }) =>
          compareVersions(synced.records.get(write.key)?.version ?? NO_VERSION, write.version) === 0,
      );
      write.acknowledged = holders.length >= 2;
    }
  }

  private newestAcknowledged(key: string): Version {
    return this.minted.reduce(
      (newest, write) =>
        write.key === key && write.acknowledged ? newestVersion(newest, write.version) : newest,
      NO_VERSION,
    );
  }

  private wasDeletedSince(key: string, version: Version): boolean {
    return this.minted.some(
      (write) => write.key === key && write.deleted && compareVersions(write.version, version) >= 0,
    );
  }

  /** No own version below the mark is missing at a replica that has not lost its data, unless it was collected there. */
  private checkLowWater(): void {
    for (const node of this.nodes) {
      for (const { key, record } of node.up ? node.now.log : []) {
        if (record.version.wallMs >= node.lowWater.valueMs) continue;
        for (const peer of this.nodes) {
          if (
            !peer.synced.readable ||
            (peer !== node && node.disturbances.memberOf(peer.synced.incarnation) === undefined)
          )
            continue;
          const held = peer.synced.records.get(key);
          const gone = held === undefined && isCovered(record.version, peer.horizons.storedMs(0));
          if (gone || compareVersions(held?.version ?? NO_VERSION, record.version) >= 0) continue;
          throw new Error(
            `${node.name} claims that all hold what it wrote before ${node.lowWater.valueMs}, and ${peer.name} lacks ${record.version.wallMs} of ${key}`,
          );
        }
      }
    }
  }

  /**
   * Below the largest horizon every readable replica holds whatever is newest anywhere or was acknowledged, or nothing
   * because that was deleted.
   */
  private checkHorizons(): void {
    const horizonMs = Math.max(...this.nodes.map(({ horizons }) => horizons.effectiveMs(0)));
    for (const key of KEYS) {
      const stored = this.nodes.flatMap(({ now, synced }) =>
        [now, synced].map(({ records }) => records.get(key)),
      );
      const acknowledged = this.minted.filter((write) => write.key === key && write.acknowledged);
      const newest = [...stored, ...acknowledged].reduce(
        (best, known) =>
          known !== undefined && isCovered(known.version, horizonMs)
            ? newestVersion(best, known.version)
            : best,
        NO_VERSION,
      );
      for (const node of this.nodes) {
        if (!node.synced.readable || newest === NO_VERSION) continue;
        const held = node.synced.records.get(key);
        const fine =
          held === undefined ? this.wasDeletedSince(key, newest) : compareVersions(held.version, newest) >= 0;
        if (!fine) throw new Error(`${node.name} lacks ${newest.wallMs} of ${key} below ${horizonMs}`);
      }
    }
  }

  /** Whoever is up and connected gets on with it for a while; `most` entries at a time. */
  exchange(most: number): void {
    this.nowMs += 500 * (1 + (most % 6));
    for (const one of this.nodes)
      for (const other of this.nodes) one.send(other, most > 1000 ? Infinity : 1 + (most % 4));
    for (const node of this.nodes) if (node.up) node.sync();
    for (const one of this.nodes) for (const other of this.nodes) one.acknowledge(other);
    for (const node of this.nodes) node.beat();
  }

  /** All pairs but one, when that exists. */
  connectAll(except = -1): void {
    const pairs = [
      [0, 1],
      [1, 2],
      [0, 2],
    ].filter((_pair, index) => index !== except);
    for (const [one = 0, other = 0] of pairs) this.node(one).connect(this.node(other));
  }

  async decide(): Promise<void> {
    for (const node of this.nodes) if (await node.decide()) this.counts.raised += 1;
  }

  async compareAll(): Promise<void> {
    for (const one of this.nodes) for (const other of this.nodes) if (one !== other) await one.compare(other);
  }

  /** All faults are over, and everything is exchanged. */
  async converge(): Promise<void> {
    for (let round = 0; round < 6; round += 1) {
      for (const node of this.nodes) {
        if (!node.up) node.start();
        node.skewMs = 0;
      }
      this.connectAll();
      while (this.inFlight.length > 0) this.deliver(0);
      this.exchange(1003);
      await this.compareAll();
      for (const node of this.nodes) node.beat();
      await this.decide();
      for (const node of this.nodes) node.purge();
      for (const node of this.nodes) node.sync();
    }
  }

  /** What holds at any time. */
  check(): void {
    this.noteAcknowledged();
    this.checkLowWater();
    this.checkHorizons();
  }

  checkEnd(): void {
    const [first, ...others] = this.nodes;
    for (const key of KEYS) {
      const record = first?.now.records.get(key);
      for (const node of others) {
        if (!sameRecord(record, node.now.records.get(key))) throw new Error(`${node.name} differs in ${key}`);
      }
      const acknowledged = this.newestAcknowledged(key);
      if (record === undefined) {
        if (acknowledged !== NO_VERSION && !this.wasDeletedSince(key, acknowledged)) {
          throw new Error(`${key} is gone`);
        }
      } else if (compareVersions(record.version, acknowledged) < 0) {
        throw new Error(`${key} went back from ${acknowledged.wallMs} to ${record.version.wallMs}`);
      }
    }
  }
}
