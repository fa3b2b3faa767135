import type { Timer } from '../../../common/clock.ts';
import { Backoff } from '../../../common/backoff.ts';
import { messageOf } from '../../../common/errors.ts';
import type { Random } from '../../../common/random.ts';
import { Activation } from './activation.ts';
import { Claims } from './claims.ts';
import type { ComparablePeer } from './comparable-peer.ts';
import { isNearlyBlank } from './comparison.ts';
import { fillingPartitions, fillReason } from './fill-reason.ts';
import { Pace } from './pace.ts';
import { PeerRun, type PeerRunResult } from './peer-run.ts';
import { Settlement } from './settlement.ts';
import type { Surroundings } from './surroundings.ts';
import { type Urgency, urgencyOf } from './urgency.ts';

export interface AntiEntropyOptions extends Surroundings {
  /** Connected peers. */
  readonly peers: () => readonly ComparablePeer[];
  readonly random: Random;
}

/** How far this node and its peers are from each other. */
export interface AntiEntropyStatus {
  /** Partitions whose digest equals that of every other replica, as of the last look at each. */
  readonly equalPartitions: number;
  readonly differingPartitions: number;
  /** Partitions that are not readable yet. */
  readonly fillingPartitions: number;
  /** Wall clock of the last comparison of everything shared with a peer, by its name. */
  readonly lastFullMs: ReadonlyMap<string, number>;
}

interface Running {
  readonly controller: AbortController;
  urgency: Urgency;
}

/** What is remembered of a peer between comparisons. */
interface PeerWork {
  readonly backoff: Backoff;
  running: Running | undefined;
  /** Nothing is begun before. */
  pausedUntilMs: number;
  backgroundAtMs: number;
  endedAtMs: number;
  lastFullMs: number | undefined;
}

/**
 * Decides when this node compares itself with which peer: at once where a partition has to be filled, a peer's log was
 * missed, or a move or the horizon waits for it; otherwise now and then. All of them are the same comparison.
 */
export class AntiEntropy {
  readonly settlement: Settlement;
  private readonly options: AntiEntropyOptions;
  private readonly claims = new Claims();
  private readonly activation: Activation;
  private readonly fillPace: Pace;
  private readonly backgroundPace: Pace;
  private readonly work = new Map<string, PeerWork>();
  /** Partitions of which next to nothing was here when they began to fill. */
  private readonly blank = new Set<number>();
  private readonly seenFilling = new Set<number>();
  private readonly ongoing = new Set<Promise<void>>();
  private timer: Timer | undefined;
  private deciding = false;
  private started = false;

  constructor(options: AntiEntropyOptions) {
    const { store, settings, clock, scheduler, peers } = options;
    this.options = options;
    this.settlement = new Settlement({ ...options, partitions: store.partitions, peers });
    this.fillPace = new Pace(settings.fillBytesPerSecond, clock, scheduler);
    this.backgroundPace = new Pace(settings.backgroundBytesPerSecond, clock, scheduler);
    this.activation = new Activation({ ...options, claims: this.claims }, this.settlement, () => this.wake());
  }

  start(): void {
    this.started = true;
    this.wake();
  }

  /** Resolves when nothing goes on any more. */
  async stop(): Promise<void> {
    this.started = false;
    this.timer?.cancel();
    this.abortAll('this node stops');
    await Promise.all([...this.ongoing, this.activation.stop()]);
  }

  /** Looks what is due; call when peers, their standing, the own standing, the map, the barrier or the label changed. */
  wake(): void {
    if (!this.started || this.deciding) return;
    this.deciding = true;
    this.options.scheduler.soon(() => {
      this.deciding = false;
      try {
        this.decide();
      } catch (error) {
        // A store that has failed ends the node; nobody else is to be woken by that here.
        this.options.logger.warn({ error: messageOf(error) }, 'looking what is to be compared failed');
      }
    });
  }

  /**
   * Partitions have lost their standing, or start blank: what was compared before says nothing of them. Call it in the
   * turn in which their marks are taken.
   */
  forget(partitions: Iterable<number>): void {
    const list = [...partitions];
    this.settlement.forget(list);
    for (const partition of list) this.seenFilling.delete(partition);
    this.abortAll('partitions have lost their standing');
    this.wake();
  }

  /** What partitions that are not readable wait for, for a person; undefined when all are readable. */
  get reason(): string | undefined {
    return fillReason(this.options, this.settlement);
  }

  status(): AntiEntropyStatus {
    const { equal, differing } = this.settlement.equality();
    return {
      equalPartitions: equal,
      differingPartitions: differing,
      fillingPartitions: fillingPartitions(this.options).length,
      lastFullMs: new Map(
        [...this.work].flatMap(([nodeId, { lastFullMs }]) =>
          lastFullMs === undefined ? [] : [[nodeId, lastFullMs]],
        ),
      ),
    };
  }

  private decide(): void {
    if (!this.started) return;
    const { peers, clock, settings } = this.options;
    this.settlement.prune();
    this.noticeFilling();
    this.activation.wake();
    const now = clock.monotonicMs();
    const due = peers()
      .filter(({ mutual }) => mutual)
      .map((peer) => ({ peer, work: this.workOf(peer.nodeId), urgency: this.urgency(peer, now) }))
      .filter((entry): entry is typeof entry & { urgency: Urgency } => entry.urgency !== undefined)
      .sort((a, b) => a.urgency - b.urgency || a.work.endedAtMs - b.work.endedAtMs);
    let running = 0;
    let inBackground = 0;
    for (const { running: run } of this.work.values()) {
      if (run === undefined) continue;
      running += 1;
      if (isBackground(run.urgency)) inBackground += 1;
    }
    for (const { peer, work, urgency } of due) {
      if (work.running !== undefined) {
        // The run under way does this as well; from now on it does not dawdle.
        work.running.urgency = lower(work.running.urgency, urgency);
      } else if (work.pausedUntilMs <= now && running < settings.concurrentRuns) {
        // What waits for its pace must not keep out what is urgent.
        if (isBackground(urgency) && inBackground > 0) continue;
        running += 1;
        if (isBackground(urgency)) inBackground += 1;
        this.begin(peer, work, urgency);
      }
    }
    this.measure();
    this.plan(now);
  }

