import { setTimeout as delay } from 'node:timers/promises';
import { KvClient, KvError } from '../../client/kv-client.ts';

export interface CheckerOptions {
  /** Client addresses: the writer uses all of them. */
  readonly endpoints: readonly string[];
  /** Keys written over and over; some more are written once. @default 500 */
  readonly keys?: number;
  /** Together, per second. @default 400 */
  readonly writesPerSecond?: number;
  /** What the keys begin with. @default 'checker/' */
  readonly prefix?: string;
}

/** What a run amounted to. */
export interface CheckerCounts {
  readonly acknowledged: number;
  /** Known not to have been applied. */
  readonly refused: number;
  /** No answer: applied or not. */
  readonly unknown: number;
}

/** A value a key may have; undefined: the key is deleted or was never written. */
type Value = string | undefined;

interface KeyHistory {
  /** By the newest acknowledged write. */
  acknowledged: Value;
  /** By later writes, or earlier ones that might still arrive, whose outcome nobody knows. */
  possible: { readonly value: Value; readonly startedMs: number }[];
}

const WORKERS = 16;
/** A node does not begin to apply a write after this, milliseconds. */
const WRITE_TIMEOUT_MS = 3000;
/** After it a write without an outcome can no longer overtake one that is begun now. */
const UNKNOWN_IS_OVER_MS = WRITE_TIMEOUT_MS + 1000;
/** One write in so many is a delete. */
const DELETE_EVERY = 7;
/** One write in so many, of each worker, is the only one of its key: a later write would cover up that it was lost. */
const ONCE_EVERY = 4;

/**
 * Proves that a cluster loses no acknowledged write: it writes continuously (overwrites and deletes too), notes each
 * intent before and each outcome after the call, outside the nodes under test, and in the end compares what every node
 * says at ONE, and what is said at QUORUM. A write known to be refused must not be there; one without an outcome may be
 * either. Each key has one writer, so that its writes have an order.
 */
export class Checker {
  private readonly options: Required<CheckerOptions>;
  /** One for each worker, so that the writes are spread over the nodes. */
  private readonly clients: readonly KvClient[];
  private readonly histories: KeyHistory[];
  private readonly stopping = new AbortController();
  private readonly counts = { acknowledged: 0, refused: 0, unknown: 0 };
  private workers: Promise<unknown> = Promise.resolve();
  private sequence = 0;

  private constructor(options: Required<CheckerOptions>, clients: readonly KvClient[]) {
    this.options = options;
    this.clients = clients;
    this.histories = Array.from({ length: options.keys }, () => ({ acknowledged: undefined, possible: [] }));
  }

  /** Starts writing. */
  static async start(options: CheckerOptions): Promise<Checker> {
    const complete = { keys: 500, writesPerSecond: 400, prefix: 'checker/', ...options };
    const connect = { endpoints: options.endpoints, timeoutMs: WRITE_TIMEOUT_MS };
    const clients = await Promise.all(Array.from({ length: WORKERS }, () => KvClient.connect(connect)));
    const checker = new Checker(complete, clients);
    checker.workers = Promise.all(clients.map((client, worker) => checker.work(client, worker)));
    // A defect of the checker itself surfaces in `stop`.
    checker.workers.catch(() => undefined);
    return checker;
  }

  /** So far. */
  get soFar(): CheckerCounts {
    return { ...this.counts };
  }

  /** Stops writing and waits for what is under way. Idempotent. */
  async stop(): Promise<CheckerCounts> {
    this.stopping.abort();
    await this.workers;
    for (const client of this.clients) client.close();
    return this.soFar;
  }

  /**
   * Compares every key at every node; call it after `stop`, when the nodes are in sync. Each sentence of the result is a
   * violation.
   *
   * @param endpoints where the nodes are now, one for each. @default where they were at the start
   */
  async verify(endpoints = this.options.endpoints): Promise<readonly string[]> {
    const reads = [
      ...endpoints.map((endpoint) => ({ endpoints: [endpoint], consistency: 'ONE' as const })),
      { endpoints, consistency: 'QUORUM' as const },
    ];
    const found = await Promise.all(reads.map((read) => this.verifyAt(read.endpoints, read.consistency)));
    return found.flat();
  }

  /** A key that certainly has a value: for tests that tamper with it. */
  someLiveKey(): string {
    const index = this.histories.findIndex(
      ({ acknowledged, possible }) => acknowledged !== undefined && possible.length === 0,
    );
    if (index < 0) throw new Error('no key certainly has a value');
    return this.keyAt(index);
  }

  /** Writes the keys of one worker in turn; no other worker writes them. */
  private async work(client: KvClient, worker: number): Promise<void> {
    const periodMs = (1000 * WORKERS) / this.options.writesPerSecond;
    let dueMs = performance.now();
    let index = worker;
    for (let turn = 1; !this.stopping.signal.aborted; turn += 1) {
      if (turn % ONCE_EVERY === 0) await this.writeOnce(client, this.addKey());
      else {
        await this.writeOnce(client, index);
        index = index + WORKERS < this.options.keys ? index + WORKERS : worker;
      }
      dueMs = Math.max(dueMs + periodMs, performance.now() - 1000);
      await delay(Math.max(0, dueMs - performance.now()));
    }
  }

  /** The index of a key that nobody has written yet. */
  private addKey(): number {
    return this.histories.push({ acknowledged: undefined, possible: [] }) - 1;
  }

  private async writeOnce(client: KvClient, index: number): Promise<void> {
    const history = this.histories[index];
    if (history === undefined) return;
    this.sequence += 1;
    const key = this.keyAt(index);
    const value: Value = this.sequence % DELETE_EVERY === 0 ? undefined : `${key}=${this.sequence}`;
    const startedMs = performance.now();
    const intent = { value, startedMs };
    history.possible.push(intent);
    try {
      await (value === undefined ? client.delete(key) : client.put(key, value));
      history.acknowledged = value;
      history.possible = history.possible.filter(
        (other) => other !== intent && startedMs - other.startedMs < UNKNOWN_IS_OVER_MS,
      );
      this.counts.acknowledged += 1;
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      const refused = error.retryable || error.code === 'RESOURCE_EXHAUSTED';
      if (refused) history.possible = history.possible.filter((other) => other !== intent);
      this.counts[refused ? 'refused' : 'unknown'] += 1;
    }
  }

  private async verifyAt(
    endpoints: readonly string[],
    consistency: 'ONE' | 'QUORUM',
  ): Promise<readonly string[]> {
    await using client = await KvClient.connect({
      endpoints,
      consistency,
      timeoutMs: 10_000,
      routing: false,
    });
    const violations: string[] = [];
    const indexes = this.histories.keys();
    const reader = async (): Promise<void> => {
      for (const index of indexes) {
        const key = this.keyAt(index);
        const held = (await client.get(key))?.value.toString();
        const allowed = this.allowedAt(index);
        if (allowed.includes(held)) continue;
        const where = `${key} at ${endpoints.join(', ')} (${consistency})`;
        violations.push(`${where} is ${describe(held)} and should be ${allowed.map(describe).join(' or ')}`);
      }
    };
    await Promise.all(Array.from({ length: WORKERS }, reader));
    return violations;
  }

  private allowedAt(index: number): readonly Value[] {
    const history = this.histories[index];
    return history === undefined ? [] : [history.acknowledged, ...history.possible.map(({ value }) => value)];
  }

  private keyAt(index: number): string {
    return `${this.options.prefix}${String(index).padStart(6, '0')}`;
  }
}

function describe(value: Value): string {
  return value === undefined ? 'absent' : `"${value}"`;
}
