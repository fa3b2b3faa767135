import { Backoff } from '../common/backoff.ts';
import { type Clock, type Scheduler, sleep } from '../common/clock.ts';
import { KvError } from '../common/errors.ts';
import type { Random } from '../common/random.ts';
import type { Endpoint, EndpointCall } from './endpoint.ts';
import { CallFailure } from './grpc.ts';

/** One operation, whatever number of calls it takes. */
export interface FailoverOperation<Response> {
  /**
   * A `read` is sent again whenever the connection fails. A `write` carries a request id, by which nodes know it again: it
   * is sent again also when nobody knows what became of it. Anything else goes `once`, unless it is known that nothing
   * was done.
   */
  readonly kind: 'read' | 'write' | 'once';
  /** For all calls together, milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** `attempt`: how many earlier calls may have applied the write. */
  readonly call: (endpoint: Endpoint, call: EndpointCall, attempt: number) => Promise<Response>;
}

/**
 * How long after its first call a write is sent again, milliseconds. Nodes remember a request for a minute; a retry that
 * comes later would be written a second time, or be refused.
 */
const RETRY_WINDOW_MS = 45_000;

/** Sends operations to the endpoint that last answered, and to the next ones when it does not. */
export class Failover {
  private readonly endpoints: readonly Endpoint[];
  private readonly clock: Clock;
  private readonly scheduler: Scheduler;
  private readonly random: Random;
  private preferred: number;

  constructor(endpoints: readonly Endpoint[], clock: Clock, scheduler: Scheduler, random: Random) {
    this.endpoints = endpoints;
    this.clock = clock;
    this.scheduler = scheduler;
    this.random = random;
    this.preferred = Math.floor(random.fraction() * endpoints.length);
  }

  /**
   * Runs an operation until it succeeds, its outcome is final, or its time is over.
   *
   * @throws KvError: as the node answered; UNAVAILABLE when no endpoint took it; DEADLINE_EXCEEDED when a write may or
   * may not have been applied.
   */
  async run<Response>(operation: FailoverOperation<Response>): Promise<Response> {
    const { kind, timeoutMs, signal } = operation;
    const startMs = this.clock.monotonicMs();
    const endMs = startMs + timeoutMs;
    const backoff = new Backoff({ initialMs: 50, maxMs: 1000 }, this.random);
    // Of each endpoint the last one: what a node said before it went away is no longer true.
    const failures = new Map<Endpoint, CallFailure>();
    // Said when no later call tells what became of an earlier one.
    let unsure: KvError | undefined;
    let attempt = 0;
    for (let tried = 0; ; tried += 1) {
      if (tried > 0 && tried % this.endpoints.length === 0) {
        const pauseMs = Math.min(backoff.nextMs(), endMs - this.clock.monotonicMs());
        if (pauseMs > 0) await sleep(this.scheduler, pauseMs, signal);
      }
      const now = this.clock.monotonicMs();
      if (tried > 0 && endMs - now < 1) throw unsure ?? this.gaveUp([...failures.values()], timeoutMs);
      if (unsure !== undefined && now - startMs > RETRY_WINDOW_MS) throw unsure;
      const index = this.preferred;
      const endpoint = this.endpoints[index];
      if (endpoint === undefined) throw new KvError('FAILED_PRECONDITION', 'there is no endpoint');
      try {
        return await operation.call(
          endpoint,
          { timeoutMs: this.shareOf(endMs - now, kind), signal },
          attempt,
        );
      } catch (error) {
        if (!(error instanceof CallFailure)) throw error;
        const sure = isSure(error);
        // What was refused now says nothing of the calls before.
        if (!sure && kind !== 'read') unsure = unknownOutcome(error, endpoint.address);
        if (!mayGoElsewhere(error, kind)) throw unsure ?? error.error;
        if (!sure) attempt += 1;
        // Another operation may have moved on already.
        if (this.preferred === index) this.preferred = (index + 1) % this.endpoints.length;
        failures.delete(endpoint);
        failures.set(endpoint, error);
      }
    }
  }

  /** What can be sent again leaves time to ask somebody else when a node hangs. */
  private shareOf(remainingMs: number, kind: 'read' | 'write' | 'once'): number {
    const whole = Math.max(1, Math.ceil(remainingMs));
    return kind !== 'once' && this.endpoints.length > 1 && whole > 200 ? Math.ceil(whole / 2) : whole;
  }

  private gaveUp(failures: readonly CallFailure[], timeoutMs: number): KvError {
    const addresses = this.endpoints.map(({ address }) => address).join(', ');
    const cause = mostTelling(failures);
    const { code, message } = cause;
    return new KvError(code, `${message} (tried ${addresses} for ${Math.round(timeoutMs)} ms)`, { cause });
  }
}

/** What a node answered says more of the cluster than a connection that failed; among equals, the latest. */
function mostTelling(failures: readonly CallFailure[]): KvError {
  const latestFirst = failures.toReversed();
  const telling =
    latestFirst.find(({ stage }) => stage === 'answered') ??
    latestFirst.find(({ stage }) => stage === 'lost') ??
    latestFirst[0];
  return telling?.error ?? new KvError('UNAVAILABLE', 'no endpoint was tried');
}

/** Whether the call is known not to have applied anything. */
function isSure({ stage, error }: CallFailure): boolean {
  if (stage === 'not-sent') return true;
  if (stage === 'lost' || error.code === 'DEADLINE_EXCEEDED') return false;
  // A proxy's UNAVAILABLE may stand for a request that a node has executed.
  return error.code !== 'UNAVAILABLE' || error.retryable;
}

/** Whether a stream that ended so may go on at this or another endpoint. */
export function mayResume(failure: CallFailure): boolean {
  return failure.error.retryable || mayGoElsewhere(failure, 'read');
}

function mayGoElsewhere(failure: CallFailure, kind: 'read' | 'write' | 'once'): boolean {
  const { stage, error } = failure;
  if (stage === 'not-sent' || (isSure(failure) && error.code === 'UNAVAILABLE')) return true;
  return kind !== 'once' && !isSure(failure);
}

/** What a node said itself of the outcome stays as it is. */
function unknownOutcome({ stage, error }: CallFailure, address: string): KvError {
  if (stage === 'answered' && error.code === 'DEADLINE_EXCEEDED') return error;
  const message = `no answer from ${address} (${error.message}); the write may or may not have been applied`;
  return new KvError('DEADLINE_EXCEEDED', message, { cause: error });
}
