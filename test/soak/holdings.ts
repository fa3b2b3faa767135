import { KvError } from '../../common/errors.ts';
import { digestOfRecords } from '../../node/storage/digest.ts';
import type { KeyedRecord, Store } from '../../node/storage/store.ts';
import { indexOf, keyAt, numberOf } from './expected.ts';
import type { Holdings } from './messages.ts';
import { PEER } from './writers.ts';

const MOST_RECORDS = 100_000;

/**
 * Reads everything that a store holds, in every way that there is, and compares the ways with each other.
 *
 * @param untilCounted - waits for the digest of a partition to be right, and says whether it is. @default it must be now
 */
export async function holdingsOf(
  store: Store,
  keys: number,
  untilCounted?: (partition: number) => Promise<boolean>,
): Promise<Holdings> {
  const wrong: string[] = [];
  const numbers = Array.from({ length: keys }, (_, index) => numberHeld(store, index, wrong));
  const damagedPartitions: number[] = [];
  const countedAnew: number[] = [];
  for (let partition = 0; partition < store.partitions; partition += 1) {
    const { records, damaged } = await scanned(store, partition);
    if (damaged) damagedPartitions.push(partition);
    for (const { key, record } of records) {
      const index = indexOf(key);
      if (index === undefined) wrong.push(`a scan shows key ${key.toString('hex')}, which nobody wrote`);
      else if (numbers[index] !== record.version.wallMs)
        wrong.push(`a scan shows ${record.version.wallMs} of key ${index}, and a read ${numbers[index]}`);
    }
    if (damaged || store.digest(partition).root === digestOfRecords(records).root) continue;
    if ((await untilCounted?.(partition)) === true) countedAnew.push(partition);
    else wrong.push(`the digest of partition ${partition} is not that of its records`);
  }
  if (store.statistics().versionConflicts > 0) wrong.push('two records had the same version');
  return {
    numbers,
    damagedPartitions,
    countedAnew,
    cursor: store.cursors().find(({ origin }) => origin === PEER.origin)?.sequence ?? 0,
    meta: store.readMeta('n')?.readUInt32BE() ?? 0,
    clockCeilingMs: store.clockCeilingMs,
    wrong,
  };
}

function numberHeld(store: Store, index: number, wrong: string[]): number {
  try {
    const record = store.get(keyAt(index));
    if (record === undefined) return 0;
    const number = numberOf(index, record);
    if (number === undefined) wrong.push(`key ${index} has a record that nobody wrote`);
    return number ?? record.version.wallMs;
  } catch (error) {
    if (error instanceof KvError && error.code === 'DATA_LOSS') return -1;
    throw error;
  }
}

/** Sound records of a partition, and whether there are others. */
export async function scanned(
  store: Store,
  partition: number,
): Promise<{ records: readonly KeyedRecord[]; damaged: boolean }> {
  let damaged = false;
  const onDamaged = (): void => void (damaged = true);
  const records = await store.scan(partition, { limit: MOST_RECORDS, onDamaged });
  return { records, damaged };
}
