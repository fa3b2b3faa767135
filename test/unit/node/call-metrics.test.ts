import { expect } from 'chai';
import { Registry } from 'prom-client';
import { CallMetrics } from '../../../node/call-metrics.ts';

const PUT = '/kvstore.KeyValueStore/Put';

async function textOf(metrics: CallMetrics): Promise<string[]> {
  const registry = new Registry();
  metrics.register(registry);
  const text = await registry.metrics();
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

describe('the metrics of calls', () => {
  it('are shown as prom-client shows a counter and a histogram', async () => {
    const metrics = new CallMetrics([0.001, 0.01]);
    metrics.observe(PUT, 'OK', 0.001);
    metrics.observe(PUT, 'OK', 0.002);
    metrics.observe(PUT, 'UNAVAILABLE', 3);
    expect(await textOf(metrics)).to.deep.equal([
      'kv_operations_total{rpc="KeyValueStore/Put",code="OK"} 2',
      'kv_operations_total{rpc="KeyValueStore/Put",code="UNAVAILABLE"} 1',
      'kv_operation_duration_seconds_bucket{le="0.001",rpc="KeyValueStore/Put"} 1',
      'kv_operation_duration_seconds_bucket{le="0.01",rpc="KeyValueStore/Put"} 2',
      'kv_operation_duration_seconds_bucket{le="+Inf",rpc="KeyValueStore/Put"} 3',
      'kv_operation_duration_seconds_sum{rpc="KeyValueStore/Put"} 3.003',
      'kv_operation_duration_seconds_count{rpc="KeyValueStore/Put"} 3',
    ]);
  });

  it('say nothing of what was never called', async () => {
    expect(await textOf(new CallMetrics([1]))).to.deep.equal([]);
  });
});
