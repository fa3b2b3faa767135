import type { Dice } from './dice.ts';
import type { Lasting, Undo } from './lasting.ts';
import type { Link } from './link.ts';
import type { SimStream } from './stream.ts';
import type { World } from './world.ts';

/** The map's writer, as the network knows it. */
const WRITER = 'writer';

/** What can go wrong between machines. Each says what was done; undefined when it cannot be done now. */
export class NetworkFaults {
  private readonly world: World;
  private readonly dice: Dice;
  private readonly lasting: Lasting;

  constructor(world: World, dice: Dice, lasting: Lasting) {
    this.world = world;
    this.dice = dice;
    this.lasting = lasting;
  }

  private stream(): SimStream | undefined {
    const streams = this.world.network.openStreams().filter(({ other }) => other !== undefined);
    return streams.length === 0 ? undefined : this.dice.pick(streams);
  }

  dropStream(): string | undefined {
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

  loseAcknowledgements(): string | undefined {
    const end = this.stream();
    if (end === undefined) return undefined;
    this.world.network.breakStream(end, { keptFrom: Infinity, keptTo: 0, tellOwner: true, tellPeer: true });
    return `from ${end.owner} to ${end.peer} everything arrives, and nothing back`;
  }

  /** One end thinks the stream is broken and opens another; what it had sent on the old one comes late. */
  overtake(): string | undefined {
    const end = this.stream();
    if (end === undefined) return undefined;
    const lateMs = this.dice.spread(5, 500);
    end.delayUnderWay(lateMs);
    end.fail(new Error('the stream broke'));
    return `${end.underWay} frames from ${end.owner} to ${end.peer} come ${lateMs.toFixed(0)} ms late`;
  }

  delayLink(): string {
    const [a = '', b = ''] = this.names;
    return this.delay([`${a}>${b}`], `${a} > ${b}`);
  }

  /** They can talk, and it takes long. */
  delayBetween(a: string, b: string): void {
    this.delay(bothWays(a, [b]), `${a} - ${b}`);
  }

  private delay(pairs: readonly string[], what: string): string {
    const { dice } = this;
    const links = this.linksOf(pairs);
    const extraMs = dice.spread(2, 300);
    const forMs = dice.spread(50, 3000);
    for (const link of links) link.extraMs += extraMs;
    this.lasting.later(forMs, () => {
      for (const link of links) link.extraMs -= extraMs;
    });
    return `${what} by ${extraMs.toFixed(0)} ms for ${forMs.toFixed(0)} ms`;
  }

  partition(): string {
    const { dice } = this;
    const { names } = this;
    const size = 1 + dice.below(names.length - 1);
    const side = names.slice(0, size);
    const other = names.slice(size);
    if (dice.chance(0.5)) return this.cutOffFromWriter(side, other);
    const pairs = side.flatMap((a) => bothWays(a, other));
    return this.block(pairs, `${side.join(', ')} | ${other.join(', ')}`);
  }

  bridge(): string {
    const [a = '', b = ''] = this.names;
    return this.block(bothWays(a, [b]), `${a} | ${b}`);
  }

  oneWay(): string {
    const { dice } = this;
    const [from, ...others] = this.names;
    const deaf = dice.chance(0.5) ? others : others.slice(0, 1);
    const inward = dice.chance(0.5);
    const pairs = deaf.map((to) => (inward ? `${to}>${from}` : `${from}>${to}`));
    return this.block(pairs, `${pairs.join(', ')} carry nothing`);
  }

  private block(pairs: readonly string[], what: string): string {
    const forMs = this.dice.spread(30, 5000);
    const links = this.linksOf(pairs);
    for (const link of links) link.block();
    this.lasting.later(forMs, () => links.forEach((link) => link.open()));
    return `${what} for ${forMs.toFixed(0)} ms`;
  }

  private linksOf(pairs: readonly string[]): readonly Link[] {
    return pairs.map((pair) => {
      const [from = '', to = ''] = pair.split('>');
      return this.world.network.link(from, to);
    });
  }

  /** Nobody but clients reaches the machine until that is undone, or all faults end. */
  cutOff(name: string): Undo {
    const others = this.world.names.filter((other) => other !== name);
    const pairs = bothWays(name, this.dice.chance(0.5) ? [...others, WRITER] : others);
    const links = this.linksOf(pairs);
    for (const link of links) link.block();
    return this.lasting.keep(() => links.forEach((link) => link.open()));
  }

  /** Some can reach the map's writer, and the others can reach neither it nor them. */
  cutOffFromWriter(names: readonly string[], others: readonly string[]): string {
    const pairs = [WRITER, ...names].flatMap((name) => bothWays(name, others));
    return this.block(pairs, `${WRITER}, ${names.join(', ')} | ${others.join(', ')}`);
  }

  private get names(): string[] {
    return this.dice.shuffled(this.world.pods.map(({ nodeId }) => nodeId));
  }
}

/** All ways between one machine and others. */
function bothWays(one: string, others: readonly string[]): string[] {
  return others.flatMap((other) => [`${one}>${other}`, `${other}>${one}`]);
}
