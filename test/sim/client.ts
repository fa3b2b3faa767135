import { KvError, messageOf } from '../../common/errors.ts';
import { compareVersions, type Version } from '../../model/version.ts';
import type { Consistency } from '../../node/replication/engine.ts';
import type { Checker } from './checker.ts';
import type { Dice } from './dice.ts';
import type { Operation } from './history.ts';
import { CallLost, type Host, type SimNetwork } from './network.ts';
import { SimProcess } from './process.ts';
import type { WorkloadSettings } from './settings.ts';
import type { SimTime } from './time.ts';
import type { Trace } from './trace.ts';
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

/** How much longer than the node a client waits for an answer, milliseconds. */
const ANSWER_RESERVE_MS = 50;
/** Codes that promise that nothing was applied anywhere. */
const REFUSALS = new Set(['UNAVAILABLE', 'RESOURCE_EXHAUSTED', 'INVALID_ARGUMENT', 'FAILED_PRECONDITION']);

/** One client: operations one after the other, each sent once, with what its session has seen. */
export class Client {
  private readonly options: ClientOptions;
  private readonly process: SimProcess;
  /** Newest version of each key that this client wrote or read. */
  private readonly session = new Map<string, Version>();
  private node: string;

  constructor(options: ClientOptions) {
    this.options = options;
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
    const { dice, workload, checker } = this.options;
    const ttlMs = dice.chance(workload.ttl) ? Math.ceil(dice.spread(5, 3000)) : undefined;
    const operation = this.begin('put', key, { ttlMs });
    const sizeBytes = Math.floor(dice.spread(1, workload.largestValueBytes));
    const { consistency } = operation;
    return this.carry(operation, async ({ replica }, deadlineMs) => {
      const { version } = await replica.engine.put({
        key: Buffer.from(key),
        value: valueOf(operation.id, key, sizeBytes),
        ttlMs,
        requestId: undefined,
        consistency,
        deadlineMs,
      });
      return (): void => {
        checker.written(operation, version);
        this.remember(key, version);
      };
    });
  }

  private async delete(key: string): Promise<boolean> {
    const { checker } = this.options;
    const operation = this.begin('delete', key, {});
    const { consistency } = operation;
    return this.carry(operation, async ({ replica }, deadlineMs) => {
      const { version } = await replica.engine.delete({
        key: Buffer.from(key),
        requestId: undefined,
        consistency,
        deadlineMs,
      });
      return (): void => {
        checker.written(operation, version);
        this.remember(key, version);
      };
    });
  }

  private async get(key: string): Promise<boolean> {
    const { dice, checker } = this.options;
    const minVersion = dice.chance(0.8) ? this.session.get(key) : undefined;
    const operation = this.begin('get', key, { minVersion });
    const { consistency } = operation;
    return this.carry(operation, async ({ replica }, deadlineMs) => {
      const found = await replica.engine.get({ key: Buffer.from(key), minVersion, consistency, deadlineMs });
      return (): void => {
        checker.read(operation, found);
        if (found !== undefined) this.remember(key, found.version);
      };
    });
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

  private async carry(
    operation: Operation,
    execute: (host: Host, deadlineMs: number) => Promise<() => void>,
  ): Promise<boolean> {
    const { checker, trace, name } = this.options;
    try {
      const done = await this.request(execute);
      done();
      trace.note(`${operation.kind} ok`, () => `${name} #${operation.id} ${operation.key}`);
      return true;
    } catch (error) {
      const outcome = outcomeOf(error);
      checker.failed(operation, outcome, messageOf(error));
      trace.note(
        `${operation.kind} ${outcome}`,
        () => `${name} #${operation.id} ${operation.key}: ${messageOf(error)}`,
      );
      if (error instanceof KvError && error.code === 'INTERNAL') trace.note('internal error');
      else if (!(error instanceof KvError || error instanceof CallLost))
        checker.violated(
          'nodes do not stop by themselves',
          `${operation.kind} failed: ${String(error)}`,
          operation.key,
        );
      return false;
    }
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
