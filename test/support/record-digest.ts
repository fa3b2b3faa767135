import { createHash } from 'node:crypto';
import type { AdminClient, AdminTarget } from '../../client/admin-client.ts';

/** What a node holds: equal digests mean equal records, byte by byte, tombstones included. */
export interface RecordDigest {
  readonly records: number;
  readonly sha256: string;
}

/** Reads all records of a node over its admin service. */
export async function digestOf(admin: AdminClient, target: AdminTarget): Promise<RecordDigest> {
  const hash = createHash('sha256');
  let records = 0;
  for await (const chunk of admin.streamRecords(target, {}, AbortSignal.timeout(30_000))) {
    for (const { key, record } of chunk.records) {
      const lengths = Buffer.alloc(8);
      lengths.writeUInt32BE(key.length, 0);
      lengths.writeUInt32BE(record.length, 4);
      hash.update(lengths).update(key).update(record);
      records += 1;
    }
  }
  return { records, sha256: hash.digest('hex') };
}
