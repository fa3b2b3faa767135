import type { Clock, Scheduler } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import type { Random } from '../../common/random.ts';
import { workerName } from '../../model/workers.ts';
import type { NodeConfig } from '../config.ts';
import { EXIT_FAILED } from '../exit-codes.ts';
import { HttpServer } from '../rpc/http-server.ts';
import { ClientPort } from './client-port.ts';
import { createPodMetrics, podMetricsText } from './pod-metrics.ts';
import { podNotReadyReason } from './readiness.ts';
import { workerFlags } from './worker-flags.ts';
import { WorkerProcess } from './worker-process.ts';

export interface PodOptions {
  readonly config: NodeConfig;
  /** Flags of the pod, without the dashes. */
  readonly flags: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly logger: Logger;
}

/** What a worker may take longer to end than the operations on it, before it is killed, milliseconds. */
const END_GRACE_MS = 5000;

/** The workers of a pod, the port where clients find any of them, and the probes of them all. */
export class Pod {
  private readonly options: PodOptions;
  private readonly workers: readonly WorkerProcess[];
  private readonly clients: ClientPort;
  private readonly http: HttpServer;
  private readonly end = Promise.withResolvers<number>();
  private stopping = false;

  constructor(options: PodOptions) {
    this.options = options;
    const { config, flags, clock, scheduler } = options;
    this.workers = Array.from(
      { length: config.workers },
      (_, worker) =>
        new WorkerProcess({
          ...options,
          worker,
          nodeId: workerName(config.pod, worker),
          flags: workerFlags(config, flags, worker),
          onHopeless: (code) => this.stop(code),
        }),
    );
    this.clients = new ClientPort(this.workers);
    const registry = createPodMetrics(this.workers);
    this.http = new HttpServer({
      metrics: { contentType: registry.contentType, metrics: () => podMetricsText(registry, this.workers) },
      unhealthyReason: () =>
        this.workers.map(({ unhealthyReason }) => unhealthyReason).find((reason) => reason !== undefined),
      notReadyReason: () => (this.stopping ? 'shutting down' : podNotReadyReason(this.workers)),
      clock,
      scheduler,
    });
  }

  /**
   * Runs the workers until the pod is stopped; resolves with the exit code.
   *
   * @throws KvError FAILED_PRECONDITION when one of the pod's own ports cannot be had; nothing runs then.
   */
  async run(): Promise<number> {
    const { config, logger } = this.options;
    const { listen, clientPort, httpPort, workers } = config;
    try {
      await this.http.listen(listen, httpPort);
      await this.clients.listen(listen, clientPort);
      logger.info({ workers, listen, clientPort, httpPort }, 'looking after the workers');
      if (!this.stopping) for (const worker of this.workers) worker.start();
      return await this.end.promise;
    } finally {
      this.clients.close();
      await this.http.close();
    }
  }

  /** Ends the workers in order: they serve a while, refuse, finish, and flush. Clients are handed on meanwhile. */
  stop(code: number): void {
    if (this.stopping) return;
    this.stopping = true;
    const { config, scheduler, logger } = this.options;
    const timer = scheduler.after(config.drainServeMs + config.drainTimeoutMs + END_GRACE_MS, () => {
      logger.error({}, 'workers have not ended in time and are killed');
      for (const worker of this.workers) worker.kill();
    });
    void Promise.all(this.workers.map((worker) => worker.stop())).then(() => {
      timer.cancel();
      this.end.resolve(code);
    });
  }

  /** Ends the workers at once. */
  kill(): void {
    this.stopping = true;
    for (const worker of this.workers) worker.kill();
    this.end.resolve(EXIT_FAILED);
  }
}
