/** A point of a line, with a word beside it. */
export interface ChartPoint {
  readonly x: number;
  readonly y: number;
  readonly label?: string;
}

export interface ChartSeries {
  readonly name: string;
  readonly points: readonly ChartPoint[];
}

/** How a series is drawn, everywhere alike. */
export interface SeriesStyle {
  readonly color: string;
  /** For whom the plot is about. */
  readonly isBold: boolean;
  readonly isDashed: boolean;
}

/** One pair of logarithmic axes with lines. */
export interface Chart {
  readonly title: string;
  readonly xTitle: string;
  readonly yTitle: string;
  readonly series: readonly ChartSeries[];
  /** A horizontal line that should not be exceeded. */
  readonly limit?: { readonly y: number; readonly label: string };
}

export interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

interface Axis {
  readonly at: (value: number) => number;
  readonly ticks: readonly number[];
  readonly fine: readonly number[];
}

const INK = '#24292f';
const FAINT = '#57606a';
const GRID = '#d8dee4';
const MARGIN = { left: 58, right: 18, top: 34, bottom: 48 };

/** Draws a chart into a part of the picture. */
export function drawChart(chart: Chart, box: Box, styleOf: (name: string) => SeriesStyle): string {
  const plot = {
    left: box.left + MARGIN.left,
    right: box.left + box.width - MARGIN.right,
    top: box.top + MARGIN.top,
    bottom: box.top + box.height - MARGIN.bottom,
  };
  const points = chart.series.flatMap(({ points: own }) => own);
  const limits = chart.limit === undefined ? [] : [chart.limit.y];
  const x = logAxis(
    points.map((point) => point.x),
    plot.left,
    plot.right,
  );
  const y = logAxis([...points.map((point) => point.y), ...limits], plot.bottom, plot.top);
  const middle = (plot.top + plot.bottom) / 2;
  return [
    text({ x: plot.left, y: box.top + 18, size: 14, weight: 600 }, chart.title),
    ...x.fine.map((value) => line(x.at(value), plot.top, x.at(value), plot.bottom, GRID, 0.4)),
    ...y.fine.map((value) => line(plot.left, y.at(value), plot.right, y.at(value), GRID, 0.4)),
    ...x.ticks.map((value) => line(x.at(value), plot.top, x.at(value), plot.bottom, GRID, 1)),
    ...y.ticks.map((value) => line(plot.left, y.at(value), plot.right, y.at(value), GRID, 1)),
    `<rect x="${plot.left}" y="${plot.top}" width="${plot.right - plot.left}" height="${plot.bottom - plot.top}" fill="none" stroke="${FAINT}"/>`,
    ...x.ticks.map((value) =>
      text({ x: x.at(value), y: plot.bottom + 16, anchor: 'middle', color: FAINT }, short(value)),
    ),
    ...y.ticks.map((value) =>
      text({ x: plot.left - 6, y: y.at(value) + 4, anchor: 'end', color: FAINT }, short(value)),
    ),
    text(
      { x: (plot.left + plot.right) / 2, y: plot.bottom + 36, anchor: 'middle', color: INK },
      chart.xTitle,
    ),
    `<g transform="rotate(-90 ${box.left + 14} ${middle})">${text({ x: box.left + 14, y: middle, anchor: 'middle' }, chart.yTitle)}</g>`,
    ...(chart.limit === undefined ? [] : drawLimit(chart.limit, y.at(chart.limit.y), plot)),
    ...chart.series.map((series) => drawSeries(series, x, y, styleOf(series.name))),
  ].join('\n');
}

/** Names and line styles, in rows below each other. */
export function drawLegend(
  names: readonly string[],
  box: Box,
  styleOf: (name: string) => SeriesStyle,
): string {
  const columns = 4;
  return names
    .map((name, index) => {
      const left = box.left + (index % columns) * (box.width / columns);
      const top = box.top + Math.floor(index / columns) * 20;
      const { color, isBold, isDashed } = styleOf(name);
      return [
        line(left, top, left + 26, top, color, isBold ? 3.5 : 2, isDashed),
        `<circle cx="${left + 13}" cy="${top}" r="${isBold ? 4.5 : 3.5}" fill="${color}"/>`,
        text({ x: left + 34, y: top + 4, weight: isBold ? 600 : 400 }, name),
      ].join('');
    })
    .join('\n');
}

