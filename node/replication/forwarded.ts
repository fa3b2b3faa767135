import type { Clock } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import type { Version } from '../../model/version.ts';
import type { ForwardError, ForwardReply, ForwardRequest } from '../../proto/gen/peer.ts';
import { consistencyOf } from './consistency.ts';
import type { KeyValueEngine } from './engine.ts';
import type { Topology } from './topology.ts';

export interface ForwardedOptions {
  readonly topology: Topology;
  /** Executes here and sends nothing on. */
  readonly local: Pick<KeyValueEngine, 'put' | 'delete' | 'get'>;
  readonly clock: Clock;
  /** Why this node coordinates no writes at all, which another replica may; undefined when it does. */
  readonly refusesWrites: () => string | undefined;
}

const NOTHING = Buffer.alloc(0);

/** Executes what another node has sent on (forwarder.ts), or refuses; never sends it on itself. */
export class Forwarded {
  private readonly options: ForwardedOptions;

  constructor(options: ForwardedOptions) {
    this.options = options;
  }

  async answer(request: ForwardRequest): Promise<ForwardReply> {
    const { id } = request;
    try {
      return { id, outcome: await this.execute(request) };
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      const { code, message, retryable } = error;
      return failure(id, { code, message, retryable, wrongReplica: false });
    }
  }

  private async execute({ timeoutMs, operation }: ForwardRequest): Promise<ForwardReply['outcome']> {
    const { topology, local, clock, refusesWrites } = this.options;
    if (operation === undefined) {
      throw new KvError('UNIMPLEMENTED', 'this operation is not known to this version of the node');
    }
    const { key } = operation.value;
    const refusal = operation.$case === 'get' ? undefined : refusesWrites();
    if (refusal !== undefined || !topology.serves(topology.partitionOf(key))) {
      const message = refusal ?? `${topology.nodeId} is not a readable replica of the key`;
      return { $case: 'error', value: { code: 'UNAVAILABLE', message, retryable: true, wrongReplica: true } };
    }
    const options = {
      key,
      consistency: consistencyOf(operation.value.consistency),
      deadlineMs: clock.monotonicMs() + timeoutMs,
    };
    switch (operation.$case) {
      case 'put': {
        const { value, ttlMs, requestId } = operation.value;
        const { version, old } = await local.put({ ...options, value, ttlMs, requestId });
        return {
          $case: 'put',
          value: { oldValue: old?.value ?? NOTHING, oldFound: old !== undefined, version },
        };
      }
      case 'delete': {
        const { requestId } = operation.value;
        return { $case: 'delete', value: await local.delete({ ...options, requestId }) };
      }
      case 'get': {
        const minVersion: Version | undefined = operation.value.minVersion;
        const live = await local.get({ ...options, minVersion });
        return {
          $case: 'get',
          value: {
            value: live?.value ?? NOTHING,
            found: live !== undefined,
            version: live?.version,
            remainingTtlMs: live?.remainingTtlMs,
          },
        };
      }
    }
  }
}

function failure(id: number, value: ForwardError): ForwardReply {
  return { id, outcome: { $case: 'error', value } };
}
