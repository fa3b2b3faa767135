import { Backoff } from '../common/backoff.ts';
import { type Clock, type Scheduler, sleep } from '../common/clock.ts';
import { KvError } from '../common/errors.ts';
import type { Random } from '../common/random.ts';
import type { Endpoint, EndpointCall } from './endpoint.ts';
import { CallFailure } from './grpc.ts';
import type { Route, Router } from './router.ts';

/** One operation, whatever number of calls it takes. */
export interface FailoverOperation<Response> {
  /**
   * A `read` is sent again whenever the connection fails. A `write` carries a request id, by which nodes know it again: it
   * is sent again also when nobody knows what became of it. Anything else goes `once`, unless it is known that nothing
   * was done.
   */
  readonly kind: 'read' | 'write' | 'once';
  /** Of an operation on a single key: where it belongs. */
  readonly route?: Route | undefined;
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

export interface FailoverOptions {
  readonly router: Pick<Router, 'choose' | 'avoid' | 'hasAlternatives'>;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
}

const NONE_TRIED: ReadonlySet<Endpoint> = new Set();

/** Sends operations to the endpoint that the router chooses, and to the next ones when it does not answer. */
export class Failover {
  private readonly options: FailoverOptions;

  constructor(options: FailoverOptions) {
    this.options = options;
  }

  /**
   * Runs an operation until it succeeds, its outcome is final, or its time is over.
   *
   * @throws KvError: as the node answered; UNAVAILABLE when no endpoint took it; DEADLINE_EXCEEDED when a write may or
   * may not have been applied.
   */
  run<Response>(operation: FailoverOperation<Response>): Promise<Response> {
    return this.runThen(operation, (response) => response);
  }

  /** The same, and gives what `finish` makes of the response: on the way of every operation a promise more is felt. */
  runThen<Response, Result>(
    operation: FailoverOperation<Response>,
    finish: (response: Response) => Result,
  ): Promise<Result> {
    const { router, clock } = this.options;
    const { kind, route, timeoutMs, signal } = operation;
    const startMs = clock.monotonicMs();
    const endpoint = router.choose(route, NONE_TRIED);
    if (endpoint === undefined) {
      return Promise.reject(new KvError('FAILED_PRECONDITION', 'there is no endpoint'));
    }
    return operation
      .call(endpoint, { timeoutMs: this.shareOf(timeoutMs, kind), signal }, 0)
      .then(finish, (error: unknown) => this.goOn(operation, startMs, endpoint, error).then(finish));
  }

  /** After the first call has failed. */
  private async goOn<Response>(
    operation: FailoverOperation<Response>,
    startMs: number,
    first: Endpoint,
    firstError: unknown,
  ): Promise<Response> {
    const { router, clock, scheduler, random } = this.options;
    const { kind, route, timeoutMs, signal } = operation;
    const endMs = startMs + timeoutMs;
    const backoff = new Backoff({ initialMs: 50, maxMs: 1000 }, random);
    /** Since the last pause. */
    const tried = new Set<Endpoint>();
    // Of each endpoint the last one: what a node said before it went away is no longer true.
    const failures = new Map<Endpoint, CallFailure>();
    // Said when no later call tells what became of an earlier one.
    let unsure: KvError | undefined;
    let attempt = 0;
    let endpoint = first;
    let failed: unknown = firstError;
    for (;;) {
      if (!(failed instanceof CallFailure)) throw failed;
      const sure = isSure(failed);
      // What was refused now says nothing of the calls before.
      if (!sure && kind !== 'read') unsure = unknownOutcome(failed, endpoint.address);
      if (!mayGoElsewhere(failed, kind)) throw unsure ?? failed.error;
      if (!sure) attempt += 1;
      router.avoid(endpoint);
      failures.delete(endpoint);
      failures.set(endpoint, failed);
      tried.add(endpoint);
      let next = router.choose(route, tried);
      if (next === undefined) {
        const pauseMs = Math.min(backoff.nextMs(), endMs - clock.monotonicMs());
        if (pauseMs > 0) await sleep(scheduler, pauseMs, signal);
        tried.clear();
        next = router.choose(route, tried) ?? endpoint;
      }
      const now = clock.monotonicMs();
      if (endMs - now < 1) throw unsure ?? gaveUp(failures, timeoutMs);
      if (unsure !== undefined && now - startMs > RETRY_WINDOW_MS) throw unsure;
      endpoint = next;
      try {
        return await operation.call(
          endpoint,
          { timeoutMs: this.shareOf(endMs - now, kind), signal },
          attempt,
        );
      } catch (error) {
        failed = error;
      }
    }
  }

  /** What can be sent again leaves time to ask somebody else when a node hangs. */
  private shareOf(remainingMs: number, kind: FailoverOperation<unknown>['kind']): number {
    const whole = Math.max(1, Math.ceil(remainingMs));
    const mayAskOthers = kind !== 'once' && whole > 200 && this.options.router.hasAlternatives;
    return mayAskOthers ? Math.ceil(whole / 2) : whole;
  }
}

function gaveUp(failures: ReadonlyMap<Endpoint, CallFailure>, timeoutMs: number): KvError {
  const addresses = [...failures.keys()].map(({ address }) => address).join(', ');
  const cause = mostTelling([...failures.values()]);
  const { code, message } = cause;
  return new KvError(code, `${message} (tried ${addresses} for ${Math.round(timeoutMs)} ms)`, { cause });
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
