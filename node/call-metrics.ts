import type { MetricValueWithName, Registry } from 'prom-client';

const OPERATIONS = 'kv_operations_total';
const DURATIONS = 'kv_operation_duration_seconds';

/** What was seen of one RPC. */
interface Calls {
  readonly rpc: string;
  /** By status. */
  readonly codes: Map<string, number>;
  /** How many took no longer than the bucket of the same index, and longer than the one before; the last: all others. */
  readonly buckets: number[];
  seconds: number;
}

/** What a registry asks of a metric. */
interface Readable {
  readonly name: string;
  readonly labelNames: readonly string[];
  get(): Promise<{
    readonly name: string;
    readonly help: string;
    readonly type: 'counter' | 'histogram';
    readonly values: readonly MetricValueWithName<string>[];
    readonly aggregator: 'sum';
  }>;
}

/**
 * Counts calls and operations by RPC and status, and how long they took. Those of prom-client take a microsecond or two for
 * each observation with a label, as long as all else that an operation within a batch takes to be answered; these add to
 * numbers, and make metrics of them when they are read.
 */
export class CallMetrics {
  private readonly bounds: readonly number[];
  private readonly calls = new Map<string, Calls>();

  /** `bounds` of the buckets, ascending, seconds. */
  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
  }

  /** A call of this method, or an operation on its stream, has ended; `code` is OK, CANCELLED or an ErrorCode. */
  observe(path: string, code: string, seconds: number): void {
    let calls = this.calls.get(path);
    if (calls === undefined) {
      const buckets = new Array<number>(this.bounds.length + 1).fill(0);
      calls = { rpc: rpcName(path), codes: new Map(), buckets, seconds: 0 };
      this.calls.set(path, calls);
    }
    calls.codes.set(code, (calls.codes.get(code) ?? 0) + 1);
    calls.seconds += seconds;
    const { bounds } = this;
    let index = 0;
    while (index < bounds.length && seconds > (bounds[index] ?? Infinity)) index += 1;
    calls.buckets[index] = (calls.buckets[index] ?? 0) + 1;
  }

  register(registry: Registry): void {
    const metrics: Readable[] = [
      {
        name: OPERATIONS,
        labelNames: ['rpc', 'code'],
        get: () =>
          Promise.resolve({
            name: OPERATIONS,
            help: 'Finished calls by RPC and status; of Pipeline, finished operations',
            type: 'counter',
            values: [...this.calls.values()].flatMap(countsOf),
            aggregator: 'sum',
          }),
      },
      {
        name: DURATIONS,
        labelNames: ['rpc'],
        get: () =>
          Promise.resolve({
            name: DURATIONS,
            help: 'Time from the arrival of a call or operation to its answer, by RPC',
            type: 'histogram',
            values: [...this.calls.values()].flatMap((calls) => durationsOf(calls, this.bounds)),
            aggregator: 'sum',
          }),
      },
    ];
    // The registry asks for no more than this; its type names the whole class.
    for (const metric of metrics) registry.registerMetric(metric as never);
  }
}

/** `KeyValueStore/Put` of `/kvstore.KeyValueStore/Put`. */
export function rpcName(path: string): string {
  return path.slice(path.lastIndexOf('.') + 1);
}

function countsOf({ rpc, codes }: Calls): MetricValueWithName<string>[] {
  return [...codes].map(([code, value]) => ({ metricName: OPERATIONS, labels: { rpc, code }, value }));
}

function durationsOf(
  { rpc, buckets, seconds }: Calls,
  bounds: readonly number[],
): MetricValueWithName<string>[] {
  let count = 0;
  const values: MetricValueWithName<string>[] = buckets.map((here, index) => {
    count += here;
    const le = bounds[index] ?? '+Inf';
    return { metricName: `${DURATIONS}_bucket`, labels: { le, rpc }, value: count };
  });
  values.push({ metricName: `${DURATIONS}_sum`, labels: { rpc }, value: seconds });
  values.push({ metricName: `${DURATIONS}_count`, labels: { rpc }, value: count });
  return values;
}
