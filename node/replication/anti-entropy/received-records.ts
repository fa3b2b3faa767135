import { KvError } from '../../../common/errors.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import { StoreCorrupt } from '../../storage/store-errors.ts';
import type { SentRecord } from '../repairs.ts';
import type { Surroundings } from './surroundings.ts';

type Receiver = Pick<Surroundings, 'store' | 'horizons' | 'onReceived' | 'onApplied' | 'metrics'>;

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
  const { outcomes, durable } = receiver.store.apply(
    admitted.map(({ key, record }) => ({ key, record, own: false })),
  );
  for (const [place, { key, record }] of admitted.entries()) {
    if (outcomes[place]?.kind !== 'applied') continue;
    receiver.onApplied(partitionOf(key, receiver.store.partitions), record);
  }
  await durable;
  return admitted.length;
}

/** Whether a store's error is about one damaged record, not about the store. */
export function isDataLoss(error: unknown): boolean {
  return error instanceof KvError && error.code === 'DATA_LOSS' && !(error instanceof StoreCorrupt);
}
