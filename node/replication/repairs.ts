import { KvError } from '../../common/errors.ts';
import { compareVersions, type Version } from '../../model/version.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import type { KeyedRecord, Mutation, Store } from '../storage/store.ts';
import type { RequestIndex } from './requests/request-index.ts';

/** A record on its way between replicas outside of a log, with the sender's horizon of its partition before it was read. */
export interface SentRecord extends KeyedRecord {
  readonly horizonMs: number;
}

/** A write and the version that it has been given. */
export interface NamedWrite {
  readonly requestId: RequestId;
  readonly key: Buffer;
  readonly version: Version;
}

/** What a repair is for. */
export interface RepairReason {
  /** The write that it finishes: its retry is done, or it has been read. It stands. */
  readonly finished?: NamedWrite | undefined;
  /** A quorum read answers with the records once they are here. */
  readonly forRead?: boolean;
}

export interface RepairsOptions {
  readonly store: Pick<Store, 'apply'>;
  readonly index: Pick<RequestIndex, 'note' | 'noteVersion' | 'doubt' | 'hasDenied'>;
  /** Whether this node holds everything of the key's partition: where it does not, that nothing newer is here says nothing. */
  readonly isReadable: (key: Buffer) => boolean;
  /** Whether a record from outside the live log may be applied here, by the sender's horizon (PROTOCOL 24). */
  readonly mayApply: (key: Buffer, mutation: Mutation, senderHorizonMs: number) => boolean;
}

/**
 * Applies records that quorum reads and retries bring here, and remembers of which writes they are. The log brings those
 * again later, perhaps when something newer has overwritten them: to their coordinator they would look beaten, which then
 * would write them again, over what came after them.
 */
export class Repairs {
  private readonly options: RepairsOptions;

  constructor(options: RepairsOptions) {
    this.options = options;
  }

  /** Resolves when the records, or newer ones, are durable. */
  async apply(
    records: readonly SentRecord[],
    { finished, forRead = false }: RepairReason = {},
  ): Promise<void> {
    const { store, index, mayApply, isReadable } = this.options;
    if (forRead && records.some(({ record }) => index.hasDenied(record.version))) {
      throw new KvError('UNAVAILABLE', 'what was read is being written again; read it again');
    }
    const mutations = records.flatMap(({ key, record, horizonMs }): Mutation[] => {
      const mutation = { key, record, own: false };
      if (!mayApply(key, mutation, horizonMs)) return [];
      const isFinished =
        finished?.key.equals(key) === true && compareVersions(finished.version, record.version) === 0;
      return [isFinished ? { ...mutation, requestId: finished.requestId } : mutation];
    });
    const { outcomes, durable } = store.apply(mutations);
    for (const [place, { key, record, requestId }] of mutations.entries()) {
      if (!isReadable(key)) continue;
      if (outcomes[place]?.kind !== 'superseded') {
        if (requestId === undefined) index.noteVersion(record.version);
      } else if (forRead) {
        // What is newer may have come before the write began or after the read asked for it.
        index.doubt(record.version);
      }
    }
    if (finished !== undefined) {
      index.note(finished.requestId, finished.key, finished.version);
      index.noteVersion(finished.version);
    }
    await durable;
  }
}
