import { expect } from 'chai';
import type { Random } from '../../common/random.ts';
import type { CrashFates, Fate } from '../support/memory-disk.ts';
import { MemoryMachine, SMALL_LIMITS } from '../support/memory-store.ts';
import { seededRandom } from '../support/seeded-random.ts';
import { NUMBERS_OF_LIFE, PARTITIONS } from './expected.ts';
import { holdingsOf } from './holdings.ts';
import { Ledger } from './ledger.ts';
import type { Told } from './messages.ts';
import { Writers } from './writers.ts';

/** Whole segments wait for their checkpoint, so that a trim that does not would be seen. */
const LIMITS = {
  ...SMALL_LIMITS,
  segmentBytes: 3000,
  overlayBytes: 20_000,
  checkpointMs: 10,
  checkpointRecords: 40,
  transactionRecords: 40,
};
const KEYS = 40;
const WRITERS = 3;
const LIFE_MS = 24;
/** Combinations of what an interrupted disk may have kept, besides each single loss. */
const SUBSETS = 50;

/** Everything a machine did to its disk and state, and what its stores had promised by then. */
export interface Trace {
  readonly machine: MemoryMachine;
  /** In order; `at` counts the events of the disk. */
  readonly told: readonly { readonly at: number; readonly told: Told }[];
  readonly lives: number;
}

/**
 * Records three lives of a store: one that ends in order, one that is killed, and one that goes on behind its torn end;
 * with segments begun and trimmed, checkpoints, loads and removals.
 */
export async function recordTrace(seed: number): Promise<Trace> {
  const machine = new MemoryMachine({ random: seededRandom(seed) });
  const told: { at: number; told: Told }[] = [];
  const ends = ['close', 'kill', 'close'] as const;
  for (const [index, end] of ends.entries()) {
    const store = await machine.open(LIMITS, PARTITIONS);
    const writers = new Writers({
      store,
      scheduler: machine.time.scheduler(),
      random: seededRandom(seed * 10 + index),
      keys: KEYS,
      writers: WRITERS,
      firstNumber: (index + 1) * NUMBERS_OF_LIFE,
      tell: (one) => told.push({ at: machine.now, told: one }),
    });
    writers.start();
    await machine.time.advance(LIFE_MS);
    if (end === 'close') {
      await machine.time.run(writers.stop());
      await machine.time.run(store.close());
    } else {
      // A transaction of the state that a process takes with it is one of which nothing is left.
      await machine.time.run(store.checkpoint());
      machine.kill();
    }
  }
  return { machine, told, lives: ends.length };
}

/** How many crashes a replay has looked at. */
export interface Replayed {
  readonly prefixes: number;
  readonly crashes: number;
}

/**
 * Lets the machine lose its power after events of its trace, with every unsynced change lost by itself, with all of them
 * lost and all kept, and with seeded combinations of changes that are lost, kept and torn; opens the store again each time
 * and judges what it holds.
 *
 * @param chosen - which events: all, or a sample.
 */
export async function replay(trace: Trace, chosen: (event: number) => boolean): Promise<Replayed> {
  let [prefixes, crashes] = [0, 0];
  for (let event = 0; event <= trace.machine.now; event += 1) {
    if (!chosen(event)) continue;
    prefixes += 1;
    for (const { name, fates } of allFates(trace, event)) {
      await crash(trace, event, fates, `power lost after event ${event}, ${name}`);
      crashes += 1;
    }
  }
  return { prefixes, crashes };
}

async function crash(trace: Trace, event: number, fates: CrashFates, what: string): Promise<void> {
  const crashed = trace.machine.crashedAt(event, fates);
  const ledger = new Ledger(KEYS);
  for (const { at, told } of trace.told) if (at <= event) ledger.note(told);
  try {
    const store = await crashed.open(LIMITS, PARTITIONS);
    const { wrong } = ledger.settle(await crashed.time.run(holdingsOf(store, KEYS)), trace.lives + 1);
    expect(wrong).to.deep.equal([]);
  } catch (error) {
    throw new Error(what, { cause: error });
  } finally {
    crashed.kill();
  }
}

interface NamedFates {
  readonly name: string;
  readonly fates: CrashFates;
}

function* allFates(trace: Trace, event: number): Generator<NamedFates> {
  const kept = new CountedFates(() => 'kept');
  trace.machine.crashedAt(event, kept);
  yield { name: 'everything kept', fates: kept };
  if (kept.asked === 0) return;
  yield { name: 'everything unsynced lost', fates: new CountedFates(() => 'lost') };
  for (let lost = 1; lost <= kept.asked; lost += 1) {
    const fate = (index: number): Fate => (index === lost ? 'lost' : 'kept');
    yield { name: `unsynced change ${lost} of ${kept.asked} lost`, fates: new CountedFates(fate) };
  }
  for (let subset = 1; subset <= SUBSETS; subset += 1) {
    const random = seededRandom(event * 1000 + subset);
    const fates = new CountedFates(() => oneOf(random, ['kept', 'lost', 'torn']), random);
    yield { name: `subset ${subset} of what is unsynced lost or torn`, fates };
  }
}

/** Decides about unsynced changes by their place among them. */
class CountedFates implements CrashFates {
  /** How many decisions there were. */
  asked = 0;
  private readonly decide: (index: number) => Fate;
  private readonly random: Random | undefined;

  constructor(decide: (index: number) => Fate, random?: Random) {
    this.decide = decide;
    this.random = random;
  }

  write(): Fate {
    this.asked += 1;
    return this.decide(this.asked);
  }

  name(): 'kept' | 'lost' {
    return this.write() === 'lost' ? 'lost' : 'kept';
  }

  sector(): boolean {
    return this.random === undefined || this.random.fraction() < 0.5;
  }
}

function oneOf<T>(random: Random, [first, ...others]: readonly [T, ...T[]]): T {
  return others[Math.floor(random.fraction() * (others.length + 1)) - 1] ?? first;
}
