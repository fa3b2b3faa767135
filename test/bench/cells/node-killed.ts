import { setTimeout as delay } from 'node:timers/promises';
import { work } from '../load/work.ts';
import { cpuSeconds } from '../systems/server-process.ts';
import type { KvNode } from '../systems/kvcluster.ts';
import type { ThreeNodes } from './three-nodes.ts';

const DURATION_MS = 6000;
const KILL_AFTER_MS = 3000;
const BUSY_MS = 400;

/**
 * Kills the busiest node, by kill -9, in the middle of reads and writes through our client: no error may reach the
 * caller. What is printed is how long nothing was answered.
 */
export async function nodeKilled({ bench, kv, kvLoad }: ThreeNodes): Promise<void> {
  const running = kvLoad.run(
    work({ keys: bench.keys, readShare: 0.5, inFlight: 100, durationMs: DURATION_MS }),
  );
  await delay(KILL_AFTER_MS);
  const victim = await busiest(kv.nodes);
  await victim.end('SIGKILL');
  bench.log(`killed ${victim.nodeId}, the busiest node, under load`);
  const measurement = await running;
  const startMs = performance.now();
  victim.start();
  await victim.ready();
  const readyMs = performance.now() - startMs;
  const { errors, misses, firstError, longestPauseMs = NaN, maxMs, opsPerSecond } = measurement;
  const about = 'a node killed under 100 operations in flight, half of them reads';
  const figures = [
    { id: 'kill-errors', title: `${about}: errors that reached the caller`, value: errors, unit: 'errors' },
    { id: 'kill-misses', title: `${about}: reads that found nothing`, value: misses, unit: 'reads' },
    {
      id: 'kill-pause',
      title: `${about}: longest time without an answer`,
      value: longestPauseMs,
      unit: 'ms',
    },
    { id: 'kill-slowest', title: `${about}: slowest operation`, value: maxMs, unit: 'ms' },
    { id: 'kill-ready', title: `${about}: its next start until ready`, value: readyMs, unit: 'ms' },
    { id: 'kill-rate', title: `${about}: throughput over all`, value: opsPerSecond, unit: 'operations/s' },
  ];
  for (const figure of figures) bench.results.addFigure(figure);
  if (firstError !== undefined) bench.log(`the first error: ${firstError}`);
}

async function busiest(nodes: readonly KvNode[]): Promise<KvNode> {
  const used = (): number[] => nodes.map(({ pid }) => (pid === undefined ? 0 : cpuSeconds(pid)));
  const before = used();
  await delay(BUSY_MS);
  const shares = used().map((seconds, index) => seconds - (before[index] ?? 0));
  const node = nodes[shares.indexOf(Math.max(...shares))];
  if (node === undefined) throw new Error('there is no node');
  return node;
}
