import type { Dice } from './dice.ts';
import type { FaultKind } from './fault-kinds.ts';
import { Lasting, type Undo } from './lasting.ts';
import type { Member } from './member.ts';
import { NetworkFaults } from './network-faults.ts';
import { Volume } from './volume.ts';
import type { World } from './world.ts';

const POLL_MS = 5;
const POLLS = 1000;
/** How often it is looked who has taken a new map, and how often at most. */
const LOOK_MS = 0.5;
const LOOKS = 400;
/** A clock that is off by no more stays as it is. */
const TOLERABLE_CLOCK_MS = 500;

/** Lets things go wrong, one after the other and at the same time, until it is stopped; then everything heals. */
export class Faults {
  private readonly world: World;
  private readonly dice: Dice;
  private readonly lasting: Lasting;
  private readonly network: NetworkFaults;
  private stopped = false;
  /** The cluster has come up once. */
  private begun = false;
  /** Nothing may go wrong now. */
  private calm = false;

  constructor(world: World, dice: Dice) {
    this.world = world;
    this.dice = dice;
    this.lasting = new Lasting(world.time);
    this.network = new NetworkFaults(world, dice, this.lasting);
  }

  start(): void {
    const { time, settings } = this.world;
    this.begun = true;
    time.after(this.dice.wait(settings.faultEveryMs), () => {
      if (this.stopped) return;
      this.inflict(this.dice.pick(settings.faults));
      this.start();
    });
  }

  /** The map has changed: what is under way then is what a move must bear. */
  onMapChange(): void {
    const { dice, world } = this;
    const { faults } = world.settings;
    if (faults.includes('map-split') && dice.chance(0.5)) this.splitMap();
    if (!dice.chance(0.3)) return;
    world.time.after(dice.between(0, 100), () => {
      // While the cluster comes up, a change that brings on others would keep it from ever being done.
      const kinds = this.begun ? faults : faults.filter((kind) => kind !== 'map-change');
      if (!this.stopped && kinds.length > 0) this.inflict(dice.pick(kinds));
    });
  }

  /** No more faults; what lasts ends now, every member is started, and clocks that are off are set. */
  stop(): void {
    this.stopped = true;
    this.heal();
    for (const { clock } of this.world.pods) clock.setRight(TOLERABLE_CLOCK_MS);
    this.world.writer.kill();
    this.world.writer.start();
  }

  private inflict(kind: FaultKind): void {
    if (this.calm) return;
    const { trace } = this.world;
    const what = this.act(kind);
    if (what !== undefined) trace.note(`fault: ${kind}`, () => what);
  }

  /** Does it, and says what was done; undefined when it cannot be done now. */
  private act(kind: FaultKind): string | undefined {
    switch (kind) {
      case 'drop':
        return this.network.dropStream();
      case 'duplicate':
        return this.network.loseAcknowledgements();
      case 'reorder':
        return this.network.overtake();
      case 'delay':
        return this.network.delayLink();
      case 'partition':
        return this.network.partition();
      case 'bridge':
        return this.network.bridge();
      case 'swizzle':
        return this.swizzle();
      case 'relay':
        return this.relay();
      case 'one-way':
        return this.network.oneWay();
      case 'kill':
      case 'power-cut':
        return this.crash(this.member(), kind === 'kill' ? 'killed' : 'power-cut');
      case 'power-cut-of-all':
        return this.world.pods.map((member) => this.crash(member, 'power-cut')).join('; ');
      case 'restart':
        return this.restart();
      case 'disk-loss':
        return this.loseDisk();
      case 'rollback':
        return this.rollBack();
      case 'disk-full':
        return this.fillDisk();
      case 'clock-jump':
        return this.jumpClock();
      case 'clock-drift':
        return this.driftClock();
      case 'slow-disk':
        return this.slowDisk();
      case 'pause':
        return this.pause();
      case 'writer-crash':
        return this.crashWriter();
      case 'map-change':
        return this.changeWishes();
      case 'map-split':
        // When the map changes, which may be due now.
        return undefined;
      case 'mark-down':
        return this.markDown();
    }
  }

