import { expect } from 'chai';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock, systemScheduler } from '../../common/clock.ts';
import { systemRandom } from '../../common/random.ts';
import { openStore } from '../../node/storage/open-store.ts';
import { setAside } from '../../node/storage/set-aside.ts';
import { cleanAtExit } from '../support/exit-cleanup.ts';
import { LoopVolume, noVolumesReason } from '../support/loop-volume.ts';
import { silentLogger } from '../support/memory-store.ts';
import { measured } from '../support/measured.ts';
import { seededRandom } from '../support/seeded-random.ts';
import { flipLog, flipState, tearTail } from './damage.ts';
import { MOST_KEYS, NUMBERS_OF_LIFE, PARTITIONS } from './expected.ts';
import { Ledger } from './ledger.ts';
import { StoreChild } from './store-child.ts';

/** `npm run test:soak -- --minutes 10` */
const MINUTES = process.env['KVCLUSTER_MINUTES'];
const SOAK_MS = MINUTES === undefined ? 25_000 : Number(MINUTES) * 60_000;
/** `SEED=7 npm run test:soak` draws the same ends and damages again. */
const SEED = Number(process.env['SEED'] ?? Math.floor(systemRandom.fraction() * 2 ** 31));
const MIB = 1024 * 1024;
const VOLUME_BYTES = 96 * MIB;
/** Small enough that a second of writing meets every bound. */
const LIMITS = {
  segmentBytes: 256 * 1024,
  logBytes: 2 * MIB,
  groupBytes: 64 * 1024,
  overlayBytes: 512 * 1024,
  checkpointMs: 20,
  checkpointRecords: 200,
  transactionRecords: 200,
  commitTimeoutMs: 8000,
  tailBytes: 256 * 1024,
  sequenceStep: 512,
};
/** The records together have about 1 MiB; LMDB keeps two states, and pages that are half empty. */
const MOST_STATE_BYTES = 24 * MIB;
const MOST_LOG_BYTES = LIMITS.logBytes + 2 * LIMITS.segmentBytes;
const LONGEST_LIFE_MS = 900;

type End = 'kill -9' | 'clean end' | 'full disk';
type Damage = 'none' | 'torn tail' | 'flipped bit in the log' | 'flipped bit in the state';

describe('a store that is killed, damaged and filled up again and again', function () {
  this.timeout(SOAK_MS + 60_000);
  let soak: Soak;

  before(() => {
    console.log(`    seed ${SEED}: SEED=${SEED} npm run test:soak`);
    const reason = noVolumesReason();
    if (reason !== undefined) console.log(`    no disk will be full: ${reason}`);
    soak = new Soak(reason === undefined ? new LoopVolume(VOLUME_BYTES) : undefined);
  });

  after(async () => {
    await (soak as Soak | undefined)?.dispose();
  });

  it('has everything it acknowledged after each opening, serves nothing unverified, and stays small', async () => {
    const endMs = performance.now() + SOAK_MS;
    while (performance.now() < endMs) await soak.live();
    // What was damaged last is met by the first, and what it left is sound for the other.
    await soak.live('clean end', 'leave it sound');
    await soak.live('clean end', 'leave it sound');
    soak.report();
  });

  it('is caught when a record is missing', async () => {
    await soak.loseOne();
    const error = await soak.live('clean end').catch((thrown: unknown) => thrown);
    expect(error)
      .to.be.instanceOf(Error)
      .with.property('message')
      .that.matches(/key \d+ is gone and had number/);
  });
});

/** One directory over many lives of the store in it. */
class Soak {
  private readonly volume: LoopVolume | undefined;
  private readonly directory: string;
  private readonly clean: () => void;
  private readonly cancelCleaning: () => void;
  private readonly random = seededRandom(SEED);
  private readonly ledger = new Ledger(MOST_KEYS);
  private readonly happened = new Map<string, number>();
  private life = 0;
  private running: StoreChild | undefined;
  /** What was done to the files since the last life. */
  private damage: Damage = 'none';
  private endedClean = true;
  private mostStateBytes = 0;
  private mostLogBytes = 0;

  constructor(volume: LoopVolume | undefined) {
    this.volume = volume;
    const place = volume?.path ?? mkdtempSync(join(tmpdir(), 'kvcluster-soak-'));
    this.directory = join(place, 'data');
    this.clean =
      volume === undefined ? () => rmSync(place, { recursive: true, force: true }) : () => undefined;
    this.cancelCleaning = cleanAtExit(this.clean);
  }

  /** Opens the store, judges what it holds, lets it be written to, ends it, and perhaps damages its files. */
  async live(
    end: End = this.drawEnd(),
    then: 'damage it perhaps' | 'leave it sound' = 'damage it perhaps',
  ): Promise<void> {
    this.life += 1;
    const child = this.start();
    const opening = await child.untilTold('opened', 'corrupt', 'failed');
    if (opening?.kind === 'corrupt') {
      await child.ended;
      await this.onCorrupt(opening.message);
      return;
    }
    if (opening?.kind !== 'opened') throw await this.unexpected(child, opening?.message ?? 'it ended');
    const { wrong, repair } = this.ledger.settle(opening.holds, this.life);
    if (wrong.length > 0) throw await this.unexpected(child, wrong.slice(0, 5).join('; '));
    const { damagedPartitions, countedAnew } = opening.holds;
    if (countedAnew.length > 0 && this.damage !== 'flipped bit in the state')
      throw await this.unexpected(child, `the digest of partition ${countedAnew.join()} was wrong at first`);
    if (damagedPartitions.length > 0 || repair.length > 0) this.onDamaged(repair.length / 2);
    child.ask({ kind: 'write', damagedPartitions, repair });
    if ((await child.untilTold('repaired', 'failed'))?.kind !== 'repaired')
      throw await this.unexpected(child, 'what is damaged cannot be repaired');
    this.note(this.damage === 'none' ? 'sound openings' : `${this.damage}, nothing lost`);
    await delay(this.random.fraction() * LONGEST_LIFE_MS);
    await this.end(child, end);
    this.checkSizes();
    this.damage = then === 'leave it sound' ? 'none' : this.drawDamage();
  }

