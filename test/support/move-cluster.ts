import { expect } from 'chai';
import { type ClusterMap, memberOf, quorumOf } from '../../model/cluster-map.ts';
import { forceRemoveReplicas, markDown, partitionsAtRisk, replaceVolume } from '../../model/map-commands.ts';
import { isSameSet, problemWithMap } from '../../model/map-check.ts';
import { type DesiredCluster, nextStep, type Reports } from '../../model/moves.ts';
import { isIncoming, replicaSets } from '../../model/replica-sets.ts';
import { MoveNode } from './move-nodes.ts';

/** Chooses a number below `count`. */
export type Choose = (count: number) => number;

/** What a writer has read and not yet acted upon. */
interface Intention {
  readonly map: ClusterMap;
  readonly desired: DesiredCluster;
  readonly reports: Reports;
}

/**
 * A cluster of fake nodes and writers of the map that act in any order, late, twice or not at all, with clients that write
 * and read at QUORUM. Every step expects what must hold whatever happens.
 */
export class MoveCluster {
  readonly nodes = new Map<string, MoveNode>();
  desired: DesiredCluster;
  /** Why maps were published, in order. */
  readonly history: string[] = [];
  published: ClusterMap;
  private readonly choose: Choose;
  private readonly intentions: Intention[] = [];
  /** Per partition, the writes acknowledged at QUORUM. */
  private readonly acknowledged: Set<number>[];
  private readonly givenUp = new Set<string>();
  private writes = 0;
  private incarnations = 0;

  constructor(first: ClusterMap, desired: DesiredCluster, choose: Choose) {
    this.published = first;
    this.desired = desired;
    this.choose = choose;
    this.acknowledged = first.assignment.map(() => new Set<number>());
    this.startWanted();
  }

  /** Starts a blank node for each wanted member that has none. */
  startWanted(): void {
    for (const { nodeId } of this.desired.members) {
      if (this.nodes.has(nodeId)) continue;
      this.incarnations += 1;
      this.nodes.set(nodeId, new MoveNode(nodeId, this.incarnations));
    }
  }

  get reports(): Reports {
    return new Map(this.up.map((node) => [node.nodeId, node.report()]));
  }

  /** One thing happens. */
  step(): void {
    const actions = [
      () => this.deliver(),
      () => this.deliver(),
      () => this.compare(),
      () => this.compare(),
      () => this.compare(),
      () => this.dropResidue(),
      () => this.intend(),
      () => this.act(),
      () => this.write(),
      () => this.read(),
    ];
    this.pick(actions)?.();
  }

  /** Everybody does all that is to be done, once. */
  round(): void {
    for (const node of this.up) this.deliverTo(node);
    for (const node of this.up) {
      for (const partition of node.held) {
        for (const { nodeId } of this.up) this.compareOf(node, partition, nodeId);
      }
      for (const partition of node.residue) node.stored.delete(partition);
    }
    this.drive({ map: this.published, desired: this.desired, reports: this.reports });
    for (const partition of this.published.assignment.keys()) this.readAt(partition);
  }

  /** Takes a node away or brings it back. */
  toggle(): void {
    const node = this.pick([...this.nodes.values()]);
    if (node === undefined) return;
    node.isUp = !node.isUp;
    // Who gives up a member sees to it that it serves nobody by the map that it had.
    if (node.isUp && this.givenUp.delete(node.nodeId)) this.deliverTo(node);
  }

  /** Somebody notices that a member does not answer, and marks it down. */
  markDown(): void {
    const gone = this.published.members.filter(
      ({ nodeId, state }) => state !== 'down' && this.nodes.get(nodeId)?.isUp !== true,
    );
    const others = this.published.members.filter(({ state }) => state !== 'down').length;
    const member = this.pick(gone);
    if (member === undefined || others < 2 || !this.published.initialised) return;
    this.publish(markDown(this.published, member.nodeId), `${member.nodeId} is marked down`);
  }

  /** A disk is replaced, when that loses nothing. */
  replaceVolume(): void {
    const node = this.pick(this.up);
    if (node === undefined || memberOf(this.published, node.nodeId) === undefined) return;
    if (!this.published.initialised || node.map?.epoch !== this.published.epoch) return;
    if (partitionsAtRisk(this.published, [node.nodeId], this.reports).length > 0) return;
    if (this.up.some((other) => other.report().fillingPartitions > 0)) return;
    const before = node.incarnation;
    this.publish(replaceVolume(this.published, node.nodeId, before), `${node.nodeId} gets a new volume`);
    this.incarnations += 1;
    node.loseVolume(this.incarnations);
  }