  private member(): Member {
    return this.dice.pick(this.world.pods);
  }

  // One after the other

  /** Those that have to agree on something: the replicas of a partition, or anybody. */
  private group(): Member[] {
    const { dice, world } = this;
    const { pods, map } = world;
    const replicas = map === undefined || dice.chance(0.3) ? [] : dice.pick(map.assignment);
    const names = replicas.map((index) => map?.members[index]?.nodeId);
    const chosen = pods.filter(({ nodeId }) => names.includes(nodeId));
    return dice.shuffled(chosen.length > 1 ? chosen : pods);
  }

  /**
   * What was acknowledged by those that are left is met by those that missed it, in every order. (The idea is
   * FoundationDB's, whose simulation calls it swizzling.)
   */
  private swizzle(): string {
    const { dice, world } = this;
    const group = this.group();
    const members = group.slice(0, 2 + dice.below(group.length - 1));
    const gapMs = dice.spread(20, 1000);
    const mayDie = dice.chance(0.5);
    const cuts = new Map<Member, Undo>();
    let atMs = 0;
    const next = (step: () => void): void => {
      world.time.after(atMs, step);
      atMs += dice.wait(gapMs);
    };
    for (const member of members) {
      next(() => {
        if (this.stopped || this.calm) return;
        cuts.set(member, this.network.cutOff(member.nodeId));
        if (mayDie) this.die(member);
      });
    }
    for (const member of dice.shuffled(members)) next(() => cuts.get(member)?.());
    return `${members.map(({ nodeId }) => nodeId).join(', ')}, within ${atMs.toFixed(0)} ms`;
  }

  /** One that was away comes back just when others go, or are slow to answer: what it missed, few are there to tell. */
  private relay(): string {
    const { dice, world } = this;
    const [first, second, third] = this.group();
    if (first === undefined || second === undefined) return 'nobody';
    const awayMs = dice.spread(200, 4000);
    const thenMs = dice.spread(300, 4000);
    const dies = dice.chance(0.8);
    const back = this.network.cutOff(first.nodeId);
    world.time.after(awayMs * dice.between(0.1, 1), () => {
      if (dies && !this.stopped && !this.calm) this.die(second);
    });
    world.time.after(awayMs, () => {
      back();
      if (third === undefined || this.stopped || this.calm) return;
      if (dice.chance(0.5)) world.time.after(thenMs, this.network.cutOff(third.nodeId));
      else this.network.delayBetween(first.nodeId, third.nodeId);
    });
    return `${first.nodeId} is away for ${awayMs.toFixed(0)} ms, then others for ${thenMs.toFixed(0)} ms`;
  }

  /** It may crash, or come back without its volume, or go on. */
  private die(member: Member): void {
    const { dice, world } = this;
    if (dice.chance(0.5) && world.mayLose(member)) this.loseDiskOf(member);
    else if (dice.chance(0.5)) this.crash(member, dice.pick(['killed', 'power-cut']));
  }

  // Processes and machines

  private crash(member: Member, how: 'killed' | 'power-cut'): string {
    member.kill(how);
    const delayMs = this.dice.spread(5, 1500);
    member.startAfter(delayMs);
    return `${member.nodeId}, back after ${delayMs.toFixed(0)} ms`;
  }

  private restart(): string | undefined {
    const member = this.member();
    if (member.running === undefined) return undefined;
    const delayMs = this.dice.spread(5, 500);
    member.restart(300, delayMs);
    return member.nodeId;
  }

  private pause(): string {
    const { dice } = this;
    const member = this.member();
    if (dice.chance(0.5)) {
      const forMs = dice.spread(10, 2000);
      member.pause(forMs);
      return `${member.nodeId} for ${forMs.toFixed(0)} ms`;
    }
    const turnMs = dice.spread(0.1, 30);
    const forMs = dice.spread(50, 3000);
    member.setTurn(turnMs);
    this.lasting.later(forMs, () => member.setTurn(0));
    return `${member.nodeId} takes ${turnMs.toFixed(1)} ms a turn for ${forMs.toFixed(0)} ms`;
  }

