import { Counter, Gauge, Registry } from 'prom-client';
import { mergeMetrics } from './merge-metrics.ts';
import type { WorkerProcess } from './worker-process.ts';

type Measured = Pick<WorkerProcess, 'worker' | 'state' | 'restarts' | 'connections' | 'metrics'>;

/** What the parent of a pod's workers measures by itself. */
export function createPodMetrics(workers: readonly Measured[]): Registry {
  const registry = new Registry();
  const labelNames = ['worker'] as const;
  const registers = [registry];
  new Gauge({
    name: 'kv_worker_up',
    help: '1 while the worker runs and its ports are open',
    labelNames,
    registers,
    collect() {
      for (const { worker, state } of workers) this.set({ worker }, state?.listening === true ? 1 : 0);
    },
  });
  new Counter({
    name: 'kv_worker_restarts_total',
    help: 'Ends of the worker that nobody had asked for',
    labelNames,
    registers,
    collect() {
      this.reset();
      for (const { worker, restarts } of workers) this.inc({ worker }, restarts);
    },
  });
  new Counter({
    name: 'kv_worker_connections_total',
    help: "Connections on the pod's client port that were handed to the worker",
    labelNames,
    registers,
    collect() {
      this.reset();
      for (const { worker, connections } of workers) this.inc({ worker }, connections);
    },
  });
  return registry;
}

/** The pod's own metrics and those of every worker that answers, with the label `worker`. */
export async function podMetricsText(registry: Registry, workers: readonly Measured[]): Promise<string> {
  const texts = await Promise.all(
    workers.map(async (process) => ({ worker: process.worker, text: await process.metrics() })),
  );
  return `${await registry.metrics()}\n${mergeMetrics(texts)}`;
}
