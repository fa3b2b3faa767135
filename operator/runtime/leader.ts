import { type Clock, type Scheduler, sleep } from '../../common/clock.ts';
import { messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { Random } from '../../common/random.ts';
import { isConflict, isNotFound, type KubernetesApi, type KubernetesObject } from './api.ts';
import { pathOf, resources } from './resource.ts';

export interface LeaseTimes {
  /** How long others wait after the last renewal that they saw. @default 15000 */
  readonly leaseMs: number;
  /** How long the holder goes on without a renewal; less than `leaseMs`. @default 10000 */
  readonly renewDeadlineMs: number;
  /** Between attempts to take or renew. @default 2000 */
  readonly retryMs: number;
}

export const defaultLeaseTimes: LeaseTimes = { leaseMs: 15_000, renewDeadlineMs: 10_000, retryMs: 2000 };

export interface LeaderElectionOptions {
  readonly api: KubernetesApi;
  readonly namespace: string;
  readonly name: string;
  /** Distinguishes this process from every other: the pod's name and something random. */
  readonly identity: string;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly log: Logger;
  readonly times?: LeaseTimes;
}

export interface LeaseSpec {
  readonly holderIdentity?: string;
  readonly leaseDurationSeconds?: number;
  readonly acquireTime?: string;
  readonly renewTime?: string;
  readonly leaseTransitions?: number;
}

export interface Lease extends KubernetesObject {
  readonly spec?: LeaseSpec;
}

/** The state of the Lease as last seen, and since when (monotonic) it has looked like that. */
export interface Observation {
  readonly resourceVersion: string;
  readonly sinceMs: number;
}

/** Whether a Lease may be taken: free, ours, or unchanged for longer than its duration by our own clock. */
export function mayTake(lease: Lease, observed: Observation, identity: string, nowMs: number): boolean {
  const { holderIdentity = '', leaseDurationSeconds = 0 } = lease.spec ?? {};
  if (holderIdentity === '' || holderIdentity === identity) return true;
  return nowMs - observed.sinceMs > leaseDurationSeconds * 1000;
}

/** Remembers since when the Lease has looked as it does; other machines' clocks play no part. */
export function observe(lease: Lease, before: Observation | undefined, nowMs: number): Observation {
  const resourceVersion = lease.metadata.resourceVersion ?? '';
  return before?.resourceVersion === resourceVersion ? before : { resourceVersion, sinceMs: nowMs };
}

/** Held by at most one process at a time: a Lease, taken and renewed by compare-and-set. */
export class LeaderElection {
  private readonly options: LeaderElectionOptions;
  private readonly times: LeaseTimes;
  private observation: Observation | undefined;
  /** When the last successful renewal was begun. */
  private renewedMs: number | undefined;

  constructor(options: LeaderElectionOptions) {
    this.options = options;
    this.times = options.times ?? defaultLeaseTimes;
  }

  /** Whether the Lease is still ours by the local monotonic clock. */
  isHeld(): boolean {
    return (
      this.renewedMs !== undefined &&
      this.options.clock.monotonicMs() - this.renewedMs < this.times.renewDeadlineMs
    );
  }

  /** Waits until the Lease is ours. Rejects when the signal aborts. */
  async acquire(signal: AbortSignal): Promise<void> {
    const { log, namespace, name, identity } = this.options;
    log.info({ lease: `${namespace}/${name}`, identity }, 'waiting for the Lease');
    while (!(await this.tryOnce(signal))) await this.pause(signal);
    log.info({ lease: `${namespace}/${name}`, identity }, 'leading');
  }

  /** Renews until the signal aborts, which resolves; rejects when the Lease is lost: stop everything at once. */
  async keep(signal: AbortSignal): Promise<void> {
    while (this.isHeld()) {
      const expiry = new AbortController();
      // An attempt that hangs must not outlast the Lease.
      const timer = this.options.scheduler.after(this.remainingMs(), () =>
        expiry.abort(new Error('Lease expired')),
      );
      const limited = AbortSignal.any([signal, expiry.signal]);
      try {
        await this.pause(limited).catch(() => undefined);
        if (!limited.aborted) await this.tryOnce(limited);
      } finally {
        timer.cancel();
      }
      if (signal.aborted) return;
    }
    throw new Error('the Lease was lost');
  }

  private remainingMs(): number {
    const expiresMs = (this.renewedMs ?? 0) + this.times.renewDeadlineMs;
    return Math.max(0, expiresMs - this.options.clock.monotonicMs());
  }

  /** Gives the Lease up, so that another process need not wait for it to expire. */
  async release(): Promise<void> {
    if (!this.isHeld()) return;
    this.renewedMs = undefined;
    try {
      const lease = await this.read();
      if (lease?.spec?.holderIdentity !== this.options.identity) return;
      await this.write({ ...lease, spec: { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1 } });
    } catch (error) {
      this.options.log.warn({ error }, 'could not release the Lease');
    }
  }

  /** One attempt to take or renew; false when the Lease is another's or the API server did not agree. */
  private async tryOnce(signal: AbortSignal): Promise<boolean> {
    const { clock, identity, log } = this.options;
    const startedMs = clock.monotonicMs();
    try {
      const lease = await this.read(signal);
      if (lease === undefined) {
        await this.create(signal);
      } else {
        this.observation = observe(lease, this.observation, clock.monotonicMs());
        if (!mayTake(lease, this.observation, identity, clock.monotonicMs())) {
          this.renewedMs = undefined;
          return false;
        }
        await this.write({ ...lease, spec: this.renewed(lease.spec) }, signal);
      }
      this.renewedMs = startedMs;
      return true;
    } catch (error) {
      if (!signal.aborted && !isConflict(error)) {
        log.warn({ reason: messageOf(error) }, 'could not take or renew the Lease');
      }
      return false;
    }
  }

  private renewed(before: LeaseSpec = {}): LeaseSpec {
    const { identity, clock } = this.options;
    const now = microTime(clock.wallMs());
    const ours = before.holderIdentity === identity;
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(this.times.leaseMs / 1000),
      acquireTime: ours ? (before.acquireTime ?? now) : now,
      renewTime: now,
      leaseTransitions: (before.leaseTransitions ?? 0) + (ours ? 0 : 1),
    };
  }

  private async read(signal?: AbortSignal): Promise<Lease | undefined> {
    const { api, namespace, name } = this.options;
    try {
      return await api.request<Lease>({
        method: 'GET',
        path: pathOf(resources.leases, { namespace, name }),
        timeoutMs: this.times.renewDeadlineMs / 2,
        ...(signal === undefined ? {} : { signal }),
      });
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  private async create(signal: AbortSignal): Promise<void> {
    const { api, namespace, name } = this.options;
    await api.request<Lease>({
      method: 'POST',
      path: pathOf(resources.leases, { namespace }),
      body: {
        apiVersion: resources.leases.apiVersion,
        kind: resources.leases.kind,
        metadata: { name, namespace },
        spec: this.renewed(),
      },
      timeoutMs: this.times.renewDeadlineMs / 2,
      signal,
    });
  }

  private async write(lease: Lease, signal?: AbortSignal): Promise<void> {
    const { api, namespace, name } = this.options;
    await api.request<Lease>({
      method: 'PUT',
      path: pathOf(resources.leases, { namespace, name }),
      body: lease,
      timeoutMs: this.times.renewDeadlineMs / 2,
      ...(signal === undefined ? {} : { signal }),
    });
  }

  private async pause(signal: AbortSignal): Promise<void> {
    const { scheduler, random } = this.options;
    await sleep(scheduler, this.times.retryMs * (0.8 + 0.4 * random.fraction()), signal);
  }
}

function microTime(wallMs: number): string {
  return new Date(wallMs).toISOString().replace('Z', '000Z');
}
