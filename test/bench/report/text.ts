import type { Goal } from '../cells/goals.ts';
import type { CellResult } from '../cells/measure.ts';
import type { GrowthPoint, Results } from '../results.ts';
import { figure, markdownTable, table } from './table.ts';

type TableOf = typeof table;

const MIB = 1024 * 1024;

/** The goals as columns for a terminal. */
export function goalLines(goals: readonly Goal[]): readonly string[] {
  return table(GOAL_HEAD, goals.map(goalRow));
}

/** Everything that was measured, in Markdown. */
export function markdown(results: Results, goals: readonly Goal[], about: readonly string[]): string {
  const sections = [
    ['# What the benchmark measured', '', 'Written by `npm run bench`; docs/report.md says how to read it.'],
    about.map((line) => `- ${line}`),
    ['## Goals', '', ...markdownTable(GOAL_HEAD, goals.map(goalRow))],
    ...(results.skipped.length === 0
      ? []
      : [['## Left out', '', ...results.skipped.map((line) => `- ${line}`)]]),
    ['## Throughput and latency', ''],
    ...results.cells.map((cell) => cellLines(cell, markdownTable)),
    ['## Figures', '', ...markdownTable(['what', 'measured'], results.figures.map(figureRow))],
    ...(results.growth.length === 0 ? [] : [['## Growth', '', ...growthLines(results.growth)]]),
  ];
  return `${sections.map((lines) => lines.join('\n')).join('\n\n')}\n`;
}

const GOAL_HEAD = ['goal', 'wanted', 'measured', '', 'made of'];

function goalRow({ title, wanted, value, unit, isReached, made }: Goal): readonly string[] {
  const verdict = isReached === undefined ? 'not measured' : isReached ? 'reached' : 'MISSED';
  return [title, wanted, value === undefined ? '-' : `${figure(value)} ${unit}`, verdict, made];
}

function cellLines({ title, summaries }: CellResult, tableOf: TableOf): readonly string[] {
  const head = [
    '',
    'operations/s',
    'p50 ms',
    'p99 ms',
    'p99.9 ms',
    'slowest ms',
    'failed',
    'processors of the servers',
  ];
  const rows = summaries.map((each) => [
    each.contender,
    figure(each.opsPerSecond),
    figure(each.p50Ms),
    figure(each.p99Ms),
    figure(each.p999Ms),
    figure(each.maxMs),
    String(each.errors + each.misses),
    each.serverCpus === 0 ? '-' : figure(each.serverCpus),
  ]);
  return [`### ${title}`, '', ...tableOf(head, rows)];
}

function figureRow({ title, value, unit }: Results['figures'][number]): readonly string[] {
  return [title, `${figure(value)} ${unit}`];
}

function growthLines(points: readonly GrowthPoint[]): readonly string[] {
  const head = [
    '',
    'put p99 ms',
    'get p99 ms',
    'on disk MiB',
    'own memory MiB',
    'start s',
    'records/s loaded',
  ];
  const rows = points.map((point) => [
    `${point.system}, ${point.keys.toLocaleString('en-US')} keys`,
    figure(point.putP99Ms),
    figure(point.getP99Ms),
    figure(point.diskBytes / MIB),
    figure(point.memoryBytes / MIB),
    figure(point.startSeconds),
    figure(point.keys / point.fillSeconds),
  ]);
  return markdownTable(head, rows);
}