  // Volumes

  private loseDisk(): string | undefined {
    const member = this.member();
    if (!this.world.mayLose(member)) return undefined;
    this.loseDiskOf(member);
    return member.nodeId;
  }

  private loseDiskOf(member: Member): void {
    member.kill('power-cut');
    this.world.lose(member, new Volume());
    member.startAfter(this.dice.spread(5, 1000));
  }

  /**
   * Nobody can tell that a volume was rolled back but those who heard from it since: it is only safe while they are
   * there (PROTOCOL, the table of losses). So all is well before it happens, and until everybody has judged it.
   */
  private rollBack(): string | undefined {
    const { dice, world } = this;
    const member = this.member();
    if (this.calm || !world.mayLose(member)) return undefined;
    const snapshot = member.volume.snapshot(dice);
    world.time.after(dice.spread(20, 4000), () => {
      if (this.stopped || this.calm) return;
      this.calmDown();
      this.poll(
        () => world.inSync,
        () => {
          if (!world.inSync || !world.mayLose(member)) {
            this.calm = false;
            return;
          }
          member.kill('power-cut');
          world.lose(member, snapshot);
          member.rolledBack = true;
          member.startAfter(dice.spread(5, 1000));
          world.trace.note('rolled back', () => member.nodeId);
          this.poll(
            () => world.isConnected(member),
            () => (this.calm = false),
          );
        },
      );
    });
    return `${member.nodeId}: snapshot taken`;
  }

  /** Whatever lasts ends, and nothing new goes wrong until further notice. */
  private calmDown(): void {
    this.calm = true;
    this.heal();
  }

  private heal(): void {
    this.lasting.endAll();
    for (const member of this.world.pods) if (!member.isUp) member.startAfter(0);
  }

  /** Goes on when the condition holds, or when it has not for long. */
  private poll(condition: () => boolean, then: () => void, rounds = POLLS): void {
    if (rounds === 0 || condition()) then();
    else this.world.time.after(POLL_MS, () => this.poll(condition, then, rounds - 1));
  }

  private fillDisk(): string | undefined {
    const { dice } = this;
    const member = this.member();
    if (member.hasDiskTrouble) return undefined;
    const roomBytes = Math.round(dice.spread(10, 20_000));
    const forMs = dice.spread(50, 2000);
    member.limitDisk(roomBytes);
    this.lasting.later(forMs, () => member.limitDisk(undefined));
    return `${member.nodeId} has ${roomBytes} bytes left for ${forMs.toFixed(0)} ms`;
  }

  /** In the end the power may go, when others have long had what this disk has not. */
  private slowDisk(): string {
    const { dice, world } = this;
    const member = this.member();
    const isPulled = dice.chance(0.5);
    const factor = isPulled ? dice.spread(20, 500) : dice.spread(3, 200);
    const forMs = dice.spread(50, 3000);
    member.diskSlowness = Math.max(member.diskSlowness, factor);
    this.lasting.later(forMs, () => (member.diskSlowness = 1));
    const isLagging = (): boolean => member.isUp && member.volume.files.hasUnsynced;
    const pull = (): void => {
      if (isLagging() && !this.stopped && !this.calm) this.crash(member, 'power-cut');
    };
    if (isPulled) {
      world.time.after(dice.between(0, forMs), () =>
        this.poll(isLagging, () => world.time.after(dice.spread(1, 200), pull)),
      );
    }
    return `${member.nodeId} by ${factor.toFixed(0)} for ${forMs.toFixed(0)} ms${isPulled ? ', until its power goes' : ''}`;
  }

  // Clocks

