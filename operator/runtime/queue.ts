import { Backoff, type BackoffOptions } from '../../common/backoff.ts';
import type { Scheduler, Timer } from '../../common/clock.ts';
import type { Random } from '../../common/random.ts';

/** What becomes of a key once it was handled. */
export interface HandlerResult {
  /** Handle it again after this time, unless something adds it before. */
  readonly requeueAfterMs?: number;
}

export interface WorkQueueOptions {
  /** Keys handled at the same time; one key never twice. */
  readonly concurrency: number;
  /** Waits after failures of a key; a success starts over. */
  readonly backoff: BackoffOptions;
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** A rejection is a failure of the key: it is reported and the key comes again after its backoff. */
  readonly handle: (key: string, signal: AbortSignal) => Promise<HandlerResult>;
  readonly onError: (key: string, error: unknown) => void;
}

interface KeyState {
  phase: 'waiting' | 'queued' | 'running';
  /** Added while running: once more afterwards. */
  dirty: boolean;
  timer: Timer | undefined;
  backoff: Backoff;
}

/** Hands out keys: each at most once at a time, once more when it was added meanwhile, and later again after failures. */
export class WorkQueue {
  private readonly options: WorkQueueOptions;
  private readonly keys = new Map<string, KeyState>();
  private readonly ready: string[] = [];
  private readonly abort = new AbortController();
  private running = 0;
  private onIdle: (() => void) | undefined;

  constructor(options: WorkQueueOptions) {
    this.options = options;
  }

  /** Keys that wait to be handled now; keys put off are not counted. */
  get depth(): number {
    return this.ready.length;
  }

  /** Has a key handled as soon as possible. */
  add(key: string): void {
    if (this.abort.signal.aborted) return;
    const state = this.stateOf(key);
    if (state.phase === 'running') {
      state.dirty = true;
      return;
    }
    if (state.phase === 'queued') return;
    this.enqueue(key, state);
    this.startNext();
  }

  /** Ends: nothing new is begun, handlers see their signal aborted. Resolves when none is running. */
  async stop(reason: Error): Promise<void> {
    if (!this.abort.signal.aborted) {
      for (const state of this.keys.values()) state.timer?.cancel();
      this.ready.length = 0;
      this.abort.abort(reason);
    }
    if (this.running > 0) {
      await new Promise<void>((resolve) => {
        const before = this.onIdle;
        this.onIdle = () => {
          before?.();
          resolve();
        };
      });
    }
  }

  private stateOf(key: string): KeyState {
    let state = this.keys.get(key);
    if (state === undefined) {
      const backoff = new Backoff(this.options.backoff, this.options.random);
      state = { phase: 'waiting', dirty: false, timer: undefined, backoff };
      this.keys.set(key, state);
    }
    return state;
  }

  private enqueue(key: string, state: KeyState): void {
    state.timer?.cancel();
    state.timer = undefined;
    state.phase = 'queued';
    this.ready.push(key);
  }

  private startNext(): void {
    while (this.running < this.options.concurrency) {
      const key = this.ready.shift();
      if (key === undefined) return;
      this.running += 1;
      const state = this.stateOf(key);
      state.phase = 'running';
      state.dirty = false;
      void this.run(key, state);
    }
  }

  private async run(key: string, state: KeyState): Promise<void> {
    let delayMs: number | undefined;
    try {
      const result = await this.options.handle(key, this.abort.signal);
      state.backoff.reset();
      delayMs = result.requeueAfterMs;
    } catch (error) {
      delayMs = state.backoff.nextMs();
      if (!this.abort.signal.aborted) this.options.onError(key, error);
    }
    this.running -= 1;
    this.settle(key, state, delayMs);
    if (this.running === 0) this.onIdle?.();
    this.startNext();
  }

  private settle(key: string, state: KeyState, delayMs: number | undefined): void {
    if (this.abort.signal.aborted) return;
    if (state.dirty) {
      this.enqueue(key, state);
    } else if (delayMs === undefined) {
      this.keys.delete(key);
    } else {
      state.phase = 'waiting';
      state.timer = this.options.scheduler.after(delayMs, () => {
        this.enqueue(key, state);
        this.startNext();
      });
    }
  }
}