  /** A person gives up members that are down. */
  forceRemove(): void {
    const down = this.published.members.filter(
      ({ nodeId, state }) => state === 'down' && this.nodes.get(nodeId)?.isUp !== true,
    );
    const isBehind = this.published.members.some(
      ({ nodeId, state }) => state !== 'down' && this.nodes.get(nodeId)?.map !== this.published,
    );
    if (down.length === 0 || (isBehind && this.published.moving?.phase === 2)) return;
    if (!this.published.members.some(({ state }) => state === 'active')) return;
    const { map, mayLose } = forceRemoveReplicas(
      this.published,
      down.map(({ nodeId }) => nodeId),
      this.reports,
    );
    // Here nobody agrees to a loss.
    if (mayLose.length > 0) return;
    for (const { nodeId } of down) this.givenUp.add(nodeId);
    this.publish(map, 'members that are down are given up');
  }

  private get up(): readonly MoveNode[] {
    return [...this.nodes.values()].filter(({ isUp }) => isUp);
  }

  private deliver(): void {
    const node = this.pick(this.up);
    if (node !== undefined) this.deliverTo(node);
  }

  private deliverTo(node: MoveNode): void {
    const member = memberOf(this.published, node.nodeId);
    if (this.isRetired(node)) {
      // A volume that comes back is set aside.
      this.incarnations += 1;
      node.loseVolume(this.incarnations);
      node.map = undefined;
      node.stored.clear();
    }
    if (member !== undefined) this.adopt(node, this.published);
  }

  private adopt(node: MoveNode, map: ClusterMap): void {
    node.adopt(map);
    for (const other of this.up) {
      if (memberOf(map, other.nodeId) === undefined) continue;
      other.peerIncarnations.set(node.nodeId, node.incarnation);
      node.peerIncarnations.set(other.nodeId, other.incarnation);
    }
  }

  private isRetired({ nodeId, incarnation }: MoveNode): boolean {
    return this.published.retired.some(
      (entry) => entry.nodeId === nodeId && entry.incarnation === incarnation,
    );
  }

  private compare(): void {
    const node = this.pick(this.up);
    const partition = this.pick(node?.held ?? []);
    const source = this.pick(this.up);
    if (node === undefined || partition === undefined || source === undefined) return;
    this.compareOf(node, partition, source.nodeId);
  }

  private compareOf(node: MoveNode, partition: number, nodeId: string): void {
    const { map } = node;
    const source = this.nodes.get(nodeId);
    if (map === undefined || source === undefined || source === node || !source.isUp) return;
    if (!replicaSets(map, partition).read.includes(nodeId) || !source.isReadable(partition)) return;
    // A comparison counts for the map whose epoch everybody who takes part had announced when it began.
    const isAnnounced = map.members.every(
      (member) => member.state === 'down' || (this.nodes.get(member.nodeId)?.map?.epoch ?? 0) >= map.epoch,
    );
    if (isAnnounced && source.map?.epoch === map.epoch) node.compareWith(source, partition);
  }

  private dropResidue(): void {
    const node = this.pick(this.up);
    const partition = this.pick(node?.residue ?? []);
    if (partition !== undefined) node?.stored.delete(partition);
  }

  private intend(): void {
    this.intentions.push({ map: this.published, desired: this.desired, reports: this.reports });
    if (this.intentions.length > 3) this.intentions.shift();
  }

  /** A writer acts on what it has read some time ago, or crashes before it does. */
  private act(): void {
    const at = this.choose(Math.max(1, this.intentions.length));
    const [intention] = this.intentions.splice(at, 1);
    if (intention !== undefined && this.choose(8) !== 0) this.drive(intention);
  }

  private drive({ map, desired, reports }: Intention): void {
    const step = nextStep(map, desired, reports);
    expect(nextStep(map, desired, reports), 'the same question').to.deep.equal(step);
    if (step.kind !== 'publish' || map.hash !== this.published.hash) return;
    for (const { nodeId, state } of map.members) {
      const held = this.nodes.get(nodeId)?.map?.epoch;
      if (state !== 'down') expect(held, `epoch of ${nodeId} before ${step.map.epoch}`).to.equal(map.epoch);
    }
    this.publish(step.map, step.why);
  }

  private publish(map: ClusterMap, why: string): void {
    const before = this.published;
    expect(map.epoch).to.equal(before.epoch + 1);
    expect(problemWithMap(map), why).to.equal(undefined);
    for (const { nodeId } of before.members) {
      if (memberOf(map, nodeId) === undefined) this.expectGone(nodeId, before);
    }
    if (before.moving === undefined) this.expectBlank(map);
    this.published = map;
    this.history.push(why);
    this.expectMeeting();
  }

  /** Who is taken from the map has given away everything, and its volume can not come back. */
  private expectGone(nodeId: string, before: ClusterMap): void {
    const node = this.nodes.get(nodeId);
    if (node === undefined || memberOf(before, nodeId)?.state === 'down') return;
    expect(node.stored.size, `what ${nodeId} stores when it leaves`).to.equal(0);
  }

