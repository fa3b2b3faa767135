import type { Dice } from './dice.ts';
import type { FaultKind } from './fault-kinds.ts';
import type { Member } from './member.ts';
import type { SimStream } from './stream.ts';
import { Volume } from './volume.ts';
import type { World } from './world.ts';

/** What undoes a fault when its time is over. */
type Undo = () => void;

const POLL_MS = 5;
const POLLS = 1000;

/** Lets things go wrong, one after the other and at the same time, until it is stopped; then everything heals. */
export class Faults {
  private readonly world: World;
  private readonly dice: Dice;
  private readonly lasting = new Set<Undo>();
  private stopped = false;
  /** Nothing may go wrong now. */
  private calm = false;

  constructor(world: World, dice: Dice) {
    this.world = world;
    this.dice = dice;
  }

  start(): void {
    const { time, settings } = this.world;
    time.after(this.dice.wait(settings.faultEveryMs), () => {
      if (this.stopped) return;
      this.inflict(this.dice.pick(settings.faults));
      this.start();
    });
  }

  /** No more faults; what lasts ends now, and every member is started. */
  stop(): void {
    this.stopped = true;
    this.heal();
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
        return this.dropStream();
      case 'duplicate':
        return this.loseAcknowledgements();
      case 'reorder':
        return this.overtake();
      case 'delay':
        return this.delayLink();
      case 'partition':
        return this.partition();
      case 'one-way':
        return this.oneWay();
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
      case 'mark-down':
        return this.markDown();
    }
  }

  /** Undoes after a while, or when all faults end. */
  private later(forMs: number, undo: Undo): void {
    const once = (): void => {
      if (this.lasting.delete(once)) undo();
    };
    this.lasting.add(once);
    this.world.time.after(forMs, once);
  }

  private member(): Member {
    return this.dice.pick(this.world.pods);
  }

  private get names(): string[] {
    return this.dice.shuffled(this.world.pods.map(({ nodeId }) => nodeId));
  }

  // The network

  private stream(): SimStream | undefined {
    const streams = this.world.network.openStreams().filter(({ other }) => other !== undefined);
    return streams.length === 0 ? undefined : this.dice.pick(streams);
  }

  private dropStream(): string | undefined {
    const { dice, world } = this;
    const end = this.stream();
    if (end?.other === undefined) return undefined;
    world.network.breakStream(end, {
      keptFrom: dice.below(end.underWay + 1),
      keptTo: dice.below(end.other.underWay + 1),
      tellOwner: dice.chance(0.8),
      tellPeer: dice.chance(0.8),
    });
    if (dice.chance(0.5)) world.network.breakCalls(end.owner, end.peer);
    return `${end.owner} - ${end.peer}`;
  }

  private loseAcknowledgements(): string | undefined {
    const end = this.stream();
    if (end === undefined) return undefined;
    this.world.network.breakStream(end, { keptFrom: Infinity, keptTo: 0, tellOwner: true, tellPeer: true });
    return `from ${end.owner} to ${end.peer} everything arrives, and nothing back`;
  }

  /** One end thinks the stream is broken and opens another; what it had sent on the old one comes late. */
  private overtake(): string | undefined {
    const end = this.stream();
    if (end === undefined) return undefined;
    const lateMs = this.dice.spread(5, 500);
    end.delayUnderWay(lateMs);
    end.fail(new Error('the stream broke'));
    return `${end.underWay} frames from ${end.owner} to ${end.peer} come ${lateMs.toFixed(0)} ms late`;
  }

  private delayLink(): string {
    const { dice, world } = this;
    const [a, b] = this.names;
    const link = world.network.link(a ?? '', b ?? '');
    const extraMs = dice.spread(2, 300);
    const forMs = dice.spread(50, 3000);
    link.extraMs += extraMs;
    this.later(forMs, () => (link.extraMs -= extraMs));
    return `${a} > ${b} by ${extraMs.toFixed(0)} ms for ${forMs.toFixed(0)} ms`;
  }

  private partition(): string {
    const { dice } = this;
    const { names } = this;
    const size = 1 + dice.below(names.length - 1);
    const side = names.slice(0, size);
    const other = names.slice(size);
    const pairs = side.flatMap((a) => other.flatMap((b) => [`${a}>${b}`, `${b}>${a}`]));
    return this.block(pairs, `${side.join(', ')} | ${other.join(', ')}`);
  }

  private oneWay(): string {
    const { dice } = this;
    const [from, ...others] = this.names;
    const deaf = dice.chance(0.5) ? others : others.slice(0, 1);
    const inward = dice.chance(0.5);
    const pairs = deaf.map((to) => (inward ? `${to}>${from}` : `${from}>${to}`));
    return this.block(pairs, `${pairs.join(', ')} carry nothing`);
  }

  private block(pairs: readonly string[], what: string): string {
    const forMs = this.dice.spread(30, 3000);
    const links = pairs.map((pair) => {
      const [from = '', to = ''] = pair.split('>');
      return this.world.network.link(from, to);
    });
    for (const link of links) link.block();
    this.later(forMs, () => links.forEach((link) => link.open()));
    return `${what} for ${forMs.toFixed(0)} ms`;
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
    this.later(forMs, () => member.setTurn(0));
    return `${member.nodeId} takes ${turnMs.toFixed(1)} ms a turn for ${forMs.toFixed(0)} ms`;
  }

  // Volumes

  private loseDisk(): string | undefined {
    const member = this.member();
    if (!this.world.mayLose(member)) return undefined;
    member.kill('power-cut');
    this.world.lose(member, new Volume());
    member.startAfter(this.dice.spread(5, 1000));
    return member.nodeId;
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
    for (const undo of [...this.lasting]) undo();
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
    this.later(forMs, () => member.limitDisk(undefined));
    return `${member.nodeId} has ${roomBytes} bytes left for ${forMs.toFixed(0)} ms`;
  }

  private slowDisk(): string {
    const { dice } = this;
    const member = this.member();
    const factor = dice.spread(3, 200);
    const forMs = dice.spread(50, 3000);
    member.diskSlowness = Math.max(member.diskSlowness, factor);
    this.later(forMs, () => (member.diskSlowness = 1));
    return `${member.nodeId} by ${factor.toFixed(0)} for ${forMs.toFixed(0)} ms`;
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
    this.later(forMs, () => member.clock.drift(0));
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

  private crashWriter(): string {
    const { world, dice } = this;
    world.writer.kill();
    const forMs = dice.spread(10, 2000);
    this.later(forMs, () => {
      world.writer.kill();
      world.writer.start();
    });
    return `for ${forMs.toFixed(0)} ms`;
  }
}
