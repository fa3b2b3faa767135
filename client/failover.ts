import { Backoff } from '../common/backoff.ts';
import { type Clock, type Scheduler, sleep } from '../common/clock.ts';
import { KvError } from '../common/errors.ts';
import type { Random } from '../common/random.ts';
import type { Endpoint, EndpointCall } from './endpoint.ts';
import { CallFailure } from './grpc.ts';

/** One operation, whatever number of calls it takes. */
export interface FailoverOperation<Response> {
  /** A write is sent again only when it is known that nothing was applied; a read, whenever the connection fails. */
  readonly kind: 'read' | 'write';
  /** For all calls together, milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly call: (endpoint: Endpoint, call: EndpointCall) => Promise<Response>;
}

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
    const endMs = this.clock.monotonicMs() + operation.timeoutMs;
    const backoff = new Backoff({ initialMs: 50, maxMs: 1000 }, this.random);
    // Of each endpoint the last one: what a node said before it went away is no longer true.
    const failures = new Map<Endpoint, CallFailure>();
    for (let tried = 0; ; tried += 1) {
      if (tried > 0 && tried % this.endpoints.length === 0) {
        const pauseMs = Math.min(backoff.nextMs(), endMs - this.clock.monotonicMs());
        if (pauseMs > 0) await sleep(this.scheduler, pauseMs, operation.signal);
      }
      const remainingMs = endMs - this.clock.monotonicMs();
      if (tried > 0 && remainingMs < 1) throw this.gaveUp([...failures.values()], operation.timeoutMs);
      const index = this.preferred;
      const endpoint = this.endpoints[index];
      if (endpoint === undefined) throw new KvError('FAILED_PRECONDITION', 'there is no endpoint');
      try {
        const timeoutMs = this.shareOf(remainingMs, operation.kind);
        return await operation.call(endpoint, { timeoutMs, signal: operation.signal });
      } catch (error) {
        if (!(error instanceof CallFailure)) throw error;
        if (!mayGoElsewhere(error, operation.kind)) throw finalError(error, operation.kind, endpoint.address);
        // Another operation may have moved on already.
        if (this.preferred === index) this.preferred = (index + 1) % this.endpoints.length;
        failures.delete(endpoint);
        failures.set(endpoint, error);
      }
    }
  }

  /** A read leaves time to ask somebody else when a node hangs; a write that was sent cannot go elsewhere. */
  private shareOf(remainingMs: number, kind: 'read' | 'write'): number {
    const whole = Math.max(1, Math.ceil(remainingMs));
    return kind === 'read' && this.endpoints.length > 1 && whole > 200 ? Math.ceil(whole / 2) : whole;
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

function mayGoElsewhere({ stage, error }: CallFailure, kind: 'read' | 'write'): boolean {
  if (stage === 'not-sent') return true;
  if (kind === 'write') return stage === 'answered' && error.code === 'UNAVAILABLE' && error.retryable;
  return stage === 'lost' || error.code === 'UNAVAILABLE' || error.code === 'DEADLINE_EXCEEDED';
}

function finalError({ stage, error }: CallFailure, kind: 'read' | 'write', address: string): KvError {
  const unsure = stage === 'lost' || error.code === 'UNAVAILABLE';
  if (kind === 'read' || !unsure) return error;
  const message = `no answer from ${address} (${error.message}); the write may or may not have been applied`;
  return new KvError('DEADLINE_EXCEEDED', message, { cause: error });
}
