import type { Scheduler, Timer } from '../../common/clock.ts';

/** What can be told whether a service serves (grpc.health.v1). */
export interface HealthStatus {
  setStatus(service: string, status: 'SERVING' | 'NOT_SERVING'): void;
}

/** How late a change may be told, milliseconds. */
const INTERVAL_MS = 200;

/** Keeps grpc.health.v1 in step with readiness; the whole server is the service with the empty name. */
export class HealthReporter {
  private readonly health: HealthStatus;
  private readonly services: readonly string[];
  private readonly isReady: () => boolean;
  private readonly scheduler: Scheduler;
  private timer: Timer | undefined;
  private told: boolean | undefined;

  constructor(options: {
    health: HealthStatus;
    services: readonly string[];
    isReady: () => boolean;
    scheduler: Scheduler;
  }) {
    this.health = options.health;
    this.services = options.services;
    this.isReady = options.isReady;
    this.scheduler = options.scheduler;
  }

  /** Tells now and from now on. */
  start(): void {
    this.update();
    this.timer = this.scheduler.after(INTERVAL_MS, () => this.start());
  }

  /** Tells a change without waiting for the next look. */
  update(): void {
    const ready = this.isReady();
    if (ready === this.told) return;
    this.told = ready;
    for (const service of this.services) this.health.setStatus(service, ready ? 'SERVING' : 'NOT_SERVING');
  }

  stop(): void {
    this.timer?.cancel();
  }
}
