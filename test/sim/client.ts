import { KvError, messageOf } from '../../common/errors.ts';
import { compareVersions, type Version } from '../../model/version.ts';
import type { Consistency } from '../../node/replication/engine.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import type { Checker } from './checker.ts';
import { START_WALL_MS } from './clock.ts';
import type { Dice } from './dice.ts';
import type { Operation } from './history.ts';
import { CallLost, type Host, type SimNetwork } from './network.ts';
import { SimProcess } from './process.ts';
import type { WorkloadSettings } from './settings.ts';
import type { SimTime } from './time.ts';
import type { Trace } from './trace.ts';
import { requestName } from './request-name.ts';
import { valueOf } from './values.ts';

export interface ClientOptions {
  readonly name: string;
  readonly time: SimTime;
  readonly dice: Dice;
  readonly trace: Trace;
  readonly network: SimNetwork;
  readonly checker: Checker;
  readonly workload: WorkloadSettings;
  readonly nodes: () => readonly string[];
  /** Takes one operation of those that all clients share; false when none is left. */
  readonly take: () => boolean;
}

interface WriteOptions {
  readonly requestId: RequestId | undefined;
  readonly consistency: Consistency;
  readonly deadlineMs: number;
}

const MOST_RETRIES = 4;
/** How much longer than the node a client waits for an answer, milliseconds. */
const ANSWER_RESERVE_MS = 50;
/** Codes that promise that nothing was applied anywhere. */
const REFUSALS = new Set(['UNAVAILABLE', 'RESOURCE_EXHAUSTED', 'INVALID_ARGUMENT', 'FAILED_PRECONDITION']);

/** One client: operations one after the other, with what its session has seen. */
export class Client {
  private readonly options: ClientOptions;
  private readonly process: SimProcess;
  /** Newest version of each key that this client wrote or read. */
  private readonly session = new Map<string, Version>();
  private readonly clientId: Buffer;
  private readonly clientStartMs: number;
  private requests = 0;
  private node: string;

  constructor(options: ClientOptions) {
    this.options = options;
    this.clientId = options.dice.bytes(16);
    this.clientStartMs = START_WALL_MS + Math.floor(options.time.nowMs);
    this.process = new SimProcess(options.time);
    this.node = options.dice.pick(options.nodes());
  }

  /** Works until no operation is left. */
  async run(): Promise<void> {
    const { dice, workload, time, nodes, take } = this.options;
    while (take()) {
      if (dice.chance(0.05)) this.node = dice.pick(nodes());
      const served = await this.operate();
      if (!served) this.node = dice.pick(nodes());
      await time.sleep(dice.wait(workload.thinkMs * (served ? 1 : 1.5)));
    }
  }

  /** Whether the node did what was asked. */
  private operate(): Promise<boolean> {
    const { dice, workload } = this.options;
    if (dice.chance(workload.list)) return this.list();
    const key = dice.chance(workload.hot)
      ? `hot-${dice.below(workload.hotKeys)}`
      : `cold-${dice.below(workload.coldKeys)}`;
    const what = dice.fraction();
    if (what < workload.put) return this.put(key);
    if (what < workload.put + workload.delete) return this.delete(key);
    return this.get(key);
  }

  private async put(key: string): Promise<boolean> {
    const { dice, workload } = this.options;
    const ttlMs = dice.chance(workload.ttl) ? Math.ceil(dice.spread(5, 3000)) : undefined;
    const operation = this.begin('put', key, { ttlMs });
    const value = valueOf(operation.id, key, Math.floor(dice.spread(1, workload.largestValueBytes)));
    return this.write(operation, async ({ replica }, options) => {
      const { version } = await replica.engine.put({ key: Buffer.from(key), value, ttlMs, ...options });
      return version;
    });
  }

  private async delete(key: string): Promise<boolean> {
    const operation = this.begin('delete', key, {});
    return this.write(operation, async ({ replica }, options) => {
      const { version } = await replica.engine.delete({ key: Buffer.from(key), ...options });
      return version;
    });
  }

  /** Sends a write, and again with the same id while its outcome is unknown, if this is one of those writes. */
  private async write(
    operation: Operation,
    send: (host: Host, options: WriteOptions) => Promise<Version>,
  ): Promise<boolean> {
    const { dice, workload, checker, trace, name, time } = this.options;
    const { consistency, key } = operation;
    const id = dice.chance(workload.retried) ? this.nextRequest() : undefined;
    if (id !== undefined) checker.noteRequest(requestName(id), operation);
    for (let attempt = 0; ; attempt += 1) {
      try {
        const requestId = id === undefined ? undefined : { ...id, attempt };
        operation.attempts = attempt + 1;
        operation.doneBefore = operation.served;
        const version = await this.request(async (host, deadlineMs) => {
          const done = await send(host, { requestId, consistency, deadlineMs });
          operation.served ??= done;
          return done;
        });
        checker.written(operation, version);
        this.remember(key, version);
        trace.note(
          attempt === 0 ? `${operation.kind} ok` : 'retry ok',
          () => `${name} #${operation.id} ${key}`,
        );
        return true;
      } catch (error) {
        this.check(operation, error);
        // Whatever a further attempt says of itself, the first one may have been applied.
        const outcome = attempt === 0 ? outcomeOf(error) : 'unknown';
        const last = id === undefined || attempt === MOST_RETRIES || outcome === 'refused';
        trace.note(
          `${operation.kind} ${outcome}`,
          () => `${name} #${operation.id} ${key}: ${messageOf(error)}`,
        );
        if (last) {
          checker.failed(operation, outcome, messageOf(error));
          return false;
        }
        await time.sleep(dice.spread(1, 1000));
        if (dice.chance(0.7)) this.node = dice.pick(this.options.nodes());
      }
    }
  }