  private jumpClock(): string {
    const { dice } = this;
    const member = this.member();
    const byMs = Math.round(dice.spread(5, dice.pick([500, 3_600_000]))) * dice.pick([-1, 1]);
    member.clock.jump(byMs);
    return `${member.nodeId} by ${byMs} ms`;
  }

  private driftClock(): string {
    const { dice } = this;
    const member = this.member();
    const rate = dice.spread(0.001, 0.2) * dice.pick([-1, 1]);
    const forMs = dice.spread(200, 5000);
    member.clock.drift(rate);
    this.lasting.later(forMs, () => member.clock.drift(0));
    return `${member.nodeId} by ${(rate * 100).toFixed(2)} % for ${forMs.toFixed(0)} ms`;
  }

  // The map

  private changeWishes(): string | undefined {
    const { dice, world } = this;
    const { writer, settings } = world;
    const { members, replicationFactor, zones } = writer.wishes;
    const spare = dice.shuffled(world.names).find((name) => !members.includes(name));
    const leaving = members.length > 2 ? dice.pick(members) : undefined;
    switch (dice.pick(['join', 'leave', 'replace', 'copies', 'zone'] as const)) {
      case 'join':
        if (spare === undefined) return undefined;
        writer.wish({ members: [...members, spare] });
        return `${spare} joins`;
      case 'leave':
        if (leaving === undefined) return undefined;
        writer.wish({ members: members.filter((name) => name !== leaving) });
        return `${leaving} leaves`;
      case 'replace':
        if (leaving === undefined || spare === undefined) return undefined;
        writer.wish({ members: [...members.filter((name) => name !== leaving), spare] });
        return `${spare} replaces ${leaving}`;
      case 'copies': {
        // A single copy does not bear the loss of a volume.
        const copies = dice.pick(settings.losses === 0 ? [1, 2, 3, 4, 5] : [2, 3, 4, 5]);
        if (copies === replicationFactor) return undefined;
        writer.wish({ replicationFactor: copies });
        return `${copies} copies instead of ${replicationFactor}`;
      }
      case 'zone': {
        const name = dice.pick(members);
        const zone = dice.pick(['', 'zone-1', 'zone-2']);
        writer.wish({ zones: new Map([...zones, [name, zone]]) });
        return `${name} is in zone "${zone}"`;
      }
    }
  }

  private markDown(): string {
    const { dice } = this;
    const member = this.member();
    this.world.writer.markDown(member.nodeId);
    const what = dice.chance(0.6) ? this.crash(member, dice.pick(['killed', 'power-cut'])) : 'which is up';
    return `${member.nodeId}, ${what}`;
  }

  /** While some have the new map and some have not. */
  private splitMap(): void {
    const { dice, world } = this;
    const { map } = world;
    const taken = 1 + dice.below(Math.max(1, world.pods.length - 1));
    const look = (left: number): void => {
      if (left === 0 || this.stopped || this.calm || world.map !== map) return;
      const [have, lack] = split(world.pods, ({ running }) => running?.replica.map?.epoch === map?.epoch);
      if (have.length < taken || lack.length === 0) {
        world.time.after(LOOK_MS, () => look(left - 1));
        return;
      }
      const what = this.network.cutOffFromWriter(namesOf(have), namesOf(lack));
      world.trace.note('fault: map-split', () => what);
    };
    look(LOOKS);
  }

  private crashWriter(): string {
    const { world, dice } = this;
    world.writer.kill();
    const forMs = dice.spread(10, 2000);
    this.lasting.later(forMs, () => {
      world.writer.kill();
      world.writer.start();
    });
    return `for ${forMs.toFixed(0)} ms`;
  }
}

function namesOf(members: readonly Member[]): readonly string[] {
  return members.map(({ nodeId }) => nodeId);
}

/** Those of which it is true, and the others. */
function split<T>(items: readonly T[], isTrue: (item: T) => boolean): readonly [T[], T[]] {
  return [items.filter(isTrue), items.filter((item) => !isTrue(item))];
}
