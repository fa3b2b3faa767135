import { KvError } from '../../common/errors.ts';
import type { ReplicationMetrics } from './metrics.ts';

/** Admission of operations: a bound on the bytes under way, and the end of admission when the node drains. */
export class InFlight {
  private readonly maxBytes: number;
  private readonly metrics: ReplicationMetrics;
  private bytes = 0;
  private operations = 0;
  private closedReason: string | undefined;
  private waiting: (() => void)[] = [];

  constructor(maxBytes: number, metrics: ReplicationMetrics) {
    this.maxBytes = maxBytes;
    this.metrics = metrics;
  }

  get closed(): boolean {
    return this.closedReason !== undefined;
  }

  /** Refuses operations from now on. */
  close(reason: string): void {
    this.closedReason ??= reason;
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<void> {
    if (this.operations === 0) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  /**
   * Runs an operation that keeps `bytes` in memory.
   *
   * @throws KvError UNAVAILABLE when the node drains, RESOURCE_EXHAUSTED when too much is under way; nothing ran then.
   */
  async run<T>(bytes: number, operation: () => Promise<T>): Promise<T> {
    this.enter(bytes);
    try {
      return await operation();
    } finally {
      this.leave(bytes);
    }
  }

  /**
   * Admits an operation that keeps `bytes` in memory until it leaves.
   *
   * @throws as `run`.
   */
  enter(bytes: number): void {
    if (this.closedReason !== undefined) {
      throw new KvError('UNAVAILABLE', `${this.closedReason}; nothing was applied, send it to another node`);
    }
    if (this.operations > 0 && this.bytes + bytes > this.maxBytes) {
      throw new KvError(
        'RESOURCE_EXHAUSTED',
        'too much is in flight on this node; nothing was applied, retry later',
        {
          retryable: true,
        },
      );
    }
    this.operations += 1;
    this.add(bytes);
  }

  /** The end of one that was admitted with as many bytes. */
  leave(bytes: number): void {
    this.operations -= 1;
    this.add(-bytes);
    if (this.operations === 0) for (const resolve of this.waiting.splice(0)) resolve();
  }

  private add(bytes: number): void {
    this.bytes += bytes;
    this.metrics.gauge('in_flight_bytes', this.bytes);
  }
}
