import type { RequestId } from '../../proto/gen/kvstore.ts';
import type { ApplyResult, Mutation, Store, StoredRecord, WriteResult } from '../storage/store.ts';

/** To be told of every own entry, in the turn in which its version was minted. */
export type OnOwnEntry = (sequence: number, entry: Pick<Mutation, 'key' | 'record'>) => void;

/** Appends what this node mints, and knows how far that is on disk: what peers are told of the log's safe end. */
export class OwnLog {
  private readonly store: Store;
  private readonly onOwnEntry: OnOwnEntry;

  constructor(store: Store, onOwnEntry: OnOwnEntry = () => undefined) {
    this.store = store;
    this.onOwnEntry = onOwnEntry;
  }

  /** Own entries are synced through this sequence. */
  get durableHead(): number {
    return this.store.syncedHead;
  }

  /** `Store.write`. */
  write(
    key: Buffer,
    make: (held: StoredRecord | undefined) => StoredRecord | undefined,
    requestId?: RequestId,
  ): WriteResult | undefined {
    const result = this.store.write(key, make, requestId);
    if (result !== undefined) this.onOwnEntry(result.sequence, { key, record: result.record });
    return result;
  }

  /** `Store.apply` for own mutations. */
  append(mutations: readonly Mutation[]): ApplyResult {
    const result = this.store.apply(mutations);
    for (const [index, mutation] of mutations.entries()) {
      const outcome = result.outcomes[index];
      if (outcome?.kind === 'applied') this.onOwnEntry(outcome.sequence, mutation);
    }
    return result;
  }
}
