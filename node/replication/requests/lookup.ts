import { KvError } from '../../../common/errors.ts';
import type { LookupReply, LookupRequest } from '../../../proto/gen/peer.ts';
import type { Store, StoredRecord } from '../../storage/store.ts';
import type { Topology } from '../topology.ts';
import type { AskedWrite, RequestIndex, RequestKnowledge } from './request-index.ts';

export interface LookupSources {
  readonly store: Pick<Store, 'latest'>;
  readonly index: RequestIndex;
  readonly topology: Pick<Topology, 'partitionOf' | 'holds'>;
  /** Whether this node holds everything of a partition that it has to. */
  readonly isReadable: (partition: number) => boolean;
  /** This node's horizon of a partition. */
  readonly horizonMs: (partition: number) => number;
}

/** What a replica can say of a write, and what it stores of its key, synced or not. */
export interface Lookup {
  readonly known: RequestKnowledge;
  readonly record: StoredRecord | undefined;
  readonly horizonMs: number;
}

const NOTHING = Buffer.alloc(0);
const UNKNOWN: Lookup = { known: { kind: 'unknown' }, record: undefined, horizonMs: 0 };

/**
 * Looks a write up here. Nothing of it need be durable: whoever builds on it brings the record to the replicas that it
 * counts, this one included.
 */
export function lookUp(sources: LookupSources, asked: AskedWrite, key: Buffer): Lookup {
  const { store, index, topology, isReadable, horizonMs } = sources;
  const partition = topology.partitionOf(key);
  // What was applied before it lost its data, it does not know, nor what it holds of it.
  if (!topology.holds(partition) || !isReadable(partition)) return UNKNOWN;
  const horizon = horizonMs(partition);
  try {
    const known = index.lookup(asked, key, partition);
    return { known, record: store.latest(key), horizonMs: horizon };
  } catch (error) {
    if (error instanceof KvError && error.code === 'DATA_LOSS') return UNKNOWN;
    throw error;
  }
}

/** Answers a coordinator's question about a write. */
export function answerLookup(sources: LookupSources, { id, key, ...asked }: LookupRequest): LookupReply {
  const { known, record, horizonMs } = lookUp(sources, asked, key);
  return {
    id,
    found: known.kind === 'held',
    version: known.kind === 'held' ? known.version : undefined,
    record: record?.bytes ?? NOTHING,
    horizonMs,
    unknown: known.kind === 'unknown',
  };
}
