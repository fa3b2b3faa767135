import { setTimeout as delay } from 'node:timers/promises';
import { KvClient, KvError } from '../../client/kv-client.ts';
import type { Random } from '../../common/random.ts';
import { type AskedFor, type History, type Read, valueOf, type Write } from './history.ts';

export interface WorkloadOptions {
  /** Client address of each node, by its name. */
  readonly nodes: ReadonlyMap<string, string>;
  readonly history: History;
  readonly random: Random;
}

const WRITERS = 24;
const READERS = 4;
/** Keys that one writer alone writes, over and over. */
const OWN_KEYS = 8;
/** Keys that all writers write at the same time. */
const HOT_KEYS = 6;
/** Keys that are written before everything, at ALL, and never again. */
const STABLE_KEYS = 64;
/** Between two calls of a writer or reader. */
const WRITE_EVERY_MS = 40;
const READ_EVERY_MS = 20;
const WRITE_TIMEOUT_MS = 2000;
const READ_TIMEOUT_MS = 2000;
const CLIENTS_OF_THE_END = 16;

/** Answers that a sound cluster may give while something is wrong; any other error is one of the cluster. */
const EXPECTED_CODES = ['UNAVAILABLE', 'DEADLINE_EXCEEDED', 'ABORTED', 'RESOURCE_EXHAUSTED', 'INTERNAL'];

/**
 * Clients that write and read continuously through our library and note everything in a history. Keys are of four
 * kinds, so that a loss is not covered up by the next write, and so that writes meet each other.
 */
export class Workload implements AsyncDisposable {
  /** Errors that no fault excuses. */
  readonly unexpected: string[] = [];
  /** How often which error came, by code. */
  readonly errors = new Map<string, number>();
  private readonly options: WorkloadOptions;
  private readonly stopping = new AbortController();
  private readonly clients: KvClient[] = [];
  private onceKeys = 0;
  private loops: Promise<unknown> = Promise.resolve();

  private constructor(options: WorkloadOptions) {
    this.options = options;
  }

  /** Starts when every node serves. */
  static async start(options: WorkloadOptions): Promise<Workload> {
    const workload = new Workload(options);
    const everywhere = [...options.nodes.values()];
    const [first, ...others] = await Promise.all(
      Array.from({ length: WRITERS }, () => workload.connect(everywhere, WRITE_TIMEOUT_MS)),
    );
    if (first === undefined) throw new Error('there is no writer');
    for (let index = 0; index < STABLE_KEYS; index += 1) {
      await workload.write(first, { key: `stable/${index}`, kind: 'put', consistency: 'ALL' });
    }
    const anyNode = await Promise.all(
      Array.from({ length: READERS }, () => workload.connect(everywhere, READ_TIMEOUT_MS)),
    );
    const oneNode = await Promise.all(
      [...options.nodes].map(async ([nodeId, address]) => {
        return { nodeId, client: await workload.connect([address], READ_TIMEOUT_MS) };
      }),
    );
    workload.loops = Promise.all([
      ...[first, ...others].map((client, writer) => workload.writeAll(client, writer)),
      ...anyNode.map((client) => workload.readAll(client, 'any', () => workload.anyConsistency())),
      ...oneNode.map(({ nodeId, client }) => workload.readAll(client, nodeId, () => 'ONE')),
    ]);
    // A defect of the workload itself surfaces in `stop`.
    workload.loops.catch(() => undefined);
    return workload;
  }