/** A whole picture. */
export function svg(width: number, height: number, title: string, content: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text({ x: 20, y: 28, size: 18, weight: 600 }, title),
    ...content,
    '</svg>',
    '',
  ].join('\n');
}

interface TextStyle {
  readonly x: number;
  readonly y: number;
  readonly size?: number;
  readonly weight?: number;
  readonly anchor?: 'start' | 'middle' | 'end';
  readonly color?: string;
}

export function text(
  { x, y, size = 12, weight = 400, anchor = 'start', color = INK }: TextStyle,
  words: string,
): string {
  const place = `x="${round(x)}" y="${round(y)}" text-anchor="${anchor}"`;
  return `<text ${place} font-size="${size}" font-weight="${weight}" fill="${color}">${escaped(words)}</text>`;
}

function line(
  x1: number,
  y1: number,
  x2: number,
  y2: number,
  color: string,
  width: number,
  isDashed = false,
): string {
  const dash = isDashed ? ' stroke-dasharray="6 4"' : '';
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" stroke="${color}" stroke-width="${width}"${dash}/>`;
}

function drawLimit(
  { label }: { label: string },
  at: number,
  plot: { left: number; right: number },
): readonly string[] {
  return [
    line(plot.left, at, plot.right, at, '#cf222e', 1.2, true),
    text({ x: plot.right - 4, y: at - 5, anchor: 'end', size: 11, color: '#cf222e' }, label),
  ];
}

function drawSeries(
  { points }: ChartSeries,
  x: Axis,
  y: Axis,
  { color, isBold, isDashed }: SeriesStyle,
): string {
  const placed = points.map((point) => ({ ...point, px: round(x.at(point.x)), py: round(y.at(point.y)) }));
  const path = placed.map(({ px, py }, index) => `${index === 0 ? 'M' : 'L'}${px} ${py}`).join(' ');
  const dash = isDashed ? ' stroke-dasharray="6 4"' : '';
  return [
    `<path d="${path}" fill="none" stroke="${color}" stroke-width="${isBold ? 3 : 1.8}" stroke-linejoin="round"${dash}/>`,
    ...placed.map(
      ({ px, py }) =>
        `<circle cx="${px}" cy="${py}" r="${isBold ? 4.5 : 3.5}" fill="${color}" stroke="#ffffff"/>`,
    ),
    ...placed.flatMap(({ px, py, label }) =>
      label === undefined ? [] : [text({ x: px + 7, y: py + 13, size: 10, color }, label)],
    ),
  ].join('\n');
}

/** From a decade to a decade, or half of one, around all values. */
function logAxis(values: readonly number[], from: number, to: number): Axis {
  const usable = values.filter((value) => value > 0 && Number.isFinite(value));
  const low = stepBelow(Math.min(...usable, 1e9) * 0.97);
  const high = stepBelow(Math.max(...usable, low) * 3.3);
  const span = Math.log10(high / low) || 1;
  const at = (value: number): number => from + ((to - from) * Math.log10(value / low)) / span;
  const ticks: number[] = [];
  const fine: number[] = [];
  for (let decade = 10 ** Math.floor(Math.log10(low)); decade <= high * 1.001; decade *= 10) {
    for (let factor = 1; factor < 10; factor += 1) {
      const value = decade * factor;
      if (value < low * 0.999 || value > high * 1.001) continue;
      // Over few decades, threes as well: two ticks tell no scale.
      if (factor === 1 || (factor === 3 && span < 2.6)) ticks.push(value);
      else fine.push(value);
    }
  }
  return { at, ticks, fine };
}

/** The next 1, 3, 10, 30 and so on that is not above. */
function stepBelow(value: number): number {
  const decade = 10 ** Math.floor(Math.log10(value) + 1e-9);
  return value >= decade * 3 ? decade * 3 : decade;
}

function short(value: number): string {
  if (value >= 1e6) return `${round(value / 1e6)}M`;
  return value >= 1000 ? `${round(value / 1000)}k` : String(Number(value.toPrecision(2)));
}

const round = (value: number): number => Math.round(value * 10) / 10;

function escaped(words: string): string {
  return words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
