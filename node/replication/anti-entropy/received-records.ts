import { KvError } from '../../../common/errors.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import { StoreCorrupt } from '../../storage/store-errors.ts';
import type { KeyedRecord } from '../../storage/store.ts';
import type { Surroundings } from './surroundings.ts';

/** A record on its way between replicas outside of a log, with the sender's horizon of its partition before it was read. */
export interface SentRecord extends KeyedRecord {
  readonly horizonMs: number;
}

type Receiver = Pick<Surroundings, 'store' | 'horizons' | 'onReceived' | 'metrics'>;

/** The records that are not purged here (PROTOCOL 24); apply them in the same turn. */
export function admittedRecords(receiver: Receiver, records: readonly SentRecord[]): readonly SentRecord[] {
  const { store, horizons, onReceived, metrics } = receiver;
  const admitted = records.filter(({ key, record, horizonMs }) => {
    const partition = partitionOf(key, store.partitions);
    const admits = horizons.admits(key, partition, record, horizonMs);
    if (admits) onReceived(partition, record);
    return admits;
  });
  metrics.count('refused_records', records.length - admitted.length);
  return admitted;
}

/** Applies what is not purged here; resolves, when that is durable, with how many records were applied. */
export async function applyReceived(receiver: Receiver, records: readonly SentRecord[]): Promise<number> {
  const admitted = admittedRecords(receiver, records);
  await receiver.store.apply(admitted.map(({ key, record }) => ({ key, record, own: false }))).durable;
  return admitted.length;
}

/** Whether a store's error is about one damaged record, not about the store. */
export function isDataLoss(error: unknown): boolean {
  return error instanceof KvError && error.code === 'DATA_LOSS' && !(error instanceof StoreCorrupt);
}
