import { CONTENDERS } from '../bench.ts';
import type { GrowthPoint, Results } from '../results.ts';
import { type Chart, type ChartSeries, drawChart, drawLegend, type SeriesStyle, svg, text } from './chart.ts';

const WIDTH = 1120;
const MIB = 1024 * 1024;
const IN_FLIGHT = [1, 16, 100, 1000];

/** Colours that remain apart for the colour-blind (Okabe and Ito); ours are bold, those of Node's clients dashed. */
const STYLES: Readonly<Record<string, Partial<SeriesStyle>>> = {
  KVCluster: { color: '#0072b2', isBold: true },
  etcd: { color: '#d55e00' },
  [shortName(CONTENDERS.etcd1Tool)]: { color: '#d55e00' },
  [shortName(CONTENDERS.etcd1Node)]: { color: '#d55e00', isDashed: true },
  [CONTENDERS.redis]: { color: '#009e73' },
  [CONTENDERS.redisPipelined]: { color: '#009e73', isDashed: true },
  [CONTENDERS.lmdb]: { color: '#cc79a7' },
  [CONTENDERS.echoNode]: { color: '#8c8c8c', isDashed: true },
};

/** The number of nodes stands above the plot. */
function shortName(contender: string): string {
  return contender.replace(/, \d nodes?/, '');
}

function styleOf(name: string): SeriesStyle {
  return { color: '#57606a', isBold: false, isDashed: false, ...STYLES[name] };
}

/** Throughput against p99 latency as more operations are in flight, with three nodes and with one. */
export function throughputLatencyPlot(results: Results, operation: 'put' | 'get'): string | undefined {
  const three = operation === 'put' ? 'put-3' : 'get-one-3';
  const series = [three, `${operation}-1`].map((prefix) => seriesOf(results, prefix));
  // Half a picture would be taken for a whole one.
  if (series.some((list) => list.length === 0)) return undefined;
  const what = operation === 'put' ? 'Durable put' : 'Get (etcd: serializable range)';
  const charts = series.map((list, index): Chart => {
    const title = index === 0 ? 'three nodes' : 'one node';
    return { title, xTitle: 'operations/s', yTitle: 'p99 latency, ms', series: list };
  });
  const names = [...new Set(series.flat().map(({ name }) => name))];
  const height = 560 + Math.ceil(names.length / 4) * 20;
  const title = `${what}: throughput and latency with 1, 16, 100 and 1,000 operations in flight`;
  return svg(WIDTH, height, title, [
    text(
      { x: 20, y: 50, color: '#57606a' },
      'Further right and further down is better. Values of 256 bytes.',
    ),
    ...charts.map((chart, index) =>
      drawChart(chart, { left: 10 + index * 550, top: 66, width: 550, height: 460 }, styleOf),
    ),
    drawLegend(names, { left: 40, top: 550, width: WIDTH - 60, height: 60 }, styleOf),
  ]);
}

function seriesOf(results: Results, prefix: string): readonly ChartSeries[] {
  const byName = new Map<string, { x: number; y: number; label: string }[]>();
  for (const inFlight of IN_FLIGHT) {
    const cell = results.cells.find(({ id }) => id === `${prefix}-${inFlight}`);
    for (const { contender, opsPerSecond, p99Ms } of cell?.summaries ?? []) {
      if (!(p99Ms > 0)) continue;
      const name = shortName(contender);
      const points = byName.get(name) ?? [];
      byName.set(name, points);
      points.push({ x: opsPerSecond, y: p99Ms, label: String(inFlight) });
    }
  }
  return [...byName].map(([name, points]) => ({ name, points }));
}

/** What more keys do to one node. */
export function growthPlot(growth: readonly GrowthPoint[]): string | undefined {
  if (growth.length < 3) return undefined;
  const chart = (title: string, yTitle: string, of: (point: GrowthPoint) => number | undefined): Chart => {
    const systems = [...new Set(growth.map(({ system }) => system))];
    const series = systems.map((name) => ({
      name,
      points: growth
        .filter(({ system }) => system === name)
        .flatMap((point) => {
          const y = of(point);
          return y === undefined ? [] : [{ x: point.keys, y }];
        }),
    }));
    return { title, xTitle: 'keys', yTitle, series: series.filter(({ points }) => points.length > 0) };
  };
  const charts = [
    chart('put p99, 100 in flight', 'ms', ({ putP99Ms }) => putP99Ms),
    chart('get p99, 100 in flight', 'ms', ({ getP99Ms }) => getP99Ms),
    chart('on disk', 'MiB', ({ diskBytes }) => diskBytes / MIB),
    chart('own memory (without mapped pages)', 'MiB', ({ memoryBytes }) => memoryBytes / MIB),
    {
      ...chart('start until ready', 's', ({ startSeconds }) => startSeconds),
      limit: { y: 2, label: 'goal at 1,000,000 keys: 2 s' },
    },
    chart('loading, 4,000 in flight', 'records/s', ({ keys, fillSeconds }) => keys / fillSeconds),
  ];
  const names = [...new Set(growth.map(({ system }) => system))];
  return svg(WIDTH, 720, 'One node with 10,000 to 1,000,000 keys of 256 bytes', [
    ...charts.map((each, index) =>
      drawChart(
        each,
        { left: 10 + (index % 3) * 368, top: 50 + Math.floor(index / 3) * 310, width: 368, height: 300 },
        styleOf,
      ),
    ),
    drawLegend(names, { left: 40, top: 690, width: WIDTH - 60, height: 20 }, styleOf),
  ]);
}
