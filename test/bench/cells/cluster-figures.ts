import { setTimeout as delay } from 'node:timers/promises';
import type { Bench } from '../bench.ts';
import { anonymousBytes, cpuSeconds } from '../systems/server-process.ts';
import type { KvCluster, KvNode } from '../systems/kvcluster.ts';
import type { ThreeNodes } from './three-nodes.ts';

const MIB = 1024 * 1024;
const IDLE_MS = 5000;
const QUIET_MS = 30_000;
/** The collector looks once at every record that has come, 20,000 a second: that is no comparison. */
const LOOKED_AT_MS = 75_000;
const MISSED = 10_000;
const FILL_IN_FLIGHT = 4000;
const SYNC_LIMIT_MS = 300_000;
const LOOK_MS = 20;

/** Memory and processor time of nodes that have nothing to do, soon after their start. */
export async function idleMemory({ results }: Bench, kv: KvCluster): Promise<void> {
  await delay(IDLE_MS);
  const bytes = Math.max(...kv.pids.map(anonymousBytes));
  results.addFigure({
    id: 'idle-memory',
    title: 'resident memory of an idle node, without mapped pages (largest of 3)',
    value: bytes / MIB,
    unit: 'MiB',
  });
}

/** What happens to a member that was away, and to one that lost everything; what comparing costs. */
export async function clusterFigures(stand: ThreeNodes): Promise<void> {
  const { bench, kv, kvLoad } = stand;
  const [, , node] = kv.nodes;
  if (node === undefined) throw new Error('the cluster has no third node');
  const shareOfFew = bench.full ? await processorShare(stand, 'few keys', IDLE_MS) : undefined;
  await rejoin(stand, node);
  const keys = bench.full ? 1_000_000 : 100_000;
  bench.log(`loading ${keys} keys`);
  const seconds = await kvLoad.fill({ prefix: 'r', keys, valueBytes: 256, inFlight: FILL_IN_FLIGHT });
  bench.results.addFigure({
    id: 'load-rate',
    title: `loading ${keys} keys into 3 nodes, ${FILL_IN_FLIGHT} in flight`,
    value: keys / seconds,
    unit: 'records/s',
  });
  await rebuild(stand, node);
  if (shareOfFew === undefined) return;
  const share = (await processorShare(stand, `${keys} keys`, LOOKED_AT_MS)) - shareOfFew;
  bench.results.addFigure({
    id: 'compare-cost',
    title: `what comparing ${keys} equal keys adds to an idle node (wanted: less than 1 %)`,
    value: share,
    unit: '% of one processor',
  });
}

async function rejoin({ bench, kv, kvLoad }: ThreeNodes, node: KvNode): Promise<void> {
  await node.end('SIGKILL');
  await kvLoad.fill({ prefix: 'm', keys: MISSED, valueBytes: 256, inFlight: 100 });
  const startMs = performance.now();
  node.start();
  await inSync(kv, node);
  bench.results.addFigure({
    id: 'rejoin',
    title: `rejoin after ${MISSED} missed writes, from the start of the process until in sync`,
    value: (performance.now() - startMs) / 1000,
    unit: 's',
  });
}

async function rebuild({ bench, kv }: ThreeNodes, node: KvNode): Promise<void> {
  await node.end('SIGKILL');
  node.wipe();
  const startMs = performance.now();
  node.start();
  await node.listening();
  const listeningMs = performance.now();
  await inSync(kv, node);
  const endMs = performance.now();
  const { records } = await kv.status(node);
  const about = `rebuild of an empty replica with ${records} records`;
  const rate = { id: 'rebuild-rate', title: about, value: records / ((endMs - listeningMs) / 1000) };
  bench.results.addFigure({ ...rate, unit: 'records/s' });
  const seconds = (endMs - startMs) / 1000;
  bench.results.addFigure({
    id: 'rebuild-time',
    title: `${about}, from the start of the process until in sync`,
    value: seconds,
    unit: 's',
  });
}

/** Ready, readable in all partitions, nothing behind and nothing different. */
async function inSync(kv: KvCluster, node: KvNode): Promise<void> {
  const deadlineMs = performance.now() + SYNC_LIMIT_MS;
  for (;;) {
    const status = await kv.status(node).catch(() => undefined);
    const isWhole = status?.ready === true && status.fillingPartitions === 0 && status.inSync;
    if (isWhole && status.peers.every(({ behind }) => behind === 0)) return;
    if (performance.now() > deadlineMs)
      throw new Error(`${node.nodeId} is not in sync: ${status?.notReadyReason ?? 'no answer'}`);
    await delay(LOOK_MS);
  }
}

/** Of one node, on the average of the three, with no client: background comparisons and all that never stops. */
async function processorShare({ bench, kv }: ThreeNodes, about: string, settleMs: number): Promise<number> {
  await delay(settleMs);
  const used = (): number => kv.pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const before = used();
  await delay(QUIET_MS);
  const percent = (100 * (used() - before)) / (QUIET_MS / 1000) / kv.pids.length;
  const title = `processor share of an idle node, ${about}`;
  bench.results.addFigure({ id: `idle-share-${about}`, title, value: percent, unit: '% of one processor' });
  return percent;
}