  private urgency(peer: ComparablePeer, now: number): Urgency | undefined {
    const { settings } = this.options;
    const work = this.workOf(peer.nodeId);
    const overdueMs = now - work.backgroundAtMs;
    const patient = peer.lag > settings.maxLag && overdueMs < settings.lagPatienceMs;
    return urgencyOf(this.options, this.settlement, peer, { backgroundDue: overdueMs >= 0, patient });
  }

  private begin(peer: ComparablePeer, work: PeerWork, urgency: Urgency): void {
    const controller = new AbortController();
    const running: Running = { controller, urgency };
    work.running = running;
    const { settlement, claims, blank } = this;
    const run = new PeerRun(this.options, {
      peer,
      settlement,
      claims,
      blank,
      pace: () => (isBackground(running.urgency) ? this.backgroundPace : this.fillPace),
      onProgress: () => this.activation.wake(),
      signal: controller.signal,
    });
    this.track(this.execute(run, peer, work, running));
  }

  private async execute(run: PeerRun, peer: ComparablePeer, work: PeerWork, running: Running): Promise<void> {
    const { clock, logger, metrics, settings } = this.options;
    try {
      this.finished(work, await run.execute(), peer);
    } catch (error) {
      if (!running.controller.signal.aborted) {
        metrics.count('failed_comparisons');
        logger.warn({ peer: peer.nodeId, error: messageOf(error) }, 'a comparison was cut short');
        work.pausedUntilMs = clock.monotonicMs() + work.backoff.nextMs();
      }
    } finally {
      running.controller.abort(new Error('the comparison has ended'));
      work.running = undefined;
      work.endedAtMs = clock.monotonicMs();
      work.pausedUntilMs = Math.max(work.pausedUntilMs, work.endedAtMs + settings.pauseMs);
      this.wake();
    }
  }

  private finished(work: PeerWork, { full, differing }: PeerRunResult, peer: ComparablePeer): void {
    const { clock, random, settings, logger } = this.options;
    const now = clock.monotonicMs();
    // Spread out, so that peers that met at once do not go on comparing at once.
    work.backgroundAtMs = now + settings.backgroundMs * (0.75 + random.fraction() / 2);
    if (full) work.lastFullMs = clock.wallMs();
    if (differing === 0) {
      work.backoff.reset();
      return;
    }
    logger.warn({ peer: peer.nodeId, partitions: differing }, 'a comparison left differences');
    work.pausedUntilMs = now + work.backoff.nextMs();
  }

  /** Which partitions have begun to fill since the last look, and which of them have next to nothing. */
  private noticeFilling(): void {
    const filling = new Set(fillingPartitions(this.options));
    for (const partition of this.seenFilling) {
      if (filling.has(partition)) continue;
      this.seenFilling.delete(partition);
      this.blank.delete(partition);
    }
    for (const partition of filling) {
      if (this.seenFilling.has(partition)) continue;
      this.seenFilling.add(partition);
      if (isNearlyBlank(this.options.store.digest(partition).leaves)) this.blank.add(partition);
    }
  }

  /** Looks again when the next thing is due by time. */
  private plan(now: number): void {
    const { peers, scheduler, settings } = this.options;
    this.timer?.cancel();
    this.timer = undefined;
    const times = peers()
      .map(({ nodeId }) => this.workOf(nodeId))
      .filter(({ running }) => running === undefined)
      .map(({ pausedUntilMs, backgroundAtMs }) => (pausedUntilMs > now ? pausedUntilMs : backgroundAtMs));
    if (times.length === 0) return;
    const delayMs = Math.max(settings.pauseMs, Math.min(...times) - now);
    this.timer = scheduler.after(delayMs, () => this.wake());
  }

  private measure(): void {
    const { metrics } = this.options;
    const status = this.status();
    metrics.gauge('equal_partitions', status.equalPartitions);
    metrics.gauge('differing_partitions', status.differingPartitions);
    metrics.gauge('filling_partitions', status.fillingPartitions);
  }

  private workOf(nodeId: string): PeerWork {
    let work = this.work.get(nodeId);
    if (work === undefined) {
      const { random, settings, clock } = this.options;
      work = {
        backoff: new Backoff(settings.retry, random),
        running: undefined,
        pausedUntilMs: 0,
        // Soon after a start everything is compared once.
        backgroundAtMs: clock.monotonicMs() + settings.pauseMs * random.fraction(),
        endedAtMs: 0,
        lastFullMs: undefined,
      };
      this.work.set(nodeId, work);
    }
    return work;
  }

  private abortAll(reason: string): void {
    for (const { running } of this.work.values()) running?.controller.abort(new Error(reason));
  }

  private track(work: Promise<void>): void {
    this.ongoing.add(work);
    void work.finally(() => this.ongoing.delete(work));
  }
}

function isBackground(urgency: Urgency): boolean {
  return urgency === 3;
}

function lower(a: Urgency, b: Urgency): Urgency {
  return a < b ? a : b;
}