  /** Who begins to own a partition stores nothing of it from earlier. */
  private expectBlank(map: ClusterMap): void {
    for (const { partition } of map.moving?.partitions ?? []) {
      for (const { nodeId } of map.members) {
        if (!isIncoming(map, nodeId, partition)) continue;
        const isStored = this.nodes.get(nodeId)?.stored.has(partition) === true;
        expect(isStored, `${nodeId} stores partition ${partition} that comes to it`).to.equal(false);
      }
    }
  }

  /**
   * Whatever two maps are in use at one time, what is read under the one is written to under the other, so that every
   * quorum of reads meets every quorum of writes.
   */
  private expectMeeting(): void {
    const members = this.published.members.filter(({ state }) => state !== 'down');
    const maps = new Set([
      this.published,
      ...members.flatMap(({ nodeId }) => this.nodes.get(nodeId)?.map ?? []),
    ]);
    for (const reader of maps) {
      for (const writer of maps) {
        if (reader === writer || !writer.initialised) continue;
        for (const partition of reader.assignment.keys()) {
          const { read } = replicaSets(reader, partition);
          const { write } = replicaSets(writer, partition);
          const isMet = write.some((set) => isSameSet(set, read) || meets(set, read, this.published));
          expect(isMet, `reads of ${reader.epoch} meet writes of ${writer.epoch}`).to.equal(true);
        }
      }
    }
  }

  /** A client's write at QUORUM by any member; members that hear each other agree on the newest map first. */
  private write(): void {
    const partition = this.choose(this.acknowledged.length);
    const { map, reached } = this.contact(partition);
    if (map === undefined) return;
    this.writes += 1;
    const holders = reached.filter(({ stored }) => stored.has(partition));
    for (const node of holders) node.write(partition, this.writes);
    const isAcknowledged = replicaSets(map, partition).write.every(
      (set) => holders.filter(({ nodeId }) => set.includes(nodeId)).length >= quorumOf(set.length),
    );
    if (isAcknowledged) this.acknowledged[partition]!.add(this.writes);
  }

  private read(): void {
    this.readAt(this.choose(this.acknowledged.length));
  }

  /** What a quorum of the read set has together is everything that was ever acknowledged. */
  private readAt(partition: number): void {
    const { map, reached } = this.contact(partition);
    if (map === undefined) return;
    const { read } = replicaSets(map, partition);
    const answers = reached
      .filter((node) => read.includes(node.nodeId) && node.isReadable(partition))
      .slice(0, quorumOf(read.length));
    if (answers.length < quorumOf(read.length)) return;
    const found = new Set(answers.flatMap((node) => [...node.writesOf(partition)]));
    for (const write of this.acknowledged[partition]!) {
      expect(found.has(write), `write ${write} of partition ${partition} at epoch ${map.epoch}`).to.equal(
        true,
      );
    }
  }

  /** Who a member reaches for an operation, in some order; nobody when it may not coordinate the partition. */
  private contact(partition: number): {
    readonly map: ClusterMap | undefined;
    readonly reached: readonly MoveNode[];
  } {
    const nothing = { map: undefined, reached: [] };
    const living = this.up.filter(({ map }) => map !== undefined);
    const reached = this.shuffled(living).slice(0, 1 + this.choose(living.length + 2));
    const map = reached
      .map((node) => node.map)
      .reduce((a, b) => ((b?.epoch ?? 0) > (a?.epoch ?? 0) ? b : a), undefined);
    const coordinator = reached[0];
    if (map === undefined || coordinator === undefined) return nothing;
    const talking = reached.filter(
      (node) => memberOf(map, node.nodeId) !== undefined && !this.isRetired(node),
    );
    for (const node of talking) this.adopt(node, map);
    const mayCoordinate =
      talking.includes(coordinator) &&
      replicaSets(map, partition).read.includes(coordinator.nodeId) &&
      coordinator.isReadable(partition);
    return mayCoordinate ? { map, reached: talking } : nothing;
  }

  private shuffled<T>(list: readonly T[]): readonly T[] {
    return list
      .map((element) => ({ element, at: this.choose(1000) }))
      .toSorted((a, b) => a.at - b.at)
      .map(({ element }) => element);
  }

  private pick<T>(list: readonly T[]): T | undefined {
    return list[this.choose(Math.max(1, list.length))];
  }
}

/** Whether every quorum of the one set meets every quorum of the other, as far as their members are not given up. */
function meets(write: readonly string[], read: readonly string[], map: ClusterMap): boolean {
  const living = new Set([...write, ...read].filter((nodeId) => memberOf(map, nodeId)?.state !== 'down'));
  return quorumOf(write.length) + quorumOf(read.length) > living.size;
}