  /** Stops and waits for what is under way. Idempotent. */
  async stop(): Promise<void> {
    this.stopping.abort();
    try {
      await this.loops;
    } finally {
      for (const client of this.clients.splice(0)) client.close();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  private async connect(endpoints: readonly string[], timeoutMs: number): Promise<KvClient> {
    // Who asks one node means that node.
    const routing = endpoints.length > 1;
    const client = await KvClient.connect({ endpoints, timeoutMs, routing });
    this.clients.push(client);
    return client;
  }

  private async writeAll(client: KvClient, writer: number): Promise<void> {
    await this.repeat(WRITE_EVERY_MS, async () => {
      const key = this.keyToWrite(writer);
      const kind = !key.startsWith('once/') && this.chance(0.2) ? 'delete' : 'put';
      await this.write(client, { key, kind, consistency: this.chance(0.05) ? 'ALL' : 'QUORUM' });
    });
  }

  private keyToWrite(writer: number): string {
    const dice = this.options.random.fraction();
    if (dice < 0.25) {
      this.onceKeys += 1;
      return `once/${this.onceKeys}`;
    }
    if (dice < 0.35) return `hot/${this.below(HOT_KEYS)}`;
    return `own/${writer}/${this.below(OWN_KEYS)}`;
  }

  private async write(client: KvClient, what: Pick<Write, 'key' | 'kind' | 'consistency'>): Promise<void> {
    const write = this.options.history.begin({ ...what, startedMs: performance.now() });
    const { key, consistency } = write;
    let outcome: Write['outcome'];
    try {
      const { version } = await (write.kind === 'put'
        ? client.put(key, valueOf(write), { consistency })
        : client.delete(key, { consistency }));
      write.version = version;
      outcome = 'acknowledged';
    } catch (error) {
      const { code, retryable } = this.note(error, 'a write');
      outcome = retryable || code === 'RESOURCE_EXHAUSTED' ? 'refused' : 'unknown';
    }
    write.endedMs = performance.now();
    write.outcome = outcome;
  }

  private async readAll(client: KvClient, where: string, consistency: () => 'ONE' | 'QUORUM'): Promise<void> {
    await this.repeat(READ_EVERY_MS, async () => {
      try {
        this.options.history.reads.push(
          await read(client, { key: this.keyToRead(), where, consistency: consistency() }),
        );
      } catch (error) {
        this.note(error, `a read from ${where}`);
      }
    });
  }

  private keyToRead(): string {
    const dice = this.options.random.fraction();
    if (dice < 0.1) return `stable/${this.below(STABLE_KEYS)}`;
    if (dice < 0.3) return `hot/${this.below(HOT_KEYS)}`;
    if (dice < 0.5 && this.onceKeys > 0) return `once/${1 + this.below(this.onceKeys)}`;
    return `own/${this.below(WRITERS)}/${this.below(OWN_KEYS)}`;
  }

  private anyConsistency(): 'ONE' | 'QUORUM' {
    return this.chance(0.2) ? 'ONE' : 'QUORUM';
  }

  private note(error: unknown, during: string): KvError {
    if (!(error instanceof KvError)) throw error;
    this.errors.set(error.code, (this.errors.get(error.code) ?? 0) + 1);
    if (!EXPECTED_CODES.includes(error.code))
      this.unexpected.push(`${during}: ${error.code} ${error.message}`);
    return error;
  }

  private async repeat(everyMs: number, action: () => Promise<void>): Promise<void> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      const dueMs = performance.now() + everyMs;
      await action();
      await delay(Math.max(0, dueMs - performance.now()));
    }
  }

  private chance(probability: number): boolean {
    return this.options.random.fraction() < probability;
  }

  private below(bound: number): number {
    return Math.floor(this.options.random.fraction() * bound);
  }
}

/**
 * Reads keys at ONE from each node, and at QUORUM. For the end, when the nodes are equal: every node must then have what a
 * majority has.
 */
export async function readBack(
  nodes: WorkloadOptions['nodes'],
  keys: readonly string[],
): Promise<readonly Read[]> {
  const asked = [
    ...[...nodes].map(([where, address]) => ({ where, endpoints: [address], consistency: 'ONE' as const })),
    { where: 'any', endpoints: [...nodes.values()], consistency: 'QUORUM' as const },
  ];
  const found = await Promise.all(
    asked.map(async ({ where, endpoints, consistency }) => {
      await using client = await KvClient.connect({ endpoints, timeoutMs: 10_000, routing: false });
      const rest = keys.values();
      const reads: Read[] = [];
      const reader = async (): Promise<void> => {
        for (const key of rest) {
          const one = await read(client, { key, where, consistency });
          reads.push({ ...one, consistency: 'settled' });
        }
      };
      await Promise.all(Array.from({ length: CLIENTS_OF_THE_END }, reader));
      return reads;
    }),
  );
  return found.flat();
}

async function read(
  client: KvClient,
  { key, where, consistency }: { key: string; where: string; consistency: AskedFor },
): Promise<Read> {
  const startedMs = performance.now();
  const answer = await client.get(key, { consistency });
  const found =
    answer === undefined ? undefined : { value: answer.value.toString(), version: answer.version };
  return { key, where, consistency, startedMs, endedMs: performance.now(), found };
}
