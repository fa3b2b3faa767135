import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

/** What the operator measures. */
export interface OperatorMetrics {
  readonly registry: Registry;
  /** Ended reconciliations by outcome: done, failed. */
  readonly reconciliations: Counter<'outcome'>;
  readonly reconcileSeconds: Histogram;
  readonly queueDepth: Gauge;
  /** 1 while this process leads. */
  readonly leading: Gauge;
}

export function createOperatorMetrics(): OperatorMetrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  return {
    registry,
    reconciliations: new Counter({
      name: 'kv_operator_reconciliations_total',
      help: 'Reconciliations that ended, by outcome.',
      labelNames: ['outcome'],
      registers,
    }),
    reconcileSeconds: new Histogram({
      name: 'kv_operator_reconcile_seconds',
      help: 'How long reconciliations took.',
      buckets: [0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30],
      registers,
    }),
    queueDepth: new Gauge({
      name: 'kv_operator_queue_depth',
      help: 'Clusters waiting to be reconciled now.',
      registers,
    }),
    leading: new Gauge({ name: 'kv_operator_leading', help: '1 while this process leads.', registers }),
  };
}