  /** Takes a live record out of the store, behind the back of the ledger. */
  async loseOne(): Promise<void> {
    await using store = await openStore({
      directory: this.directory,
      partitions: PARTITIONS,
      clock: systemClock,
      scheduler: systemScheduler,
      random: systemRandom,
      logger: silentLogger,
      limits: LIMITS,
    });
    let left = 1;
    const removed = await store.removeWhere(0, (_key, record) => record?.tombstone === false && left-- > 0);
    expect(removed).to.equal(1);
  }

  report(): void {
    const happened = [...this.happened].map(([what, count]) => `${what} ${count}`).join(', ');
    measured(`${this.life} lives, ${this.ledger.acknowledged} acknowledged records`);
    measured(happened);
    measured(`largest state ${this.mostStateBytes} bytes, largest log ${this.mostLogBytes} bytes`);
  }

  async dispose(): Promise<void> {
    this.running?.kill();
    await this.running?.ended;
    this.volume?.[Symbol.dispose]();
    this.clean();
    this.cancelCleaning();
  }

  private start(): StoreChild {
    const child = new StoreChild({
      directory: this.directory,
      seed: Math.floor(this.random.fraction() * 2 ** 31),
      firstNumber: this.life * NUMBERS_OF_LIFE,
      limits: LIMITS,
      onTold: (told) => this.ledger.note(told),
    });
    this.running = child;
    return child;
  }

  private async end(child: StoreChild, end: End): Promise<void> {
    this.note(end);
    this.endedClean = end === 'clean end';
    if (end === 'kill -9') child.kill();
    if (end === 'clean end') child.ask({ kind: 'close' });
    if (end === 'full disk') this.volume?.fill();
    const { code, signal, stderr } = await child.ended;
    if (end === 'full disk') await this.openFull();
    this.volume?.free();
    const wanted = end === 'kill -9' ? signal === 'SIGKILL' : code === 0;
    if (!wanted) throw new Error(`life ${this.life} ended with ${signal ?? code} after "${end}": ${stderr}`);
    if (end === 'clean end' && (await child.untilTold('closed')) === undefined)
      throw new Error(`life ${this.life} did not close: ${(await child.untilTold('failed'))?.message}`);
    if (end === 'full disk' && (await child.untilTold('failed')) === undefined)
      throw new Error(`life ${this.life} did not say that the disk is full`);
  }

  /** A store that finds no room is not corrupt. */
  private async openFull(): Promise<void> {
    this.life += 1;
    const child = this.start();
    const opening = await child.untilTold('opened', 'corrupt', 'failed');
    child.kill();
    await child.ended;
    if (opening === undefined || opening.kind === 'corrupt')
      throw new Error(`on a full disk the store ${opening?.message ?? 'ended its process'}`);
  }

  private async onCorrupt(message: string): Promise<void> {
    if (!this.damage.startsWith('flipped'))
      throw new Error(`life ${this.life} finds its store corrupt after ${this.damage}: ${message}`);
    this.note(`${this.damage}, store set aside`);
    await setAside(this.directory);
    this.ledger.forget();
    this.damage = 'none';
  }

  private onDamaged(records: number): void {
    if (this.damage !== 'flipped bit in the state')
      throw new Error(`life ${this.life} has ${records} damaged records after ${this.damage}`);
    this.note('damaged records repaired', records);
  }

  private async unexpected(child: StoreChild, what: string): Promise<Error> {
    child.kill();
    const { code, signal, stderr } = await child.ended;
    return new Error(`life ${this.life}, after ${this.damage}: ${what} (${signal ?? code}) ${stderr}`);
  }

  private checkSizes(): void {
    const sum = (folder: string): number =>
      readdirSync(join(this.directory, folder))
        .map((name) => statSync(join(this.directory, folder, name)).size)
        .reduce((total, size) => total + size, 0);
    const [state, log] = [sum('state'), sum('log')];
    this.mostStateBytes = Math.max(this.mostStateBytes, state);
    this.mostLogBytes = Math.max(this.mostLogBytes, log);
    expect(state, 'bytes of the state').to.be.at.most(MOST_STATE_BYTES);
    expect(log, 'bytes of the log').to.be.at.most(MOST_LOG_BYTES);
  }

  private drawEnd(): End {
    const dice = this.random.fraction();
    if (dice < 0.12 && this.volume !== undefined) return 'full disk';
    return dice < 0.3 ? 'clean end' : 'kill -9';
  }

  private drawDamage(): Damage {
    const dice = this.random.fraction();
    if (dice < 0.2 && !this.endedClean && tearTail(this.directory, this.random)) return 'torn tail';
    if (dice < 0.35 && flipLog(this.directory, this.random)) return 'flipped bit in the log';
    if (dice < 0.6 && flipState(this.directory, this.random)) return 'flipped bit in the state';
    return 'none';
  }

  private note(what: string, count = 1): void {
    this.happened.set(what, (this.happened.get(what) ?? 0) + count);
  }
}
