import { expect } from 'chai';
import { mergeMetrics } from '../../../node/workers/merge-metrics.ts';

const own = (gets: number): string =>
  [
    '# HELP kv_operations_total Finished calls',
    '# TYPE kv_operations_total counter',
    `kv_operations_total{rpc="Get",code="OK"} ${gets}`,
    '',
    '# HELP kv_ready 1 when /readyz says yes',
    '# TYPE kv_ready gauge',
    'kv_ready 1',
    '',
    '# HELP kv_seconds Time',
    '# TYPE kv_seconds histogram',
    'kv_seconds_bucket{le="+Inf"} 3',
    'kv_seconds_sum 0.5',
    '',
  ].join('\n');

describe('merged metrics', () => {
  it('describe each metric once and tell the workers by a label', () => {
    const merged = mergeMetrics([
      { worker: 0, text: own(4) },
      { worker: 1, text: own(5) },
    ]);
    expect(merged.split('\n').filter((line) => line !== '')).to.deep.equal([
      '# HELP kv_operations_total Finished calls',
      '# TYPE kv_operations_total counter',
      'kv_operations_total{worker="0",rpc="Get",code="OK"} 4',
      'kv_operations_total{worker="1",rpc="Get",code="OK"} 5',
      '# HELP kv_ready 1 when /readyz says yes',
      '# TYPE kv_ready gauge',
      'kv_ready{worker="0"} 1',
      'kv_ready{worker="1"} 1',
      '# HELP kv_seconds Time',
      '# TYPE kv_seconds histogram',
      'kv_seconds_bucket{worker="0",le="+Inf"} 3',
      'kv_seconds_sum{worker="0"} 0.5',
      'kv_seconds_bucket{worker="1",le="+Inf"} 3',
      'kv_seconds_sum{worker="1"} 0.5',
    ]);
  });

  it('leave out a worker that does not answer', () => {
    expect(mergeMetrics([{ worker: 0, text: '' }])).to.equal('');
    expect(
      mergeMetrics([
        { worker: 0, text: '' },
        { worker: 1, text: own(1) },
      ]),
    ).to.not.contain('worker="0"');
  });
});
