/** The process that is killed: opens a store, tells what it holds, and writes to it until it is ended. */
import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { sleep, systemClock, systemScheduler } from '../../common/clock.ts';
import { messageOf } from '../../common/errors.ts';
import { systemRandom } from '../../common/random.ts';
import { digestOfRecords } from '../../node/storage/digest.ts';
import type { StoreLimits } from '../../node/storage/limits.ts';
import { openStore } from '../../node/storage/open-store.ts';
import { StoreCorrupt } from '../../node/storage/store-errors.ts';
import type { Store } from '../../node/storage/store.ts';
import { silentLogger } from '../support/memory-store.ts';
import { seededRandom } from '../support/seeded-random.ts';
import { keyAt, MOST_KEYS, PARTITIONS, recordAt } from './expected.ts';
import { holdingsOf, scanned } from './holdings.ts';
import type { Asked, Told } from './messages.ts';
import { Writers } from './writers.ts';

const [directory = '', seed = '', firstNumber = '', limits = '{}'] = process.argv.slice(2);
const RECOUNT_TIMEOUT_MS = 10_000;
const OUTPUT = 1;

function tell(told: Told): void {
  writeSync(OUTPUT, `${JSON.stringify(told)}\n`);
}

async function open(): Promise<Store> {
  try {
    return await openStore({
      directory,
      partitions: PARTITIONS,
      clock: systemClock,
      scheduler: systemScheduler,
      random: systemRandom,
      logger: silentLogger,
      limits: JSON.parse(limits) as Partial<StoreLimits>,
    });
  } catch (error) {
    tell({ kind: error instanceof StoreCorrupt ? 'corrupt' : 'failed', message: messageOf(error) });
    process.exit(0);
  }
}

async function repair(
  store: Store,
  { damagedPartitions, repair: pairs }: Asked & { kind: 'write' },
): Promise<void> {
  for (const partition of damagedPartitions)
    await store.removeWhere(partition, (_key, record) => record === undefined);
  const mutations = pairs.flatMap((index, at) =>
    at % 2 === 0 ? [{ key: keyAt(index), record: recordAt(index, pairs[at + 1] ?? 0), own: false }] : [],
  );
  await store.apply(mutations).durable;
  await Promise.all(damagedPartitions.map((partition) => untilCounted(store, partition)));
}

/** Counting anew what had a damaged record happens in the background. */
async function untilCounted(store: Store, partition: number): Promise<boolean> {
  for (const endMs = performance.now() + RECOUNT_TIMEOUT_MS; performance.now() < endMs;) {
    const { records, damaged } = await scanned(store, partition);
    if (!damaged && store.digest(partition).root === digestOfRecords(records).root) return true;
    await sleep(systemScheduler, 20);
  }
  return false;
}

const store = await open();
store.failed.catch((error: unknown) => {
  tell({ kind: 'failed', message: messageOf(error) });
  process.exit(0);
});
tell({
  kind: 'opened',
  holds: await holdingsOf(store, MOST_KEYS, (partition) => untilCounted(store, partition)),
});
const writers = new Writers({
  store,
  scheduler: systemScheduler,
  random: seededRandom(Number(seed)),
  keys: MOST_KEYS,
  firstNumber: Number(firstNumber),
  tell,
});
for await (const line of createInterface(process.stdin)) {
  const asked = JSON.parse(line) as Asked;
  if (asked.kind === 'write') {
    await repair(store, asked);
    tell({ kind: 'repaired' });
    writers.start();
  } else {
    await writers.stop();
    await store.close();
    tell({ kind: 'closed' });
    process.exit(0);
  }
}
