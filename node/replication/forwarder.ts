import type { Clock, Scheduler } from '../../common/clock.ts';
import { type ErrorCode, KvError, messageOf } from '../../common/errors.ts';
import { NO_VERSION, type Version } from '../../model/version.ts';
import type { ForwardReply, ForwardRequest } from '../../proto/gen/peer.ts';
import { consistencyToProto } from './consistency.ts';
import type { DeleteOperation, GetOperation, LiveValue, OperationOptions, PutOperation } from './engine.ts';
import { type Settled, settleBy } from './deadline.ts';
import type { ReplicationMetrics } from './metrics.ts';
import type { RemoteRequests } from './remote-requests.ts';
import { standingOutside, type Topology } from './topology.ts';

export interface ForwarderOptions {
  readonly topology: Topology;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly metrics: ReplicationMetrics;
  readonly remote: (nodeId: string) => RemoteRequests | undefined;
}

type Operation = NonNullable<ForwardRequest['operation']>;
type Outcome<C extends string> = Extract<NonNullable<ForwardReply['outcome']>, { $case: C }>['value'];

/**
 * Sends operations on to a readable replica of their key, for nodes that are none (PROTOCOL 1): one hop, and another
 * replica only when the first says that it did nothing.
 */
export class Forwarder {
  private readonly options: ForwarderOptions;
  private turn = 0;

  constructor(options: ForwarderOptions) {
    this.options = options;
  }

  async put(operation: PutOperation): Promise<{ version: Version; old: LiveValue | undefined }> {
    const { key, value, ttlMs, requestId, consistency } = operation;
    const reply = await this.send('put', operation, {
      $case: 'put',
      value: {
        key,
        value,
        ttlMs,
        requestId,
        consistency: consistencyToProto(consistency),
        condition: undefined,
      },
    });
    const version = reply.version ?? NO_VERSION;
    const old = reply.oldFound ? { value: reply.oldValue, version, remainingTtlMs: undefined } : undefined;
    return { version, old };
  }

  async delete(operation: DeleteOperation): Promise<{ version: Version; existed: boolean }> {
    const { key, requestId, consistency } = operation;
    const reply = await this.send('delete', operation, {
      $case: 'delete',
      value: { key, requestId, consistency: consistencyToProto(consistency), condition: undefined },
    });
    return { version: reply.version ?? NO_VERSION, existed: reply.existed };
  }

  async get(operation: GetOperation): Promise<LiveValue | undefined> {
    const { key, minVersion, consistency } = operation;
    const reply = await this.send('get', operation, {
      $case: 'get',
      value: { key, minVersion, consistency: consistencyToProto(consistency) },
    });
    if (!reply.found) return undefined;
    return {
      value: reply.value,
      version: reply.version ?? NO_VERSION,
      remainingTtlMs: reply.remainingTtlMs,
    };
  }

  private async send<C extends Operation['$case']>(
    kind: C,
    operation: OperationOptions & { key: Buffer },
    wire: Operation,
  ): Promise<Outcome<C>> {
    const { clock, scheduler, metrics } = this.options;
    const asked = new Set<string>();
    const refusals: string[] = [];
    for (;;) {
      const target = this.next(operation.key, asked);
      if (target === undefined) {
        metrics.count('unavailable');
        throw new KvError('UNAVAILABLE', this.nobody(operation.key, refusals));
      }
      asked.add(target.nodeId);
      metrics.count('forwarded');
      const timeoutMs = Math.max(1, Math.floor(operation.deadlineMs - clock.monotonicMs()));
      const settled = settleBy<ForwardReply>(
        { clock, scheduler },
        operation.deadlineMs,
        () => late(kind, target.nodeId),
        operation.signal,
      );
      const { outcome } = await this.ask(kind, target, { timeoutMs, operation: wire }, settled);
      if (outcome?.$case === kind) return outcome.value as Outcome<C>;
      if (outcome?.$case !== 'error') {
        throw new KvError(
          'INTERNAL',
          `${target.nodeId} answered a forwarded ${kind} with ${outcome?.$case ?? 'nothing'}`,
        );
      }
      const { code, message, retryable, wrongReplica } = outcome.value;
      if (!wrongReplica) throw new KvError(code as ErrorCode, message, { retryable });
      refusals.push(`${target.nodeId}: ${message}`);
    }
  }

  /** A stream that ends takes the answer with it: of a write the outcome is unknown then. */
  private async ask(
    kind: Operation['$case'],
    target: { readonly nodeId: string; readonly remote: RemoteRequests },
    request: Omit<ForwardRequest, 'id'>,
    settled: Settled<ForwardReply>,
  ): Promise<ForwardReply> {
    target.remote.forward(request).then(settled.resolve, (error: unknown) => {
      const message = `${target.nodeId} went away with the answer: ${messageOf(error)}`;
      settled.reject(
        kind === 'get'
          ? new KvError('UNAVAILABLE', message, { cause: error })
          : new KvError('DEADLINE_EXCEEDED', `outcome unknown: ${message}`, { cause: error }),
      );
    });
    return settled.promise;
  }

  /** The replicas take turns. */
  private next(
    key: Buffer,
    asked: ReadonlySet<string>,
  ): { readonly nodeId: string; readonly remote: RemoteRequests } | undefined {
    const { topology, remote } = this.options;
    if (topology.map === undefined) return undefined;
    const partition = topology.partitionOf(key);
    const candidates = topology.setsOf(partition).read.flatMap((nodeId) => {
      if (nodeId === topology.nodeId || asked.has(nodeId) || !topology.isServing(nodeId, partition))
        return [];
      const requests = remote(nodeId);
      return requests === undefined ? [] : [{ nodeId, remote: requests }];
    });
    this.turn = (this.turn + 1) % Number.MAX_SAFE_INTEGER;
    return candidates[this.turn % Math.max(1, candidates.length)];
  }

  private nobody(key: Buffer, refusals: readonly string[]): string {
    const { topology } = this.options;
    const outside = standingOutside(topology.map, topology.nodeId);
    if (outside !== undefined && refusals.length === 0) return `${outside}; send it to another node`;
    const { read } = topology.setsOf(topology.partitionOf(key));
    const why = refusals.length === 0 ? '' : ` (${refusals.join('; ')})`;
    return `none of the replicas of the key (${read.join(', ')}) is readable and in reach${why}; nothing was applied`;
  }
}

function late(kind: Operation['$case'], nodeId: string): KvError {
  return kind === 'get'
    ? new KvError('DEADLINE_EXCEEDED', `${nodeId} did not answer in time`, { retryable: true })
    : new KvError('DEADLINE_EXCEEDED', `outcome unknown: ${nodeId} did not answer in time`);
}