  private async get(key: string): Promise<boolean> {
    const { dice, checker, trace, name } = this.options;
    const minVersion = dice.chance(0.8) ? this.session.get(key) : undefined;
    const operation = this.begin('get', key, { minVersion });
    const { consistency } = operation;
    try {
      const found = await this.request(({ replica }, deadlineMs) =>
        replica.engine.get({ key: Buffer.from(key), minVersion, consistency, deadlineMs }),
      );
      checker.read(operation, found);
      if (found !== undefined) this.remember(key, found.version);
      trace.note('get ok', () => `${name} #${operation.id} ${key}`);
      return true;
    } catch (error) {
      this.check(operation, error);
      const outcome = outcomeOf(error);
      checker.failed(operation, outcome, messageOf(error));
      trace.note(`get ${outcome}`, () => `${name} #${operation.id} ${key}: ${messageOf(error)}`);
      return false;
    }
  }

  private async list(): Promise<boolean> {
    const { dice, checker, trace, workload } = this.options;
    const begun = checker.beginListing();
    const startAfter = dice.chance(0.5) ? '' : `cold-${dice.below(workload.coldKeys)}`;
    try {
      const page = await this.request(({ replica }, deadlineMs) =>
        replica.engine.listKeys({
          prefix: Buffer.alloc(0),
          startAfter: startAfter === '' ? undefined : Buffer.from(startAfter),
          limit: 1 + dice.below(100),
          maxBytes: 100_000,
          consistency: 'QUORUM',
          deadlineMs,
        }),
      );
      const keys = page.keys.map((key) => key.toString());
      trace.note('list ok', () => `after "${startAfter}" ${keys.length}`);
      checker.listed(begun, startAfter, { keys, more: page.more });
      return true;
    } catch (error) {
      trace.note('list failed', () => messageOf(error));
      return false;
    }
  }

  private begin(
    kind: Operation['kind'],
    key: string,
    what: { ttlMs?: number | undefined; minVersion?: Version | undefined },
  ): Operation {
    const { checker, trace, name } = this.options;
    const { ttlMs, minVersion } = what;
    const consistency = this.consistency();
    const operation = checker.begin({
      client: name,
      kind,
      key,
      node: this.node,
      consistency,
      ttlMs,
      minVersion,
    });
    trace.mix(operation.id, 2);
    trace.line(`${name} > ${kind} #${operation.id} ${key} ${consistency} at ${this.node}`);
    return operation;
  }

  /** An error that no caller should ever see. */
  private check({ kind, key }: Operation, error: unknown): void {
    if (error instanceof CallLost) return;
    if (error instanceof KvError) {
      if (error.code === 'INTERNAL') this.options.trace.note('internal error');
      return;
    }
    this.options.checker.violated('nodes do not stop by themselves', `${kind} failed: ${String(error)}`, key);
  }

  private nextRequest(): Omit<RequestId, 'attempt'> {
    this.requests += 1;
    return { clientId: this.clientId, number: this.requests, clientStartMs: this.clientStartMs };
  }

  private request<T>(execute: (host: Host, deadlineMs: number) => Promise<T>): Promise<T> {
    const { network, workload, name } = this.options;
    const { timeoutMs } = workload;
    const caller = { name, process: this.process, timeoutMs: timeoutMs + ANSWER_RESERVE_MS };
    return network.request(caller, this.node, (host) => execute(host, host.monotonicMs() + timeoutMs));
  }

  private consistency(): Consistency {
    const { dice, workload } = this.options;
    const what = dice.fraction();
    if (what < workload.one) return 'ONE';
    return what < workload.one + workload.all ? 'ALL' : 'QUORUM';
  }

  private remember(key: string, version: Version): void {
    const before = this.session.get(key);
    if (before === undefined || compareVersions(version, before) > 0) this.session.set(key, version);
  }
}

function outcomeOf(error: unknown): 'refused' | 'unknown' {
  if (error instanceof CallLost) return error.stage === 'not-sent' ? 'refused' : 'unknown';
  return error instanceof KvError && REFUSALS.has(error.code) ? 'refused' : 'unknown';
}
